/**
 * What is done to the words of one leaf of the map (`map.ts`): 1024 blocks, 16 to a word. Other threads may do so to other
 * blocks of the same leaf at the same time. Nothing here allocates.
 *
 * Many words are read as plain elements: 1 ns each, where Atomics.load takes 16 (Node 20, 22 and 24). Such a read sees a
 * word whole, as it was a moment ago at worst, and a moment ago is when a reader without a lock may have come.
 */
import type { BlockState } from './block.ts';
import { BLOCKS_PER_WORD, LOW_BITS, maskOf, popcount, written } from './block-bits.ts';

export const LEAF_BLOCKS = 1024;
export const LEAF_WORDS = LEAF_BLOCKS / BLOCKS_PER_WORD;

/**
 * Blocks from `first` to the next of another state, or to the end of the leaf.
 *
 * @param leaf index of its first word in `words`
 * @param word the one with `first`, as it was when that had the state
 */
export function runInLeaf(words: Int32Array, leaf: number, first: number, word: number, state: BlockState): number {
  const pattern = state * LOW_BITS;
  let differing = (word ^ pattern) >>> ((first % BLOCKS_PER_WORD) * 2);
  let at = first;
  for (;;) {
    // The lowest differing bit is in the first block of another state.
    if (differing !== 0) return at - first + ((31 - Math.clz32(differing & -differing)) >>> 1);
    at += BLOCKS_PER_WORD - (at % BLOCKS_PER_WORD);
    if (at === LEAF_BLOCKS) return at - first;
    differing = (words[leaf + (at >>> 4)] as number) ^ pattern;
  }
}

/** Blocks of the range that take space in the store. */
export function occupiedInLeaf(words: Int32Array, leaf: number, first: number, count: number): number {
  const end = first + count;
  let total = 0;
  for (let at = first; at < end; ) {
    const taken = takenOfWord(at, end);
    total += popcount((words[leaf + (at >>> 4)] as number) & LOW_BITS & maskOf((at % BLOCKS_PER_WORD) * 2, taken));
    at += taken;
  }
  return total;
}

/**
 * Gives the blocks a state; the caller holds their range lock.
 *
 * @returns how many more are written than before
 */
export function changeLeaf(words: Int32Array, leaf: number, first: number, count: number, state: BlockState): number {
  const pattern = state * LOW_BITS;
  const end = first + count;
  let writtenDelta = 0;
  for (let at = first; at < end; ) {
    const taken = takenOfWord(at, end);
    const mask = maskOf((at % BLOCKS_PER_WORD) * 2, taken);
    const index = leaf + (at >>> 4);
    const old = Atomics.load(words, index);
    writtenDelta += popcount(written(pattern & mask)) - popcount(written(old & mask));
    Atomics.store(words, index, (old & ~mask) | (pattern & mask));
    at += taken;
  }
  return writtenDelta;
}

/** Blocks from `at` to the end of its word, or to `end`. */
function takenOfWord(at: number, end: number): number {
  return Math.min(BLOCKS_PER_WORD - (at % BLOCKS_PER_WORD), end - at);
}
