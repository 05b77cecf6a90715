/**
 * The unit of copy-on-write and the four states a block can be in. Bit 0 of a state says that the block takes space
 * in the store; bit 1 is set for the two that are not plain base or store.
 */

/** Bytes of a block: the page size of the machines we run on, so that a cached write never needs a copy-up. */
export const BLOCK_BYTES = 4096;

/** Content comes from the base, zeros past its end. What a map without an entry says. */
export const BASE = 0;
/** Content is in the store, all 4096 bytes of it. */
export const STORE = 1;
/** Zeros; whatever the store holds there counts for nothing. */
export const ZERO = 2;
/** As `BASE`, with space set aside in the store (fallocate(2) promises that a later write finds room). */
export const RESERVED = 3;

export type BlockState = typeof BASE | typeof STORE | typeof ZERO | typeof RESERVED;

/** Index of a block from the start of the disk; below 2^40. */
export type BlockIndex = number;

/** Largest disk: what the map can address (2^30 leaves of 2^10 blocks of 2^12 bytes), 4 PiB. */
export const MAX_DISK_BYTES = 2 ** 52;

/** Most blocks that one disk can have in its store: the counters are unsigned 32-bit numbers; 16 TiB. */
export const MAX_STORE_BLOCKS = 2 ** 32 - 1;
