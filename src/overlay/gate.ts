/**
 * Who is in which session, and the gate in front of each. A thread enters a session for each request and leaves it
 * after; whoever has to change what lies under a session closes its gate, waits until nobody is inside, and opens it
 * again. Entering costs three atomic accesses and no system call. Threads that find a gate closed wait in front of it.
 */
import type { Arena } from './arena.ts';
import { SESSION } from './shared.ts';

/** Words of a thread: a cache line each, since each is written at every request. */
const STRIDE = 16;
const POLL_MS = 1;

/** Somebody has closed the gate in front of a thread that must not wait. */
export class GateClosed extends Error {
  override readonly name = 'GateClosed';
}

export class Gate {
  /** Whether `enter` waits, or throws `GateClosed`. */
  waits = true;
  readonly #arena: Arena;
  readonly #presence: Int32Array;
  readonly #mine: number;

  static create(threads: number): SharedArrayBuffer {
    return new SharedArrayBuffer(threads * STRIDE * 4);
  }

  /** @param thread number of this thread, below `threads` */
  constructor(arena: Arena, presence: SharedArrayBuffer, thread: number) {
    this.#arena = arena;
    this.#presence = new Int32Array(presence);
    this.#mine = thread * STRIDE;
  }

  /**
   * Waits while the gate is closed; not recursive.
   *
   * @throws GateClosed instead of waiting, in a thread that must not
   */
  enter(session: number): void {
    const arena = this.#arena;
    arena.reach(session, SESSION.WORDS);
    for (;;) {
      Atomics.store(this.#presence, this.#mine, session);
      if (Atomics.load(arena.words, session + SESSION.GATE) === 0) return;
      Atomics.store(this.#presence, this.#mine, 0);
      if (!this.waits) throw new GateClosed('the session is closed');
      Atomics.wait(arena.words, session + SESSION.GATE, 1);
    }
  }

  /** As `enter`, without waiting: false, and nothing entered, when the gate is closed. */
  tryEnter(session: number): boolean {
    const arena = this.#arena;
    arena.reach(session, SESSION.WORDS);
    Atomics.store(this.#presence, this.#mine, session);
    if (Atomics.load(arena.words, session + SESSION.GATE) === 0) return true;
    Atomics.store(this.#presence, this.#mine, 0);
    return false;
  }

  leave(): void {
    Atomics.store(this.#presence, this.#mine, 0);
  }

  /**
   * Closes the gate and waits until everybody has left. One thread at a time does so, and not from inside.
   *
   * @returns false, with the gate open again, when somebody stays longer than `timeoutMs`
   */
  close(session: number, timeoutMs: number): boolean {
    this.#arena.reach(session, SESSION.WORDS);
    const { words } = this.#arena;
    Atomics.store(words, session + SESSION.GATE, 1);
    const deadline = performance.now() + timeoutMs;
    for (let slot = 0; slot < this.#presence.length; slot += STRIDE) {
      while (Atomics.load(this.#presence, slot) === session) {
        if (performance.now() > deadline) {
          this.open(session);
          return false;
        }
        Atomics.wait(this.#presence, slot, session, POLL_MS);
      }
    }
    return true;
  }

  open(session: number): void {
    const { words } = this.#arena;
    Atomics.store(words, session + SESSION.GATE, 0);
    Atomics.notify(words, session + SESSION.GATE);
  }
}
