/**
 * Which ranges of a disk differ from its base: by the map alone (what was written), or by comparing content as well. In a
 * command's process.
 */
import type { Backing } from '../../base/backing.ts';
import { OK } from '../../lib/errno.ts';
import { BLOCK_BYTES, BASE as SAME, STORE } from '../block.ts';
import { readError } from './copy.ts';
import { differencesOf, type ExportSource } from './source.ts';

export interface ChangedRange {
  readonly offset: number;
  readonly length: number;
  /** `zero`: reads as zeros, as after a trim. */
  readonly kind: 'data' | 'zero';
}

const PIECE_BYTES = 1024 * 1024;

/** What was written or trimmed, whether it changed anything or not; ascending, neighbours of one kind put together. */
export function writtenRanges(disk: ExportSource): Generator<ChangedRange> {
  return joined(written(disk));
}

/**
 * What reads otherwise than the base, in units of blocks; past the base's end that is zeros.
 *
 * @throws CowfsError when either cannot be read
 */
export function changedRanges(disk: ExportSource, base: Backing): Generator<ChangedRange> {
  return joined(compared(disk, base));
}

function* written(disk: ExportSource): Generator<ChangedRange> {
  for (const { first, count, state } of differencesOf(disk)) {
    if (state === SAME) continue;
    const offset = first * BLOCK_BYTES;
    const length = Math.min(count * BLOCK_BYTES, disk.sizeBytes - offset);
    yield { offset, length, kind: state === STORE ? 'data' : 'zero' };
  }
}

function* compared(disk: ExportSource, base: Backing): Generator<ChangedRange> {
  const ours = Buffer.alloc(PIECE_BYTES);
  const theirs = Buffer.alloc(PIECE_BYTES);
  for (const { offset, length, kind } of written(disk)) {
    const end = offset + length;
    for (let at = offset; at < end; at += PIECE_BYTES) {
      // Over a hole of the base zeros change nothing; a trim may be of terabytes.
      if (kind === 'zero') at = nextDataOf(base, at, end);
      if (at >= end) break;
      const bytes = Math.min(PIECE_BYTES, end - at);
      readInto(disk, at, bytes, ours);
      const shown = Math.max(0, Math.min(bytes, base.sizeBytes - at));
      if (shown > 0) readInto(base, at, shown, theirs);
      theirs.fill(0, shown, bytes);
      yield* differingBlocks(ours, theirs, bytes, at, kind);
    }
  }
}

/** The first block at or after `offset` in which the base has data, or `end`. */
function nextDataOf(base: Backing, offset: number, end: number): number {
  const limit = Math.min(end, base.sizeBytes);
  const found = offset < limit ? base.nextData(offset, limit) : limit;
  return found >= limit ? end : Math.max(offset, Math.floor(found / BLOCK_BYTES) * BLOCK_BYTES);
}

function* differingBlocks(
  ours: Buffer,
  theirs: Buffer,
  bytes: number,
  offset: number,
  kind: ChangedRange['kind'],
): Generator<ChangedRange> {
  for (let at = 0; at < bytes; at += BLOCK_BYTES) {
    const end = Math.min(at + BLOCK_BYTES, bytes);
    if (ours.compare(theirs, at, end, at, end) !== 0) yield { offset: offset + at, length: end - at, kind };
  }
}

function readInto(from: Backing, offset: number, length: number, into: Buffer): void {
  const errno = from.read(offset, length, into, 0);
  if (errno !== OK) throw readError(offset, errno);
}

function* joined(ranges: Iterable<ChangedRange>): Generator<ChangedRange> {
  let last: ChangedRange | undefined;
  for (const range of ranges) {
    if (last !== undefined && last.kind === range.kind && last.offset + last.length === range.offset) {
      last = { ...last, length: last.length + range.length };
      continue;
    }
    if (last !== undefined) yield last;
    last = range;
  }
  if (last !== undefined) yield last;
}
