/**
 * Where written blocks are: one sparse file in which an offset of the disk is the same offset of the store. It has no
 * name (`temp-store.ts` opens it). Called on the worker that serves a request; positional system calls only, so one
 * descriptor serves all threads.
 */
import { fstatSync, ftruncateSync, readSync, statfsSync, writeSync } from 'node:fs';
import { EFBIG, EIO, EOPNOTSUPP, type Errno, errnoOf, OK } from '../lib/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../sys/libc.ts';

const ZEROS = new Uint8Array(64 * 1024);

export class Store {
  /** Bytes that the last `write` put down, also when it failed half-way. */
  writtenBytes = 0;

  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Reads `length` bytes; zeros past the end of the file. */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    let done = 0;
    try {
      while (done < length) {
        const bytes = readSync(this.#fd, into, at + done, length - done, offset + done);
        if (bytes === 0) {
          into.fill(0, at + done, at + length);
          return OK;
        }
        done += bytes;
      }
    } catch (error) {
      return errnoOf(error);
    }
    return OK;
  }

  /** Writes all of it, or says why not and how far it came in `writtenBytes`. */
  write(offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.writtenBytes = 0;
    try {
      while (this.writtenBytes < length) {
        const done = this.writtenBytes;
        const bytes = writeSync(this.#fd, from, at + done, length - done, offset + done);
        if (bytes === 0) return EIO;
        this.writtenBytes = done + bytes;
      }
    } catch (error) {
      return errnoOf(error);
    }
    return OK;
  }

  /** Gives whole blocks back to the host. Where its file system cannot, they stay until the store goes: no error. */
  discard(offset: number, length: number): Errno {
    const errno = this.#punch(offset, length);
    return errno === EOPNOTSUPP ? OK : errno;
  }

  /** Makes the bytes zero, giving back what can be given back. */
  zero(offset: number, length: number): Errno {
    const errno = this.#punch(offset, length);
    if (errno !== EOPNOTSUPP) return errno;
    for (let done = 0; done < length; done += ZEROS.length) {
      const failed = this.write(offset + done, Math.min(ZEROS.length, length - done), ZEROS, 0);
      if (failed !== OK) return failed;
    }
    return OK;
  }

  /**
   * Sets space aside so that later writes find room; the bytes stay as they are (fallocate(2), mode 0). The file grows
   * over it: ext4 gives back nothing that lies past a file's end.
   */
  reserve(offset: number, length: number): Errno {
    return fallocate(this.#fd, 0, offset, length);
  }

  /** Drops everything from `size` on. */
  cut(size: number): Errno {
    try {
      ftruncateSync(this.#fd, size);
      return OK;
    } catch (error) {
      // Larger than a file can be here, so there is nothing to drop.
      const errno = errnoOf(error);
      return errno === EFBIG ? OK : errno;
    }
  }

  /** Bytes that the host's file system really spends on it (st_blocks). */
  get usedBytes(): number {
    return fstatSync(this.#fd).blocks * 512;
  }

  /** Free bytes where the store is, for this user (statfs(2), f_bavail); by its descriptor, as its directory may go. */
  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(`/proc/self/fd/${this.#fd}`);
    return bavail * bsize;
  }

  #punch(offset: number, length: number): Errno {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const errno = fallocate(this.#fd, mode, offset, length);
    if (errno !== EFBIG) return errno;
    // The disk is larger than a file can be here: what exists ends with the file.
    const end = fstatSync(this.#fd).size;
    return end <= offset ? OK : fallocate(this.#fd, mode, offset, end - offset);
  }
}
