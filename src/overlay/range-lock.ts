/**
 * Locks over ranges of blocks, for whoever changes a block's state: copy-up is read-modify-write, and two of them in
 * one block must not lose each other's bytes; nor may a trim come in between. Readers, and writers into blocks that
 * are in the store already, take none.
 *
 * A stripe guards every 256th region of 16 blocks (64 KiB, one word of the map, so words need no compare-and-swap); a
 * session has 1 KiB of them.
 * All callers take stripes in ascending order, so nobody waits in a circle.
 */
import { lock, tryLock, unlock } from '../lib/mutex.ts';
import type { BlockIndex } from './block.ts';

const REGION_BLOCKS = 16;
export const STRIPES = 256;

export class RangeLock {
  readonly #stripes: Int32Array;

  /** @param stripes `STRIPES` mutexes, shared */
  constructor(stripes: Int32Array) {
    this.#stripes = stripes;
  }

  /** Waits for the blocks `first` to `last`, both included; not recursive. */
  lock(first: BlockIndex, last: BlockIndex): void {
    this.#each(first, last, lock);
  }

  unlock(first: BlockIndex, last: BlockIndex): void {
    this.#each(first, last, unlock);
  }

  /** As `lock`, without waiting: false, and nothing locked, when somebody has a part of it. */
  tryLock(first: BlockIndex, last: BlockIndex): boolean {
    const firstRegion = Math.floor(first / REGION_BLOCKS);
    const lastRegion = Math.floor(last / REGION_BLOCKS);
    for (let region = firstRegion; region <= lastRegion; region++) {
      if (tryLock(this.#stripes, region % STRIPES)) continue;
      for (let taken = firstRegion; taken < region; taken++) unlock(this.#stripes, taken % STRIPES);
      return false;
    }
    return true;
  }

  #each(first: BlockIndex, last: BlockIndex, act: (words: Int32Array, index: number) => void): void {
    const firstRegion = Math.floor(first / REGION_BLOCKS);
    const lastRegion = Math.floor(last / REGION_BLOCKS);
    if (lastRegion - firstRegion >= STRIPES - 1) {
      for (let stripe = 0; stripe < STRIPES; stripe++) act(this.#stripes, stripe);
      return;
    }
    const from = firstRegion % STRIPES;
    const to = lastRegion % STRIPES;
    // A range that wraps around the table is two ascending pieces, the lower one first.
    if (to < from) {
      for (let stripe = 0; stripe <= to; stripe++) act(this.#stripes, stripe);
      for (let stripe = from; stripe < STRIPES; stripe++) act(this.#stripes, stripe);
      return;
    }
    for (let stripe = from; stripe <= to; stripe++) act(this.#stripes, stripe);
  }
}
