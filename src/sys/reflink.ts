/**
 * Files that share blocks: making one (ioctl_ficlone(2)), and finding out which blocks two have in common
 * (ioctl_fiemap(2)). Any thread.
 */
import { type Errno, OK } from '../lib/errno.ts';
import { ioctl, ioctlNumber } from './libc.ts';

/** linux/fs.h, linux/fiemap.h */
const FICLONE = 0x4004_9409;
const FS_IOC_FIEMAP = 0xc020_660b;
const FIEMAP_FLAG_SYNC = 1;
const EXTENT = {
  LAST: 0x1,
  UNKNOWN: 0x2,
  DELALLOC: 0x4,
  ENCODED: 0x8,
  NOT_ALIGNED: 0x100,
  DATA_INLINE: 0x200,
  UNWRITTEN: 0x800,
  SHARED: 0x2000,
} as const;
/** Then the place says nothing of the content. */
const WITHOUT_PLACE = EXTENT.UNKNOWN | EXTENT.DELALLOC | EXTENT.ENCODED | EXTENT.NOT_ALIGNED | EXTENT.DATA_INLINE;

/** `struct fiemap` without its extents, and `struct fiemap_extent`. */
const FIEMAP_BYTES = 32;
const EXTENT_BYTES = 56;
/** Extents that are asked for at a time: 14 KiB. */
const MOST_EXTENTS = 256;

/**
 * Has a file share all blocks of another on the same file system, up to that one's end.
 *
 * @returns EOPNOTSUPP, EXDEV or EINVAL where that cannot be; ENOSPC
 */
export function cloneInto(from: number, to: number): Errno {
  const answer = ioctlNumber(to, FICLONE, from);
  return answer < 0 ? -answer : OK;
}

/** What the bytes from an offset on are, as far as they are the same. */
export const CONTENT = {
  /** Zeros that take no place, or are not written yet. */
  NOTHING: 0,
  /** Data at `place` of the device. */
  PLACED: 1,
  /** Data, and there is no telling where. */
  SOMEWHERE: 2,
} as const;
export type Content = (typeof CONTENT)[keyof typeof CONTENT];

/** Looks along the extents of a file that nobody writes to; quick from the front to the back. */
export class Extents {
  content: Content = CONTENT.NOTHING;
  /** Byte of the device at which the byte that was asked for lies. */
  place = 0;
  /** Whether other files have it, too. */
  isShared = false;

  readonly #fd: number;
  readonly #flags: number;
  readonly #buffer = Buffer.alloc(FIEMAP_BYTES + MOST_EXTENTS * EXTENT_BYTES);
  /** What the buffer knows of: from, and up to. */
  #from = 0;
  #to = 0;
  #count = 0;
  #next = 0;
  #asked = 0;

  /** @param sync whether what is written but has no place yet gets one first; else it is `SOMEWHERE` */
  constructor(fd: number, sync: boolean) {
    this.#fd = fd;
    this.#flags = sync ? FIEMAP_FLAG_SYNC : 0;
  }

  /**
   * Finds out what lies at a byte.
   *
   * @returns the end of the run that it is of, at most `limit`
   * @throws Error with the errno of the file system
   */
  at(offset: number, limit: number): number {
    if (offset < this.#from || offset >= this.#to) this.#load(offset);
    else if (offset < this.#asked) this.#next = 0;
    this.#asked = offset;
    while (this.#next < this.#count && this.#end(this.#next) <= offset) this.#next++;
    this.content = CONTENT.NOTHING;
    this.isShared = false;
    if (this.#next >= this.#count) return Math.min(limit, this.#to);
    const start = this.#start(this.#next);
    if (start > offset) return Math.min(limit, start);
    const flags = this.#u32(this.#next, 40);
    if ((flags & EXTENT.UNWRITTEN) === 0) {
      this.content = (flags & WITHOUT_PLACE) === 0 ? CONTENT.PLACED : CONTENT.SOMEWHERE;
      this.place = this.#u64(this.#next, 8) + offset - start;
      this.isShared = (flags & EXTENT.SHARED) !== 0;
    }
    return Math.min(limit, this.#end(this.#next));
  }

  #load(offset: number): void {
    const buffer = this.#buffer;
    buffer.fill(0, 0, FIEMAP_BYTES);
    buffer.writeBigUInt64LE(BigInt(offset), 0);
    buffer.writeBigUInt64LE(0xffff_ffff_ffff_ffffn - BigInt(offset), 8);
    buffer.writeUInt32LE(this.#flags, 16);
    buffer.writeUInt32LE(MOST_EXTENTS, 24);
    const answer = ioctl(this.#fd, FS_IOC_FIEMAP, buffer);
    if (answer < 0) throw Object.assign(new Error('the extents of a file cannot be read'), { errno: answer });
    this.#count = buffer.readUInt32LE(20);
    this.#next = 0;
    this.#from = offset;
    const last = this.#count - 1;
    const isWhole = last < 0 || this.#count < MOST_EXTENTS || (this.#u32(last, 40) & EXTENT.LAST) !== 0;
    this.#to = isWhole ? Number.POSITIVE_INFINITY : this.#end(last);
  }

  #start(index: number): number {
    return this.#u64(index, 0);
  }

  #end(index: number): number {
    return this.#u64(index, 0) + this.#u64(index, 16);
  }

  #u64(index: number, field: number): number {
    const at = FIEMAP_BYTES + index * EXTENT_BYTES + field;
    return this.#buffer.readUInt32LE(at) + this.#buffer.readUInt32LE(at + 4) * 2 ** 32;
  }

  #u32(index: number, field: number): number {
    return this.#buffer.readUInt32LE(FIEMAP_BYTES + index * EXTENT_BYTES + field);
  }
}
