/**
 * A bounds-checked reader over one request. It never throws on hostile bytes and never looks past the length that the
 * header and the read agree on. One instance a worker, pointed at each request in turn; no fd, no meaning.
 */
import { endianness } from 'node:os';
import { FUSE_IN_HEADER } from './abi.ts';

export const LITTLE_ENDIAN = endianness() === 'LE';
const HIGH_WORD = 2 ** 32;
/** High words from here on make numbers that a double cannot hold exactly. */
const UNSAFE_HIGH = 2 ** 21;

const ARGUMENT = FUSE_IN_HEADER.BYTES;

export class RequestReader {
  readonly bytes: Uint8Array;
  /** Bytes of the request, header included; 0 when the last `start` refused it. */
  length = 0;
  /** Where in the argument the name ends that `name` read last, its NUL included. */
  nameEnd = 0;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Takes up the request in the first `length` bytes; false when that is not one whole request. */
  start(length: number): boolean {
    const whole =
      length >= FUSE_IN_HEADER.BYTES && length <= this.bytes.byteLength && this.#u32(FUSE_IN_HEADER.len) === length;
    this.length = whole ? length : 0;
    return whole;
  }

  get opcode(): number {
    return this.#u32(FUSE_IN_HEADER.opcode);
  }

  /** The request's number as two words; only ever copied back. */
  get uniqueLow(): number {
    return this.#u32(FUSE_IN_HEADER.unique);
  }

  get uniqueHigh(): number {
    return this.#u32(FUSE_IN_HEADER.unique + 4);
  }

  get nodeid(): number {
    return this.#u64(FUSE_IN_HEADER.nodeid);
  }

  /** Who asks. */
  get uid(): number {
    return this.#u32(FUSE_IN_HEADER.uid);
  }

  get gid(): number {
    return this.#u32(FUSE_IN_HEADER.gid);
  }

  /** Bytes after the header. */
  get argumentBytes(): number {
    return this.length - ARGUMENT;
  }

  /** Fields of the argument; the caller has checked `argumentBytes`. */
  u32(at: number): number {
    return this.#u32(ARGUMENT + at);
  }

  /** An unsigned 64-bit field; infinite from 2^53 on, which every range check refuses. */
  u64(at: number): number {
    return this.#u64(ARGUMENT + at);
  }

  /** A signed 64-bit field, exact below 2^53: times before 1970. */
  i64(at: number): number {
    const low = this.#u32(ARGUMENT + at + (LITTLE_ENDIAN ? 0 : 4));
    return this.#view.getInt32(ARGUMENT + at + (LITTLE_ENDIAN ? 4 : 0), LITTLE_ENDIAN) * HIGH_WORD + low;
  }

  /**
   * A NUL-terminated name in the argument; undefined when it does not end within the request.
   *
   * @param at where it starts, at most `argumentBytes`
   */
  name(at = 0): string | undefined {
    const start = ARGUMENT + at;
    const end = this.bytes.indexOf(0, start);
    if (end < 0 || end >= this.length) return undefined;
    this.nameEnd = end + 1 - ARGUMENT;
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, end - start).toString('utf8');
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, LITTLE_ENDIAN);
  }

  #u64(at: number): number {
    const high = this.#u32(at + (LITTLE_ENDIAN ? 4 : 0));
    if (high >= UNSAFE_HIGH) return Number.POSITIVE_INFINITY;
    return high * HIGH_WORD + this.#u32(at + (LITTLE_ENDIAN ? 0 : 4));
  }
}
