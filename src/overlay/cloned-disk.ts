/**
 * A disk whose bytes are those of one file, a clone of the base: every operation is the file's own. What `disk.ts` is for
 * layers. One instance a thread; the file system keeps writers apart.
 */
import { fstatSync, ftruncateSync } from 'node:fs';
import { EFBIG, type Errno, errnoOf, OK } from '../lib/errno.ts';
import { bytesMoved, readAll, writeAll } from '../sys/file-bytes.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  lseek,
  lseekResult,
  SEEK_DATA,
  SEEK_HOLE,
} from '../sys/libc.ts';
import { MAX_DISK_BYTES } from './block.ts';

export class ClonedDisk {
  transferred = 0;
  found = 0;
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  get sizeBytes(): number {
    return fstatSync(this.fd).size;
  }

  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const errno = readAll(this.fd, offset, length, into, at);
    this.transferred = errno === OK ? bytesMoved() : 0;
    return errno;
  }

  write(offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.transferred = 0;
    if (length === 0) return OK;
    if (offset + length > MAX_DISK_BYTES) return EFBIG;
    const errno = writeAll(this.fd, offset, length, from, at);
    this.transferred = bytesMoved();
    return errno;
  }

  discard(offset: number, length: number): Errno {
    return length === 0 ? OK : fallocate(this.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /** Of blocks that are shared with the base the file system promises nothing. */
  allocate(offset: number, length: number, keepSize: boolean): Errno {
    return fallocate(this.fd, keepSize ? FALLOC_FL_KEEP_SIZE : 0, offset, length);
  }

  truncate(size: number): Errno {
    try {
      ftruncateSync(this.fd, size);
      return OK;
    } catch (error) {
      return errnoOf(error);
    }
  }

  seekData(offset: number): Errno {
    return this.#seek(offset, SEEK_DATA);
  }

  seekHole(offset: number): Errno {
    return this.#seek(offset, SEEK_HOLE);
  }

  /** A temporary store is gone with the process. */
  sync(): Errno {
    return OK;
  }

  #seek(offset: number, whence: number): Errno {
    const errno = lseek(this.fd, offset, whence);
    this.found = lseekResult();
    return errno;
  }
}
