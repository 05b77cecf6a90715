/**
 * Base images of the property tests: sizes that no block size divides, and one with holes.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { makeBase } from '../harness.ts';

export interface BaseKind {
  readonly name: string;
  readonly bytes: number;
  readonly sparse?: boolean;
  /** Of the virtual disk, if it is larger. */
  readonly diskBytes?: number;
}

export const BASES: readonly BaseKind[] = [
  { name: '1 byte', bytes: 1 },
  { name: '511 bytes', bytes: 511 },
  { name: '4097 bytes', bytes: 4097 },
  { name: '65519 bytes', bytes: 65_519 },
  { name: '130000 bytes', bytes: 130_000 },
  { name: '70001 bytes as a disk of 300003', bytes: 70_001, diskBytes: 300_003 },
  { name: '1 MiB + 513 bytes', bytes: 2 ** 20 + 513 },
  { name: '2 MiB + 77 bytes with holes', bytes: 2 ** 21 + 77, sparse: true },
];

/** Data of the sparse base: start and length in bytes; its holes are what the file system makes of the rest. */
const ISLANDS = [
  [5, 100],
  [40_960, 8192],
  [100_001, 70_001],
  [2 ** 20 - 3, 9],
  [2 ** 20 + 300_000, 123_456],
] as const;

export function writeBase(directory: string, kind: BaseKind): string {
  if (kind.sparse !== true) return makeBase(directory, kind.bytes);
  const path = join(directory, 'base.img');
  const fd = openSync(path, 'w');
  for (const [offset, length] of ISLANDS) writeSync(fd, randomBytes(length), 0, length, offset);
  ftruncateSync(fd, kind.bytes);
  closeSync(fd);
  return path;
}
