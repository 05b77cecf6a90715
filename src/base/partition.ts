/**
 * A partition, whichever table tells of it. Pure.
 */
import type { Errno } from '../lib/errno.ts';

export interface Partition {
  /** As Linux counts: 1 to 4 are the primary ones of an MBR, 5 and up its logical ones; of a GPT the entry's place. */
  readonly number: number;
  readonly startBytes: number;
  /** The first byte behind it; at most the size of the disk. */
  readonly endBytes: number;
  /** Name of a GPT entry, or else its type in words or as a number. Untrusted: may hold control characters. */
  readonly label: string;
}

/** Reads exactly `length` bytes at `offset` of the disk into `into` from `at` on, zeros past the end of the disk. */
export type ReadAt = (offset: number, length: number, into: Uint8Array, at: number) => Errno;

/** The same, once it is known what a failure means. */
export type Read = (offset: number, length: number) => Buffer;

/** None when its offsets make no sense for a disk of this size. */
export function partitionWithin(
  sizeBytes: number,
  number: number,
  startBytes: number,
  endBytes: number,
  label: string,
): Partition[] {
  if (!Number.isSafeInteger(endBytes) || startBytes >= Math.min(endBytes, sizeBytes)) return [];
  return [{ number, startBytes, endBytes: Math.min(endBytes, sizeBytes), label }];
}
