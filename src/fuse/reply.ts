/**
 * Writes replies into one buffer, which goes out in one write(2). The only place where an errno is
 * negated. One instance a worker; the payload of a READ is put behind the header by whoever reads, without a copy.
 */

import type { Attributes } from '../fs/ops.ts';
import { type Errno, OK } from '../lib/errno.ts';
import { FUSE_ATTR, FUSE_OUT_HEADER } from './abi.ts';
import { LITTLE_ENDIAN } from './decode.ts';

const HIGH_WORD = 2 ** 32;
const PAYLOAD = FUSE_OUT_HEADER.BYTES;

/** Preferred I/O size that stat(2) reports. */
const BLKSIZE = 4096;

export class ReplyWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where the payload starts in `bytes`. */
  get payloadAt(): number {
    return PAYLOAD;
  }

  /** Most bytes of payload. */
  get capacity(): number {
    return this.bytes.byteLength - PAYLOAD;
  }

  u32(at: number, value: number): void {
    this.#view.setUint32(PAYLOAD + at, value, LITTLE_ENDIAN);
  }

  u16(at: number, value: number): void {
    this.#view.setUint16(PAYLOAD + at, value, LITTLE_ENDIAN);
  }

  /** A 64-bit field, signed or not, of a whole number that a double holds exactly. */
  u64(at: number, value: number): void {
    this.#view.setUint32(PAYLOAD + at + (LITTLE_ENDIAN ? 0 : 4), value % HIGH_WORD, LITTLE_ENDIAN);
    this.#view.setInt32(PAYLOAD + at + (LITTLE_ENDIAN ? 4 : 0), Math.floor(value / HIGH_WORD), LITTLE_ENDIAN);
  }

  /** Zeros the first bytes of the payload: the fields that the caller leaves alone. */
  clear(length: number): void {
    this.bytes.fill(0, PAYLOAD, PAYLOAD + length);
  }

  /** `struct fuse_attr` at an offset of the payload. */
  attributes(at: number, from: Attributes): void {
    this.u64(at + FUSE_ATTR.ino, from.node);
    this.u64(at + FUSE_ATTR.size, from.sizeBytes);
    this.u64(at + FUSE_ATTR.blocks, from.blocks);
    this.u64(at + FUSE_ATTR.atime, from.atimeSeconds);
    this.u64(at + FUSE_ATTR.mtime, from.mtimeSeconds);
    this.u64(at + FUSE_ATTR.ctime, from.ctimeSeconds);
    this.u32(at + FUSE_ATTR.atimensec, from.atimeNanoseconds);
    this.u32(at + FUSE_ATTR.mtimensec, from.mtimeNanoseconds);
    this.u32(at + FUSE_ATTR.ctimensec, from.ctimeNanoseconds);
    this.u32(at + FUSE_ATTR.mode, from.mode);
    this.u32(at + FUSE_ATTR.nlink, from.nlink);
    this.u32(at + FUSE_ATTR.uid, from.uid);
    this.u32(at + FUSE_ATTR.gid, from.gid);
    this.u32(at + FUSE_ATTR.rdev, 0);
    this.u32(at + FUSE_ATTR.blksize, BLKSIZE);
    this.u32(at + FUSE_ATTR.flags, 0);
  }

  /**
   * Completes the reply to the request with this number: an error, or `payloadBytes` of success.
   *
   * @returns bytes to write, from the start of the buffer
   */
  finish(uniqueLow: number, uniqueHigh: number, errno: Errno, payloadBytes: number): number {
    const length = PAYLOAD + (errno === OK ? payloadBytes : 0);
    this.#view.setUint32(FUSE_OUT_HEADER.len, length, LITTLE_ENDIAN);
    this.#view.setInt32(FUSE_OUT_HEADER.error, -errno, LITTLE_ENDIAN);
    this.#view.setUint32(FUSE_OUT_HEADER.unique, uniqueLow, LITTLE_ENDIAN);
    this.#view.setUint32(FUSE_OUT_HEADER.unique + 4, uniqueHigh, LITTLE_ENDIAN);
    return length;
  }
}
