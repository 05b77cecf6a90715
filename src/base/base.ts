/**
 * What lies under an overlay: a read-only run of bytes of known size. Today a raw file or a block device, open as one
 * descriptor that all threads share (positional reads only). Called by the overlay on the worker that serves a
 * request; opening and checking is `open.ts`, on the main thread.
 */
import { fstatSync } from 'node:fs';
import { EIO, ENXIO, type Errno, OK } from '../lib/errno.ts';
import { bytesMoved, readAll } from '../sys/file-bytes.ts';
import { lseek, lseekResult, SEEK_DATA, SEEK_HOLE } from '../sys/libc.ts';
import type { Backing } from './backing.ts';

/** What a worker needs to read the base; plain data that can be posted to it. */
export interface BaseDescriptor {
  /** Open for reading only. */
  readonly fd: number;
  /** Bytes, as found when it was opened; a later change of the file's size changes nothing here. */
  readonly sizeBytes: number;
  /** A block device has no holes to ask for. */
  readonly hasHoles: boolean;
}

export class Base implements Backing {
  /** Bytes; only a commit changes them. */
  sizeBytes: number;
  readonly #fd: number;
  readonly #hasHoles: boolean;
  readonly placeFd: number;
  placeOffset = 0;

  constructor(descriptor: BaseDescriptor) {
    this.sizeBytes = descriptor.sizeBytes;
    this.#fd = descriptor.fd;
    this.placeFd = descriptor.fd;
    this.#hasHoles = descriptor.hasHoles;
  }

  /** @returns EIO when the base has become shorter than it was; else what the file system says */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const errno = readAll(this.#fd, offset, length, into, at);
    return errno === OK && bytesMoved() < length ? EIO : errno;
  }

  locate(offset: number, length: number): number {
    this.placeOffset = offset;
    return length;
  }

  nextData(offset: number, end: number): number {
    if (!this.#hasHoles) return Math.min(offset, end);
    const errno = lseek(this.#fd, offset, SEEK_DATA);
    // Nothing but holes; or the base is shorter than it was, and what reads as an error must not be taken for a hole.
    if (errno === ENXIO) return fstatSync(this.#fd).size < this.sizeBytes ? Math.min(offset, end) : end;
    // A file system that cannot tell has no holes (lseek(2)).
    return errno === OK ? Math.min(lseekResult(), end) : Math.min(offset, end);
  }

  nextHole(offset: number, end: number): number {
    if (!this.#hasHoles) return end;
    return lseek(this.#fd, offset, SEEK_HOLE) === OK ? Math.min(lseekResult(), end) : end;
  }
}
