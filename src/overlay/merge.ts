/**
 * Puts two layers together when nothing but the upper one stands on the lower: what the upper has goes into the lower,
 * which then takes its place. So a disk whose snapshots come and go does not stand on ever more layers. The cost is in
 * proportion to what the upper one has, the younger of the two. Main thread, a slice at a time.
 *
 * Nobody writes to the upper layer while this goes on, and nobody reads of the lower one what is changed there: the
 * upper one hides it. So readers need no lock, and giving up half-way leaves nothing wrong. Space that was set aside in
 * the upper layer is not moved: whoever calls sees to it that there is none.
 */
import { type Errno, OK } from '../lib/errno.ts';
import { BLOCK_BYTES, BASE as SHOWS_BACKING, STORE, ZERO } from './block.ts';
import type { Layer } from './layer.ts';
import type { Layers } from './layers.ts';

const SLICE_BLOCKS = 256;
/** Stretches of equal state a slice: looking costs, too. */
const SLICE_RUNS = 4096;

export class Merge {
  readonly #layers: Layers;
  readonly #below: number;
  readonly #from: Layer;
  readonly #into: Layer;
  readonly #buffer = new Uint8Array(SLICE_BLOCKS * BLOCK_BYTES);
  #next = 0;

  constructor(layers: Layers, above: number, below: number) {
    this.#layers = layers;
    this.#below = below;
    this.#from = layers.open(above);
    this.#into = layers.open(below);
  }

  /** Whether everything has been moved. */
  get isDone(): boolean {
    return this.#next >= this.#from.map.blocks;
  }

  /** Moves one slice; an error ends the merge, for now. */
  step(): Errno {
    const { map } = this.#from;
    let copied = 0;
    for (let runs = 0; !this.isDone && copied < SLICE_BLOCKS && runs < SLICE_RUNS; runs++) {
      let run = map.runAt(this.#next, map.blocks - this.#next);
      const state = map.runState;
      if (state === STORE) {
        run = Math.min(run, SLICE_BLOCKS - copied);
        const errno = this.#copy(this.#next, run);
        if (errno !== OK) return errno;
        copied += run;
      } else if (state === ZERO) {
        const errno = this.#into.store.discard(this.#next * BLOCK_BYTES, run * BLOCK_BYTES);
        if (errno !== OK) return errno;
        this.#into.map.set(this.#next, run, ZERO);
      }
      this.#next += run;
    }
    return OK;
  }

  /**
   * Gives the lower layer the upper one's ends. Nobody is in a session that stands on either.
   *
   * @returns an error of the store; then the merge must be given up
   */
  finish(): Errno {
    const { sizeBytes, backingLimit } = this.#from.extent;
    const errno = this.#hideFrom(backingLimit);
    if (errno !== OK) return errno;
    this.#into.extent.initialise(sizeBytes, Math.min(backingLimit, this.#into.extent.backingLimit));
    return OK;
  }

  /** Gives back the room that was taken: nobody needs of the lower layer what the upper one hides. */
  giveUp(): Errno {
    const { map } = this.#from;
    let errno: Errno = OK;
    for (let block = 0; block < this.#next; ) {
      const run = Math.min(map.runAt(block, map.blocks - block), this.#next - block);
      if (map.runState === STORE) {
        this.#into.map.set(block, run, SHOWS_BACKING);
        const failed = this.#into.store.discard(block * BLOCK_BYTES, run * BLOCK_BYTES);
        if (errno === OK) errno = failed;
      }
      block += run;
    }
    this.#layers.recount(this.#below);
    return errno;
  }

  #copy(first: number, count: number): Errno {
    const offset = first * BLOCK_BYTES;
    const length = count * BLOCK_BYTES;
    const errno = this.#from.store.read(offset, length, this.#buffer, 0);
    if (errno !== OK) return errno;
    const written = this.#into.store.write(offset, length, this.#buffer, 0);
    if (written === OK) this.#into.map.set(first, count, STORE);
    return written;
  }

  /** What the lower layer has past the end that the upper one shows of it must not come to light; what was moved stays. */
  #hideFrom(end: number): Errno {
    if (end >= this.#into.extent.sizeBytes) return OK;
    const { map: upper } = this.#from;
    const { map, store } = this.#into;
    const tail = end % BLOCK_BYTES;
    let block = Math.floor(end / BLOCK_BYTES);
    for (let run = 0; block < map.blocks; block += run) {
      run = upper.runAt(block, map.blocks - block);
      if (upper.runState === STORE || upper.runState === ZERO) continue;
      const hidden = map.runAt(block, run);
      run = Math.min(run, hidden);
      if (map.runState !== STORE && map.runState !== ZERO) continue;
      const isPartial = tail > 0 && block * BLOCK_BYTES < end;
      if (isPartial) {
        run = 1;
        if (map.runState === ZERO) continue;
        const errno = store.zero(end, BLOCK_BYTES - tail);
        if (errno !== OK) return errno;
        continue;
      }
      map.set(block, run, SHOWS_BACKING);
      const errno = store.discard(block * BLOCK_BYTES, run * BLOCK_BYTES);
      if (errno !== OK) return errno;
    }
    return OK;
  }
}
