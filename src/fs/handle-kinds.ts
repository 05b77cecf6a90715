/**
 * What the flags of open(2) make of a handle, under the mount's way of caching.
 */
import { constants } from 'node:fs';
import type { CacheMode, KernelCaching } from './options.ts';

/** The access mode within the flags of open(2) (asm-generic/fcntl.h). */
const O_ACCMODE = 3;

export class HandleKinds {
  readonly #cacheMode: CacheMode;
  readonly #coherentDirect: boolean;

  constructor({ cacheMode, coherentDirect }: KernelCaching & { readonly cacheMode: CacheMode }) {
    this.#cacheMode = cacheMode;
    this.#coherentDirect = coherentDirect;
  }

  /** Whether it bypasses the page cache. */
  isDirect(flags: number): boolean {
    return this.#cacheMode === 'none' || (this.#coherentDirect && (flags & constants.O_DIRECT) !== 0);
  }

  /**
   * Whether the kernel may keep data that is written through such a handle, so that this side sees it late. Handles
   * that bypass the cache do so only where they can be mapped (FUSE_DIRECT_IO_ALLOW_MMAP).
   */
  mayHoldData(flags: number): boolean {
    return isWritable(flags) && (!this.isDirect(flags) || this.#coherentDirect);
  }
}

/** Whether each write is to be durable when it returns (O_DSYNC, O_SYNC). */
export function isSynchronous(flags: number): boolean {
  return (flags & constants.O_DSYNC) !== 0;
}

export function isWritable(flags: number): boolean {
  return (flags & O_ACCMODE) !== constants.O_RDONLY;
}

/**
 * Whether a file that is made with these flags is to start empty, as on any file system: whoever truncates it means to
 * write all of it, and so does cp(1), which has no need to truncate what it makes exclusively, and leaves out holes.
 */
export function startsEmpty(flags: number): boolean {
  const exclusive = (flags & constants.O_EXCL) !== 0 && (flags & O_ACCMODE) === constants.O_WRONLY;
  return exclusive || (flags & constants.O_TRUNC) !== 0;
}
