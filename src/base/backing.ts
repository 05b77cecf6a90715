/**
 * What a layer of an overlay shows where nothing was written: the base, or another layer. Called on the thread that
 * serves a request.
 */
import type { Errno } from '../lib/errno.ts';

export interface Backing {
  /** Reads exactly `length` bytes, all of them below its end, or says why not: never a short read. */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno;
  /** The first byte at or after `offset` that is data, or `end` if there is none before it. */
  nextData(offset: number, end: number): number;
  /** The first byte at or after `offset` that lies in a hole, or `end` if there is none before it. */
  nextHole(offset: number, end: number): number;
}
