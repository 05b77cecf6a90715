/**
 * A read or write of a disk whose bytes somebody else moves: `plan` says from where to where, `finish` does what is left
 * when they are there. For a thread that has many under way at a time and must wait for none; what is not simple, or would
 * have to wait, it leaves to `disk.ts`, whose order (data first, state after) holds here, too. One instance for each that
 * is under way.
 */
import { BLOCK_BYTES, type BlockIndex, MAX_DISK_BYTES, STORE, ZERO } from './block.ts';
import { ClonedDisk } from './cloned-disk.ts';
import type { Disk } from './disk.ts';
import type { SessionDisk } from './sessions.ts';

/** What has to be done. */
export const PLAN = {
  /** Nothing here: it is for `Disk`. */
  ELSEWHERE: 0,
  /** Read: `length` zeros. */
  ZEROS: 1,
  /** Move the bytes between the buffer and `offset` of `fd`. */
  MOVE: 2,
  /** Read the block from `sourceOffset` of `sourceFd`, replace `length` bytes from `inBlock` on, write it to `offset` of `fd`. */
  COPY_UP: 3,
} as const;
export type Plan = (typeof PLAN)[keyof typeof PLAN];

/** Most blocks whose states are looked at and set in one go: 64 MiB take some microseconds. */
const MOST_DISCARDED = 16_384;

/** Neither the states of blocks nor what they occupy will change. */
const IN_PLACE = -1;

export class Transfer {
  fd = -1;
  offset = 0;
  sourceFd = -1;
  sourceOffset = 0;
  /** Where in its block a write begins that needs a copy-up. */
  inBlock = 0;
  /** Whether the bytes may be moved without a look at `finish` before the answer. */
  isPlain = false;

  #disk: Disk | undefined;
  #end = 0;
  #first: BlockIndex = IN_PLACE;
  #count = 0;
  #added = 0;

  /** A read that reaches past the end of the disk, or of bytes that lie in several places, is for `Disk`. */
  planRead(disk: SessionDisk, offset: number, length: number): Plan {
    this.#disk = undefined;
    this.isPlain = true;
    if (disk instanceof ClonedDisk) return this.#inFile(disk, offset);
    if (length === 0 || offset + length > disk.sizeBytes) return PLAN.ELSEWHERE;
    const { layer } = disk;
    if (layer.locate(offset, length) < length) return PLAN.ELSEWHERE;
    if (layer.placeFd < 0) return PLAN.ZEROS;
    this.fd = layer.placeFd;
    this.offset = layer.placeOffset;
    return PLAN.MOVE;
  }

  /** Until `finish` or `abandon` the range may be locked, and space booked. */
  planWrite(disk: SessionDisk, offset: number, length: number): Plan {
    this.#disk = undefined;
    this.isPlain = true;
    if (disk instanceof ClonedDisk) {
      return length === 0 || offset + length > MAX_DISK_BYTES ? PLAN.ELSEWHERE : this.#inFile(disk, offset);
    }
    const { layer, locks, account } = disk;
    const { store, map } = layer;
    this.#disk = disk;
    this.#end = offset + length;
    this.#first = IN_PLACE;
    if (length === 0 || this.#end > layer.maxBytes || store.fd < 0) return PLAN.ELSEWHERE;
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = Math.floor((this.#end - 1) / BLOCK_BYTES) - first + 1;
    this.fd = store.fd;
    this.offset = store.origin + offset;
    this.inBlock = offset - first * BLOCK_BYTES;
    // What is kept is noted after it is written, and a disk grows then.
    this.isPlain = !layer.isKept && this.#end <= disk.sizeBytes;
    if (map.runAt(first, count) === count && map.runState === STORE) return PLAN.MOVE;
    const isWhole = this.inBlock === 0 && length === count * BLOCK_BYTES;
    if (!isWhole && count > 1) return PLAN.ELSEWHERE;
    if (!locks.tryLock(first, first + count - 1)) return PLAN.ELSEWHERE;
    this.isPlain = false;
    if (!isWhole) {
      // Looked at again under the lock.
      const found = layer.locate(first * BLOCK_BYTES, BLOCK_BYTES);
      if (found < BLOCK_BYTES || layer.placeFd < 0 || map.runState === STORE) {
        locks.unlock(first, first);
        return PLAN.ELSEWHERE;
      }
      this.sourceFd = layer.placeFd;
      this.sourceOffset = layer.placeOffset;
      this.offset = store.origin + first * BLOCK_BYTES;
    }
    const added = count - map.occupied(first, count);
    if (!account.charge(added)) {
      locks.unlock(first, first + count - 1);
      return PLAN.ELSEWHERE;
    }
    this.#first = first;
    this.#count = count;
    this.#added = added;
    return isWhole ? PLAN.MOVE : PLAN.COPY_UP;
  }

  /** What lies past the end is for `ClonedDisk` to find out, when fewer bytes have moved. */
  #inFile({ fd }: ClonedDisk, offset: number): Plan {
    this.fd = fd;
    this.offset = offset;
    return PLAN.MOVE;
  }

  /**
   * The bytes are where they belong.
   *
   * @throws RangeError when no memory is left for the map; then it is abandoned
   */
  finish(): void {
    const disk = this.#disk;
    if (disk === undefined) return;
    const { layer } = disk;
    // Before the states: whoever syncs what is kept finds out from this that data goes before them.
    layer.store.noteWrite();
    if (this.#first !== IN_PLACE) {
      try {
        layer.map.set(this.#first, this.#count, STORE);
      } catch (error) {
        this.abandon();
        throw error;
      }
      disk.locks.unlock(this.#first, this.#first + this.#count - 1);
    }
    this.#disk = undefined;
    layer.extent.growTo(this.#end);
  }

  /** They are not, or not all: what was locked and booked is free again. */
  abandon(): void {
    const disk = this.#disk;
    this.#disk = undefined;
    if (disk === undefined || this.#first === IN_PLACE) return;
    disk.account.refund(this.#added);
    disk.locks.unlock(this.#first, this.#first + this.#count - 1);
  }
}

/**
 * `Disk.discard`, where that is but a change of states: of whole blocks of which none takes space in the store. Others have
 * to wait for the store's file system.
 *
 * @returns whether it is done; if not, nothing has happened
 */
export function tryDiscard(disk: SessionDisk, offset: number, length: number): boolean {
  if (disk instanceof ClonedDisk) return false;
  const { locks, layer } = disk;
  const first = Math.floor(offset / BLOCK_BYTES);
  const count = disk.discardEnd(offset + length) / BLOCK_BYTES - first;
  if (offset % BLOCK_BYTES !== 0 || !Number.isInteger(count) || count < 1 || count > MOST_DISCARDED) return false;
  if (!locks.tryLock(first, first + count - 1)) return false;
  try {
    if (layer.map.occupied(first, count) > 0) return false;
    layer.map.set(first, count, ZERO);
    return true;
  } finally {
    locks.unlock(first, first + count - 1);
  }
}
