/**
 * How the thread with the ring passes requests to the threads that may wait: a queue in shared memory. The slot of a
 * request, which is served in it, comes back when it is answered. One thread gives, several take.
 */
import { LANES } from '../../fs/spec.ts';

export const SLOTS = LANES;

/** Operations that the ring takes at a time, a power of two: of each slot two, and the wait for requests. */
export const RING_ENTRIES = SLOTS * 4;

const WORD = { HEAD: 0, TAIL: 1, RELEASED: 2, ENDED: 3, CALLED: 4, ENTRIES: 16 } as const;
/** Slot and length. */
const ENTRY_WORDS = 2;

export class HandOver {
  /** Bytes of the request that `take` returned. */
  length = 0;
  readonly #words: Int32Array;

  static create(): SharedArrayBuffer {
    return new SharedArrayBuffer((WORD.ENTRIES + SLOTS * ENTRY_WORDS) * 4);
  }

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
  }

  /** At most `SLOTS` are out at a time, so there is room. */
  give(slot: number, length: number): void {
    const words = this.#words;
    const tail = Atomics.load(words, WORD.TAIL);
    const at = entryAt(tail);
    words[at] = slot;
    words[at + 1] = length;
    Atomics.store(words, WORD.TAIL, (tail + 1) | 0);
    Atomics.notify(words, WORD.TAIL, 1);
  }

  /** Whether it is time to ask for one more taker: nobody is asked yet. */
  callForHelp(): boolean {
    return Atomics.exchange(this.#words, WORD.CALLED, 1) === 0;
  }

  /** Who was asked has seen to it. */
  answerCall(): void {
    Atomics.store(this.#words, WORD.CALLED, 0);
  }

  /** Requests that nobody has taken yet. */
  get waiting(): number {
    return (Atomics.load(this.#words, WORD.TAIL) - Atomics.load(this.#words, WORD.HEAD)) | 0;
  }

  /** Slots that have come back since the last call, a bit each. */
  takeBack(): number {
    return Atomics.exchange(this.#words, WORD.RELEASED, 0);
  }

  /** Waits until a slot comes back. */
  waitForSlot(): void {
    Atomics.wait(this.#words, WORD.RELEASED, 0);
  }

  /** No more will be given. */
  end(): void {
    Atomics.store(this.#words, WORD.ENDED, 1);
    Atomics.add(this.#words, WORD.TAIL, 1);
    Atomics.notify(this.#words, WORD.TAIL);
  }

  /** Waits for a request: its slot, which is to be released; -1 when no more will come. */
  take(): number {
    const words = this.#words;
    for (;;) {
      const head = Atomics.load(words, WORD.HEAD);
      const tail = Atomics.load(words, WORD.TAIL);
      if (Atomics.load(words, WORD.ENDED) !== 0) return -1;
      if (head === tail) {
        Atomics.wait(words, WORD.TAIL, tail);
        continue;
      }
      const at = entryAt(head);
      const slot = words[at] as number;
      const length = words[at + 1] as number;
      // Who loses has read what may be another's by now, and looks again.
      if (Atomics.compareExchange(words, WORD.HEAD, head, (head + 1) | 0) !== head) continue;
      this.length = length;
      return slot;
    }
  }

  release(slot: number): void {
    Atomics.or(this.#words, WORD.RELEASED, 1 << slot);
    Atomics.notify(this.#words, WORD.RELEASED);
  }
}

function entryAt(position: number): number {
  return WORD.ENTRIES + (position & (SLOTS - 1)) * ENTRY_WORDS;
}
