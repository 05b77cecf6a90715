/**
 * A disk that is read from end to end: nothing of it changes meanwhile. What an export, a commit and a diff want of it;
 * `overlay/layer.ts` is one.
 */
import type { Backing } from '../../base/backing.ts';
import { BLOCK_BYTES, type BlockIndex, type BlockState } from '../block.ts';

export interface ExportSource extends Backing {
  /** Bytes of the disk. Reads past it give zeros. */
  readonly sizeBytes: number;
  /**
   * What sets the blocks of the run that `differenceAt` found last apart from the base: `BASE` nothing, `STORE` data that
   * was written, `ZERO` zeros where the base may have something else.
   */
  readonly difference: BlockState;
  /** How many blocks from `block` on share their `difference`, at least 1, at most `limit`. */
  differenceAt(block: BlockIndex, limit: number): number;
}

/** Told now and then how far it is, in bytes that have to be moved; may throw to end it. */
export type OnProgress = (doneBytes: number, totalBytes: number) => void;

export interface Difference {
  readonly first: BlockIndex;
  readonly count: number;
  readonly state: BlockState;
}

/** All blocks of a disk, in runs that share their difference. */
export function* differencesOf(source: ExportSource): Generator<Difference> {
  const end = Math.ceil(source.sizeBytes / BLOCK_BYTES);
  for (let first = 0; first < end; ) {
    const count = source.differenceAt(first, end - first);
    yield { first, count, state: source.difference };
    first += count;
  }
}
