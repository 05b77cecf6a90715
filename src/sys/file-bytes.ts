/**
 * Positional reads and writes that move all of it or say why not. On the thread that serves a request; nothing is
 * allocated. Node repeats interrupted writes, and no reads (libuv's uv__fs_work).
 */
import { readSync, writeSync } from 'node:fs';
import { EINTR, EIO, type Errno, errnoOf, OK } from '../lib/errno.ts';

/** Bytes that the last `readAll` or `writeAll` of this thread moved. */
let moved = 0;

export function bytesMoved(): number {
  return moved;
}

/** Reads up to `length` bytes, fewer only at the end of the file: `bytesMoved` says how many. */
export function readAll(fd: number, offset: number, length: number, into: Uint8Array, at: number): Errno {
  moved = 0;
  for (;;) {
    try {
      while (moved < length) {
        const bytes = readSync(fd, into, at + moved, length - moved, offset + moved);
        if (bytes === 0) return OK;
        moved += bytes;
      }
      return OK;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== EINTR) return errno;
    }
  }
}

/** Writes all of it; on an error `bytesMoved` says how far it came. */
export function writeAll(fd: number, offset: number, length: number, from: Uint8Array, at: number): Errno {
  moved = 0;
  try {
    while (moved < length) {
      const bytes = writeSync(fd, from, at + moved, length - moved, offset + moved);
      if (bytes === 0) return EIO;
      moved += bytes;
    }
    return OK;
  } catch (error) {
    return errnoOf(error);
  }
}
