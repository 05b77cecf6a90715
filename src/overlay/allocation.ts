/**
 * Setting space aside (fallocate(2), mode 0 and KEEP_SIZE): afterwards a write into the range finds room. The caller
 * holds the range lock.
 */
import { ENOSPC, type Errno, isNoSpace, OK } from '../lib/errno.ts';
import type { StoreAccount } from './account.ts';
import { BASE, BLOCK_BYTES, type BlockIndex, RESERVED, STORE } from './block.ts';
import type { DiskExtent } from './extent.ts';
import type { Layer } from './layer.ts';
import type { BlockMap } from './map.ts';
import type { Store } from './store.ts';
import type { StoreDirectory } from './store-directory.ts';

export class Allocation {
  readonly #store: Store;
  readonly #map: BlockMap;
  readonly #extent: DiskExtent;
  readonly #account: StoreAccount;
  readonly #directory: StoreDirectory;

  constructor({ store, map, extent, directory }: Layer, account: StoreAccount) {
    this.#store = store;
    this.#directory = directory;
    this.#map = map;
    this.#extent = extent;
    this.#account = account;
  }

  /** @returns ENOSPC when the quota or the store has no room for all of it */
  allocate(first: BlockIndex, count: number): Errno {
    const added = count - this.#map.occupied(first, count);
    if (added === 0) return OK;
    // Asked first, since a file system may take all it has before it finds that it does not suffice.
    if (added * BLOCK_BYTES > this.#directory.freeBytes || !this.#account.charge(added)) return ENOSPC;
    for (let done = 0; done < count; ) {
      const run = this.#map.runAt(first + done, count - done);
      const errno = this.#allocateRun(first + done, run);
      if (errno !== OK) {
        this.#account.refund(count - done - this.#map.occupied(first + done, count - done));
        return errno;
      }
      done += run;
    }
    return OK;
  }

  /** Blocks of the state in `runState`: those that show the backing keep it, those that are zeros become blocks of the store. */
  #allocateRun(first: BlockIndex, count: number): Errno {
    const state = this.#map.runState;
    if (state === STORE || state === RESERVED) return OK;
    const offset = first * BLOCK_BYTES;
    const length = count * BLOCK_BYTES;
    const backedBlocks =
      state === BASE ? Math.min(count, Math.max(0, Math.ceil(this.#extent.backingLimit / BLOCK_BYTES) - first)) : 0;
    // Zero blocks may have leftovers in the store: those must not come to light.
    let errno =
      backedBlocks === count
        ? OK
        : this.#store.zero(offset + backedBlocks * BLOCK_BYTES, length - backedBlocks * BLOCK_BYTES);
    if (errno === OK) errno = this.#store.reserve(offset, length);
    if (errno !== OK) {
      if (isNoSpace(errno)) this.#store.discard(offset, length);
      return errno;
    }
    this.#map.set(first, backedBlocks, RESERVED);
    this.#map.set(first + backedBlocks, count - backedBlocks, STORE);
    return OK;
  }
}
