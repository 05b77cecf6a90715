/**
 * A disk as a run of bytes: an overlay of one store over one base. Splits byte ranges into a partial head, whole
 * blocks and a partial tail, and copies up what is written in part. Whole blocks and runs of equal state are `map.ts`,
 * size `extent.ts`, quota `account.ts`, holes `holes.ts`,
 * space set aside `allocation.ts`. One instance a thread, all state that matters in shared memory; it knows nothing of FUSE.
 *
 * The order that makes it safe without a lock for readers: data first, state after. A reader that sees `store` finds
 * the data; one that sees the old state reads the old content, as if it had come before the writer.
 *
 * Writes and changes of the size do not meet: whoever calls serialises them, as the kernel does by the inode's lock.
 */
import type { Base } from '../base/base.ts';
import { EFBIG, ENOSPC, type Errno, OK } from '../lib/errno.ts';
import { StoreAccount } from './account.ts';
import { Allocation } from './allocation.ts';
import { Arena } from './arena.ts';
import { BLOCK_BYTES, type BlockIndex, MAX_DISK_BYTES, STORE, ZERO } from './block.ts';
import { DiskExtent } from './extent.ts';
import { Holes } from './holes.ts';
import { BlockMap } from './map.ts';
import { RangeLock } from './range-lock.ts';
import { CONTROL, EXTENT, type OverlayShared } from './shared.ts';
import type { Store } from './store.ts';

export class Disk {
  /** Bytes that the last `read` or `write` moved. */
  transferred = 0;
  /** What the store holds of this disk, against its quota. */
  readonly account: StoreAccount;
  readonly holes: Holes;

  readonly #base: Base;
  readonly #store: Store;
  readonly #extent: DiskExtent;
  readonly #arena: Arena;
  readonly #map: BlockMap;
  readonly #locks: RangeLock;
  readonly #allocation: Allocation;
  readonly #scratch = new Uint8Array(BLOCK_BYTES);

  /** The shared memory of a fresh disk that shows the base and, past its end, zeros. */
  static create(baseBytes: number, sizeBytes: number): OverlayShared {
    const control = new SharedArrayBuffer(CONTROL.BYTES + EXTENT.COUNT * 8);
    DiskExtent.initialise(control, sizeBytes, baseBytes);
    return { control, arena: Arena.create(), stripes: RangeLock.create() };
  }

  /** @param maxStoreBytes most bytes that blocks may take in the store, or undefined for what the host has */
  constructor(base: Base, store: Store, shared: OverlayShared, maxStoreBytes: number | undefined) {
    const control = new Int32Array(shared.control, 0, CONTROL.BYTES / 4);
    this.#base = base;
    this.#store = store;
    this.#arena = new Arena(shared.arena);
    this.#map = new BlockMap(this.#arena, control);
    this.#locks = new RangeLock(shared.stripes);
    this.#extent = new DiskExtent(shared);
    this.account = new StoreAccount(control, maxStoreBytes);
    this.holes = new Holes(base, this.#map, this.#extent);
    this.#allocation = new Allocation(store, this.#map, this.#extent, this.account);
  }

  get sizeBytes(): number {
    return this.#extent.sizeBytes;
  }

  /** Bytes of memory that the maps of all disks in this arena take. */
  get mapBytes(): number {
    return this.#arena.usedBytes;
  }

  /**
   * Reads up to `length` bytes, fewer only at the end of the disk (pread(2)); the count is in `transferred`.
   *
   * @returns the base's or the store's errno; then nothing of `into` counts: a short read would mean "end of file"
   */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const end = Math.min(offset + length, this.sizeBytes);
    for (let position = offset; position < end; ) {
      const block = Math.floor(position / BLOCK_BYTES);
      const run = this.#map.runAt(block, Math.ceil(end / BLOCK_BYTES) - block);
      const bytes = Math.min(end, (block + run) * BLOCK_BYTES) - position;
      const errno = this.#readRun(position, bytes, into, at + position - offset);
      if (errno !== OK) return errno;
      position += bytes;
    }
    this.transferred = Math.max(0, end - offset);
    return OK;
  }

  /**
   * Writes `length` bytes, growing the disk if they reach past its end (pwrite(2)). On an error `transferred` says
   * how much from the start is written all the same.
   *
   * @returns ENOSPC beyond the quota or on a full store, EFBIG past the largest disk, EIO where the base fails
   */
  write(offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.transferred = 0;
    if (length === 0) return OK;
    const end = offset + length;
    if (end > MAX_DISK_BYTES) return EFBIG;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    let errno: Errno;
    if (this.#map.runAt(first, last - first + 1) === last - first + 1 && this.#map.runState === STORE) {
      errno = this.#store.write(offset, length, from, at);
      this.transferred = this.#store.writtenBytes;
    } else {
      this.#locks.lock(first, last);
      try {
        errno = this.#writeLocked(offset, length, from, at);
      } finally {
        this.#locks.unlock(first, last);
      }
    }
    if (this.transferred > 0) this.#extent.growTo(offset + this.transferred);
    return errno;
  }

  /**
   * Makes the range read as zeros and gives its space back (fallocate(2), PUNCH_HOLE); the size stays.
   *
   * @returns as `write`: a partial block at either end may need a copy-up
   */
  discard(offset: number, length: number): Errno {
    if (length === 0) return OK;
    // Past the end of the disk everything is zero anyway: the last block is a whole one.
    const reach = Math.min(offset + length, MAX_DISK_BYTES);
    const end = reach >= this.sizeBytes ? Math.ceil(reach / BLOCK_BYTES) * BLOCK_BYTES : reach;
    if (end <= offset) return OK;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    this.#locks.lock(first, last);
    try {
      return this.#discardLocked(offset, end);
    } finally {
      this.#locks.unlock(first, last);
    }
  }

  /**
   * Sets space aside for the range, which reads as before (fallocate(2), mode 0 or KEEP_SIZE).
   *
   * @returns ENOSPC when the quota or the store has no room for all of it
   */
  allocate(offset: number, length: number, keepSize: boolean): Errno {
    const end = offset + length;
    if (end > MAX_DISK_BYTES) return EFBIG;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    this.#locks.lock(first, last);
    let errno: Errno;
    try {
      errno = this.#allocation.allocate(first, last - first + 1);
    } finally {
      this.#locks.unlock(first, last);
    }
    if (errno === OK && !keepSize) this.#extent.growTo(end);
    return errno;
  }

  /** Sets the size; what is cut off is gone, what is added reads as zeros (ftruncate(2)). */
  truncate(size: number): Errno {
    if (size > MAX_DISK_BYTES) return EFBIG;
    if (size > this.sizeBytes) {
      this.#extent.growTo(size);
      return OK;
    }
    // At an equal size, too: space set aside past the end goes, as on any file.
    const firstGone = Math.ceil(size / BLOCK_BYTES);
    const last = MAX_DISK_BYTES / BLOCK_BYTES - 1;
    this.#locks.lock(0, last);
    try {
      // First, as it may fail: then nothing has changed.
      const errno = this.#store.cut(size);
      if (errno !== OK) return errno;
      this.#extent.shrinkTo(size);
      const gone = this.#map.occupied(firstGone, last + 1 - firstGone);
      this.#map.clearFrom(firstGone);
      this.account.refund(gone);
      return OK;
    } finally {
      this.#locks.unlock(0, last);
    }
  }

  /** Reads bytes that share the state in the map's `runState`. */
  #readRun(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const state = this.#map.runState;
    if (state === STORE) return this.#store.read(offset, length, into, at);
    if (state === ZERO) {
      into.fill(0, at, at + length);
      return OK;
    }
    return this.#readBase(offset, length, into, at);
  }

  #readBase(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const fromBase = Math.min(length, Math.max(0, this.#extent.baseLimit - offset));
    if (fromBase < length) into.fill(0, at + fromBase, at + length);
    return fromBase === 0 ? OK : this.#base.read(offset, fromBase, into, at);
  }

  #writeLocked(offset: number, length: number, from: Uint8Array, at: number): Errno {
    while (this.transferred < length) {
      const position = offset + this.transferred;
      const left = length - this.transferred;
      const block = Math.floor(position / BLOCK_BYTES);
      const inBlock = position - block * BLOCK_BYTES;
      const errno =
        inBlock === 0 && left >= BLOCK_BYTES
          ? this.#writeBlocks(block, Math.floor(left / BLOCK_BYTES), from, at + this.transferred)
          : this.#writePart(block, inBlock, Math.min(BLOCK_BYTES - inBlock, left), from, at + this.transferred);
      if (errno !== OK) return errno;
    }
    return OK;
  }

  /** Whole blocks: the base is not read. Those that are down before an error count. */
  #writeBlocks(first: BlockIndex, wanted: number, from: Uint8Array, at: number): Errno {
    let count = wanted;
    let added = this.#vacant(first, count);
    if (!this.account.charge(added)) {
      // Close to the quota: block by block, so that what fits is written, as on a file system that runs full.
      count = 1;
      added = this.#vacant(first, count);
      if (!this.account.charge(added)) return ENOSPC;
    }
    const errno = this.#store.write(first * BLOCK_BYTES, count * BLOCK_BYTES, from, at);
    const done = Math.floor(this.#store.writtenBytes / BLOCK_BYTES);
    const kept = done === count ? added : this.#vacant(first, done);
    this.#map.set(first, done, STORE);
    this.account.refund(added - kept);
    this.transferred += done * BLOCK_BYTES;
    return errno;
  }

  /** A part of one block: in place if the block is in the store, else copied up as a whole. */
  #writePart(block: BlockIndex, inBlock: number, length: number, from: Uint8Array, at: number): Errno {
    this.#map.runAt(block, 1);
    if (this.#map.runState === STORE) {
      const errno = this.#store.write(block * BLOCK_BYTES + inBlock, length, from, at);
      this.transferred += this.#store.writtenBytes;
      return errno;
    }
    const errno = this.#copyUp(block, inBlock, length, from, at);
    if (errno === OK) this.transferred += length;
    return errno;
  }

  /** Puts the block into the store with `length` bytes replaced, by zeros where `from` is undefined. */
  #copyUp(block: BlockIndex, inBlock: number, length: number, from: Uint8Array | undefined, at: number): Errno {
    const added = this.#vacant(block, 1);
    if (!this.account.charge(added)) return ENOSPC;
    this.#map.runAt(block, 1);
    let errno = this.#readRun(block * BLOCK_BYTES, BLOCK_BYTES, this.#scratch, 0);
    if (errno === OK) {
      if (from === undefined) this.#scratch.fill(0, inBlock, inBlock + length);
      else this.#scratch.set(from.subarray(at, at + length), inBlock);
      errno = this.#store.write(block * BLOCK_BYTES, BLOCK_BYTES, this.#scratch, 0);
    }
    if (errno === OK) this.#map.set(block, 1, STORE);
    else this.account.refund(added);
    return errno;
  }

  #discardLocked(offset: number, end: number): Errno {
    const firstWhole = Math.ceil(offset / BLOCK_BYTES);
    const endWhole = Math.floor(end / BLOCK_BYTES);
    if (firstWhole > endWhole) return this.#zeroPart(offset, end);
    const headEnd = firstWhole * BLOCK_BYTES;
    const tailStart = endWhole * BLOCK_BYTES;
    // Whole blocks first: they may free the room that a copy-up at either end needs.
    let errno = firstWhole < endWhole ? this.#discardBlocks(firstWhole, endWhole - firstWhole) : OK;
    if (errno === OK && offset < headEnd) errno = this.#zeroPart(offset, headEnd);
    if (errno === OK && tailStart < end) errno = this.#zeroPart(tailStart, end);
    return errno;
  }

  #discardBlocks(first: BlockIndex, count: number): Errno {
    const freed = this.#map.occupied(first, count);
    this.#map.set(first, count, ZERO);
    this.account.refund(freed);
    return freed === 0 ? OK : this.#store.discard(first * BLOCK_BYTES, count * BLOCK_BYTES);
  }

  /** Zeros bytes within one block. */
  #zeroPart(offset: number, end: number): Errno {
    const block = Math.floor(offset / BLOCK_BYTES);
    this.#map.runAt(block, 1);
    const state = this.#map.runState;
    if (state === STORE) return this.#store.zero(offset, end - offset);
    if (state === ZERO || offset >= this.#extent.baseLimit) return OK;
    return this.#copyUp(block, offset - block * BLOCK_BYTES, end - offset, undefined, 0);
  }

  /** Blocks of the range that take no space in the store yet. */
  #vacant(first: BlockIndex, count: number): number {
    return count - this.#map.occupied(first, count);
  }
}
