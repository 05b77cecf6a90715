/**
 * The shared memory of a mount's disks, every slot named: what all workers and the main thread see of them. All of it
 * lies in one arena (`arena.ts`); a record is known by its index there. Int32 slots, all access through Atomics.
 */

/** The mount as a whole: one record. */
export const MOUNT = {
  /** Blocks that all layers take or are promised in the store, as an unsigned number. */
  OCCUPIED_BLOCKS: 0,
  /** Counts changes of what lies under a session: a thread whose view is older makes it anew (`sessions.ts`). */
  TOPOLOGY: 1,
  /** Mutex around the references of layers and the list of them. */
  LAYERS_MUTEX: 2,
  /** The layer that was made last; they are a list. */
  NEWEST_LAYER: 3,
  /** Counts references that were given up: then a layer may have become superfluous (`merge.ts`). */
  RELEASES: 4,
  /** The session that is kept in the overlay file; 0 if there is none. */
  KEPT_SESSION: 5,
  /** Not 0 while a disk is being committed: nobody may make another. */
  COMMITTING: 6,
  /** Float64: bytes of the base, which a commit may change. */
  BASE_BYTES: 8,
  WORDS: 16,
} as const;

/** A session: one disk that can be written to. Its range locks (`range-lock.ts`) follow the record. */
export const SESSION = {
  /** The layer that takes its writes. */
  TOP: 0,
  /** Not 0 while nobody may enter (`gate.ts`). */
  GATE: 1,
  /** Blocks that its layers take or are promised, shared ones included, as an unsigned number; what its quota counts. */
  OCCUPIED_BLOCKS: 2,
  /** The kernel's number of its file (`fs/passthrough.ts`); 0 before that is asked for. */
  BACKING_FILE: 3,
  /** When its file was last written, in milliseconds modulo 2^32 (49 days), as far as anybody has looked; 0 for never. */
  WRITTEN_AT: 4,
  WORDS: 16,
} as const;

/** A layer: what was written between two moments of a session, over a backing. */
export const LAYER = {
  /** Arena index of the map's root node, or one of the two leafless answers (`map.ts`). */
  ROOT: 0,
  /** Mutex around changes of the size. */
  SIZE_MUTEX: 1,
  /** Blocks in state `store`, as an unsigned number. */
  WRITTEN_BLOCKS: 2,
  /** Blocks that take or are promised space in the store (`store` and `reserved`), as an unsigned number. */
  OCCUPIED_BLOCKS: 3,
  /** Descriptor of its store plus 1; 0 before the first write. */
  STORE: 4,
  /** Mutex around the opening of the store. */
  STORE_MUTEX: 5,
  /** The layer below; 0 for the base. */
  BACKING: 6,
  /** Sessions, snapshots and layers that stand on it. */
  REFERENCES: 7,
  /** The layers made before and after it, by age; 0 at either end. */
  OLDER: 14,
  NEWER: 15,
  /** 1 if its store is the mount's overlay file, which is kept. */
  KEPT: 16,
  /** 1 if its store is a clone of the base (`clone.ts`). */
  CLONE: 17,
  WORDS: 32,
} as const;

/**
 * Float64 slots of a layer, between its Int32 ones. An aligned 8-byte load or store is one instruction on every 64-bit
 * machine that V8 compiles for, so a reader never sees half a number; writers hold SIZE_MUTEX.
 */
export const EXTENT = {
  /** Word of the record at which they start. */
  AT: 8,
  /** Bytes of the disk; as it was when the layer was frozen, once it is. */
  SIZE: 0,
  /** Bytes of the backing that still show: its size, or less once the disk was cut shorter (truncate(2)). */
  BACKING_LIMIT: 1,
  /** Byte of its store's file at which the disk begins. */
  ORIGIN: 2,
  COUNT: 3,
} as const;
