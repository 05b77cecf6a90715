/**
 * The shared memory of an overlay, every slot named: what all workers and the main thread see of one disk. Plain
 * data, posted to workers as it is. The block states themselves are in the arena (`arena.ts`).
 */

/** Int32 slots of a disk's control block; all access through Atomics. */
export const CONTROL = {
  /** Arena index of the map's root node, or one of the two leafless answers (`map.ts`). */
  ROOT: 0,
  /** Mutex around changes of the size. */
  SIZE_MUTEX: 1,
  /** Blocks in state `store`, as an unsigned number. */
  WRITTEN_BLOCKS: 2,
  /** Blocks that take or are promised space in the store (`store` and `reserved`), as an unsigned number. */
  OCCUPIED_BLOCKS: 3,
  BYTES: 16,
} as const;

/**
 * Float64 slots, after the Int32 ones. An aligned 8-byte load or store is one instruction on every 64-bit machine
 * that V8 compiles for, so a reader never sees half a number; writers hold SIZE_MUTEX.
 */
export const EXTENT = {
  /** Bytes of the disk now. */
  SIZE: 0,
  /** Bytes of the base that still show: its size, or less once the disk was cut shorter (truncate(2)). */
  BASE_LIMIT: 1,
  COUNT: 2,
} as const;

export interface OverlayShared {
  readonly control: SharedArrayBuffer;
  readonly arena: SharedArrayBuffer;
  /** One Int32 mutex a stripe (`range-lock.ts`). */
  readonly stripes: SharedArrayBuffer;
}
