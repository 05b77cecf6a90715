/**
 * States of blocks in a word, two bits each, 16 blocks to a word, the first in the lowest bits. Pure.
 */
import type { BlockState } from './block.ts';

export const BLOCKS_PER_WORD = 16;

/** Every second bit: bit 0 of each block of a word. */
export const LOW_BITS = 0x55555555;

/** @param inLeaf place of the block, of which the word has the last four bits */
export function stateIn(word: number, inLeaf: number): BlockState {
  return ((word >>> ((inLeaf % BLOCKS_PER_WORD) * 2)) & 3) as BlockState;
}

/** Bits of `count` blocks from bit `shift` on; `count` 1 to 16. */
export function maskOf(shift: number, count: number): number {
  return (count === BLOCKS_PER_WORD ? -1 : (1 << (count * 2)) - 1) << shift;
}

/** Bit 0 of each block whose state is `STORE`: low bit set, high bit clear. */
export function written(word: number): number {
  return word & ~(word >>> 1) & LOW_BITS;
}

export function popcount(word: number): number {
  let bits = word - ((word >>> 1) & LOW_BITS);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
