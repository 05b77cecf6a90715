/**
 * The base as all sessions of a mount have it: how large it is now, which a commit may change, and whether one is under way.
 * One instance a thread, over shared memory.
 */
import type { Base } from '../base/base.ts';
import type { Arena } from './arena.ts';
import { MOUNT } from './shared.ts';

export class SharedBase {
  readonly #base: Base;
  readonly #mount: Int32Array;
  readonly #bytes: Float64Array;
  readonly #openedBytes: number;

  /** @param mount index of the mount's record */
  constructor(base: Base, arena: Arena, mount: number) {
    this.#base = base;
    this.#mount = arena.record(mount, MOUNT.WORDS);
    this.#openedBytes = base.sizeBytes;
    this.#bytes = arena.doubles(mount + MOUNT.BASE_BYTES, 1);
    if (this.bytes === 0) this.bytes = base.sizeBytes;
  }

  /** Bytes of the base as it is now. */
  get bytes(): number {
    return this.#bytes[0] as number;
  }

  set bytes(value: number) {
    this.#bytes[0] = value;
  }

  get fd(): number {
    return this.#base.placeFd;
  }

  /** Has this thread's `Base` know the size, before a disk is opened over it. */
  refresh(): void {
    this.#base.sizeBytes = this.bytes;
  }

  /**
   * Bytes of a fresh disk.
   *
   * @param asked as they were when the mount was made: the base's, or more
   */
  freshBytes(asked: number): number {
    return asked > this.#openedBytes ? Math.max(asked, this.bytes) : this.bytes;
  }

  /** Whether a disk is being committed: then no other may be made. */
  get isCommitting(): boolean {
    return Atomics.load(this.#mount, MOUNT.COMMITTING) !== 0;
  }

  set isCommitting(value: boolean) {
    Atomics.store(this.#mount, MOUNT.COMMITTING, value ? 1 : 0);
  }
}
