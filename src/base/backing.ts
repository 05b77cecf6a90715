/**
 * What a layer of an overlay shows where nothing was written: the base, or another layer. Called on the thread that
 * serves a request.
 */
import type { Errno } from '../lib/errno.ts';

export interface Backing {
  readonly sizeBytes: number;
  /** Reads exactly `length` bytes, all of them below its end, or says why not: never a short read. */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno;
  /**
   * Where the bytes from `offset` on lie, for whoever copies them within the host: the place is in `placeFd` and
   * `placeOffset`.
   *
   * @returns how many lie there in one piece, at least 1 and at most `length`; they may be holes there
   */
  locate(offset: number, length: number): number;
  /** Descriptor of the file that `locate` found; -1 for zeros that lie nowhere. */
  readonly placeFd: number;
  readonly placeOffset: number;
  /** The first byte at or after `offset` that is data, or `end` if there is none before it. */
  nextData(offset: number, end: number): number;
  /** The first byte at or after `offset` that lies in a hole, or `end` if there is none before it. */
  nextHole(offset: number, end: number): number;
}
