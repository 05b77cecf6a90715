/**
 * The account of a disk's blocks in the store, against its quota, in shared memory. Space is booked before it is
 * written and given back if that fails, so that workers together never exceed the quota.
 */
import { BLOCK_BYTES, MAX_STORE_BLOCKS } from './block.ts';
import { CONTROL } from './shared.ts';

export class StoreAccount {
  readonly #control: Int32Array;
  readonly #quotaBlocks: number;

  /** @param maxStoreBytes the quota, or undefined for what the host has */
  constructor(control: Int32Array, maxStoreBytes: number | undefined) {
    this.#control = control;
    this.#quotaBlocks =
      maxStoreBytes === undefined
        ? MAX_STORE_BLOCKS
        : Math.min(MAX_STORE_BLOCKS, Math.floor(maxStoreBytes / BLOCK_BYTES));
  }

  /** Bytes of blocks whose content is in the store. */
  get writtenBytes(): number {
    return (Atomics.load(this.#control, CONTROL.WRITTEN_BLOCKS) >>> 0) * BLOCK_BYTES;
  }

  /** Bytes that blocks take or are promised in the store; what the quota counts. */
  get occupiedBytes(): number {
    return (Atomics.load(this.#control, CONTROL.OCCUPIED_BLOCKS) >>> 0) * BLOCK_BYTES;
  }

  /** Books `blocks` more; false, and nothing booked, if they do not fit. */
  charge(blocks: number): boolean {
    if (blocks === 0) return true;
    for (;;) {
      const before = Atomics.load(this.#control, CONTROL.OCCUPIED_BLOCKS);
      const after = (before >>> 0) + blocks;
      if (after > this.#quotaBlocks) return false;
      if (Atomics.compareExchange(this.#control, CONTROL.OCCUPIED_BLOCKS, before, after | 0) === before) return true;
    }
  }

  /** Gives back what was booked. */
  refund(blocks: number): void {
    if (blocks !== 0) Atomics.sub(this.#control, CONTROL.OCCUPIED_BLOCKS, blocks);
  }
}
