/**
 * A disk as a run of bytes: the top layer of a session, which takes its writes. Splits byte ranges into a partial head,
 * whole blocks and a partial tail, and copies up what is written in part. Reading is `layer.ts`, whole blocks and runs
 * of equal state `map.ts`, size `extent.ts`, quota `account.ts`, space set aside `allocation.ts`. One instance a
 * thread, all state that matters in shared memory; it knows nothing of FUSE.
 *
 * The order that makes it safe without a lock for readers: data first, state after. A reader that sees `store` finds
 * the data; one that sees the old state reads the old content, as if it had come before the writer.
 *
 * Writes and changes of the size do not meet: whoever calls serialises them, as the kernel does by the inode's lock.
 */
import { EFBIG, ENOSPC, ENXIO, type Errno, OK } from '../lib/errno.ts';
import type { StoreAccount } from './account.ts';
import { Allocation } from './allocation.ts';
import { BLOCK_BYTES, type BlockIndex, MAX_DISK_BYTES, STORE, ZERO } from './block.ts';
import type { Layer } from './layer.ts';
import type { RangeLock } from './range-lock.ts';
import type { Store } from './store.ts';

/** One thread copies up one block at a time. */
const scratch = new Uint8Array(BLOCK_BYTES);

export class Disk {
  /** Bytes that the last `read` or `write` moved. */
  transferred = 0;
  /** What the store holds of this disk, against its quota. */
  readonly account: StoreAccount;
  /** Offset that the last `seekData` or `seekHole` found. */
  found = 0;
  readonly layer: Layer;
  readonly locks: RangeLock;

  readonly #store: Store;
  readonly #allocation: Allocation;

  constructor(layer: Layer, locks: RangeLock, account: StoreAccount) {
    this.layer = layer;
    this.account = account;
    this.#store = layer.store;
    this.locks = locks;
    this.#allocation = new Allocation(layer, account);
  }

  get sizeBytes(): number {
    return this.layer.extent.sizeBytes;
  }

  /** Makes durable what was written, where it is kept (fsync(2)). */
  sync(): Errno {
    return this.layer.sync();
  }

  /**
   * Reads up to `length` bytes, fewer only at the end of the disk (pread(2)); the count is in `transferred`.
   *
   * @returns the base's or the store's errno; then nothing of `into` counts: a short read would mean "end of file"
   */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const end = Math.min(offset + length, this.sizeBytes);
    if (end <= offset) return OK;
    const errno = this.layer.read(offset, end - offset, into, at);
    if (errno !== OK) return errno;
    this.transferred = end - offset;
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
    if (end > this.layer.maxBytes) return EFBIG;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    let errno: Errno;
    if (this.layer.map.runAt(first, last - first + 1) === last - first + 1 && this.layer.map.runState === STORE) {
      errno = this.#store.write(offset, length, from, at);
      this.transferred = this.#store.writtenBytes;
    } else {
      this.locks.lock(first, last);
      try {
        errno = this.#writeLocked(offset, length, from, at);
      } finally {
        this.locks.unlock(first, last);
      }
    }
    if (this.transferred > 0) this.layer.extent.growTo(offset + this.transferred);
    return errno;
  }

  /**
   * Makes the range read as zeros and gives its space back (fallocate(2), PUNCH_HOLE); the size stays.
   *
   * @returns as `write`: a partial block at either end may need a copy-up
   */
  discard(offset: number, length: number): Errno {
    if (length === 0) return OK;
    const end = this.discardEnd(offset + length);
    if (end <= offset) return OK;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    this.locks.lock(first, last);
    try {
      return this.#discardLocked(offset, end);
    } finally {
      this.locks.unlock(first, last);
    }
  }

  /** Where a discard up to `end` ends: past the end of the disk all is zero anyway, so that the last block is a whole one. */
  discardEnd(end: number): number {
    const reach = Math.min(end, this.layer.maxBytes);
    return reach >= this.sizeBytes ? Math.ceil(reach / BLOCK_BYTES) * BLOCK_BYTES : reach;
  }

  /**
   * Sets space aside for the range, which reads as before (fallocate(2), mode 0 or KEEP_SIZE).
   *
   * @returns ENOSPC when the quota or the store has no room for all of it
   */
  allocate(offset: number, length: number, keepSize: boolean): Errno {
    const end = offset + length;
    if (end > this.layer.maxBytes) return EFBIG;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    this.locks.lock(first, last);
    let errno: Errno;
    try {
      errno = this.#allocation.allocate(first, last - first + 1);
    } finally {
      this.locks.unlock(first, last);
    }
    if (errno === OK && !keepSize) this.layer.extent.growTo(end);
    return errno;
  }

  /** Sets the size; what is cut off is gone, what is added reads as zeros (ftruncate(2)). */
  truncate(size: number): Errno {
    if (size > this.layer.maxBytes) return EFBIG;
    if (size > this.sizeBytes) {
      this.layer.extent.growTo(size);
      return OK;
    }
    // At an equal size, too: space set aside past the end goes, as on any file.
    const firstGone = Math.ceil(size / BLOCK_BYTES);
    const last = MAX_DISK_BYTES / BLOCK_BYTES - 1;
    this.locks.lock(0, last);
    try {
      if (this.layer.isKept) return this.#truncateKept(size, firstGone, last);
      // First, as it may fail: then nothing has changed.
      const errno = this.#store.cut(size);
      if (errno === OK) this.#forgetFrom(size, firstGone, last);
      return errno;
    } finally {
      this.locks.unlock(0, last);
    }
  }

  /**
   * What is kept must be there after a crash as it was, or as it is to be: so the data goes last, once the file has
   * forgotten it.
   */
  #truncateKept(size: number, firstGone: BlockIndex, last: BlockIndex): Errno {
    this.#forgetFrom(size, firstGone, last);
    const errno = this.layer.sync();
    if (errno === OK) return this.#store.cut(size);
    // It has shrunk all the same, and what was cut off must not come back when it grows.
    this.#store.zeroTail(size);
    return errno;
  }

  #forgetFrom(size: number, firstGone: BlockIndex, last: BlockIndex): void {
    this.layer.extent.shrinkTo(size);
    const gone = this.layer.map.occupied(firstGone, last + 1 - firstGone);
    this.layer.map.clearFrom(firstGone);
    this.account.refund(gone);
  }

  /** First data at or after `offset` into `found` (lseek(2), SEEK_DATA); ENXIO if only holes follow. */
  seekData(offset: number): Errno {
    const size = this.sizeBytes;
    this.found = this.layer.nextData(offset, size);
    return this.found < size ? OK : ENXIO;
  }

  /** First hole at or after `offset` into `found` (SEEK_HOLE), the end of the disk at the latest; ENXIO past it. */
  seekHole(offset: number): Errno {
    const size = this.sizeBytes;
    if (offset >= size) return ENXIO;
    this.found = this.layer.nextHole(offset, size);
    return OK;
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
    this.layer.map.set(first, done, STORE);
    this.account.refund(added - kept);
    this.transferred += done * BLOCK_BYTES;
    return errno;
  }

  /** A part of one block: in place if the block is in the store, else copied up as a whole. */
  #writePart(block: BlockIndex, inBlock: number, length: number, from: Uint8Array, at: number): Errno {
    this.layer.map.runAt(block, 1);
    if (this.layer.map.runState === STORE) {
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
    this.layer.map.runAt(block, 1);
    let errno = this.layer.readRun(block * BLOCK_BYTES, BLOCK_BYTES, scratch, 0);
    if (errno === OK) {
      if (from === undefined) scratch.fill(0, inBlock, inBlock + length);
      else scratch.set(from.subarray(at, at + length), inBlock);
      errno = this.#store.write(block * BLOCK_BYTES, BLOCK_BYTES, scratch, 0);
    }
    if (errno === OK) this.layer.map.set(block, 1, STORE);
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
    const freed = this.layer.map.occupied(first, count);
    this.layer.map.set(first, count, ZERO);
    this.account.refund(freed);
    return freed === 0 ? OK : this.#store.discard(first * BLOCK_BYTES, count * BLOCK_BYTES);
  }

  /** Zeros bytes within one block. */
  #zeroPart(offset: number, end: number): Errno {
    const block = Math.floor(offset / BLOCK_BYTES);
    this.layer.map.runAt(block, 1);
    const state = this.layer.map.runState;
    if (state === STORE) return this.#store.zero(offset, end - offset);
    if (state === ZERO || offset >= this.layer.extent.backingLimit) return OK;
    return this.#copyUp(block, offset - block * BLOCK_BYTES, end - offset, undefined, 0);
  }

  /** Blocks of the range that take no space in the store yet. */
  #vacant(first: BlockIndex, count: number): number {
    return count - this.layer.map.occupied(first, count);
  }
}
