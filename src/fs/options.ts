/**
 * How a mount's file system behaves; decided once, the same on every thread.
 */

/** `writeback` and `writethrough` go through the kernel's page cache; `none` bypasses it for every opener. */
export type CacheMode = 'writeback' | 'writethrough' | 'none';

export interface CowFsOptions {
  readonly cacheMode: CacheMode;
  readonly readOnly: boolean;
  /**
   * Whether an O_DIRECT opener may get a handle that bypasses the cache: only where the kernel keeps it coherent with
   * cached handles and mappings (FUSE_DIRECT_IO_ALLOW_MMAP).
   */
  readonly coherentDirect: boolean;
  readonly maxStoreBytes: number | undefined;
  /** Whether the kernel may know a larger size than we do (WRITEBACK_CACHE): it extends the file and writes later. */
  readonly sizeMayLag: boolean;
  /** Of the root directory; the mounting user. */
  readonly uid: number;
  readonly gid: number;
  /** Whether others than the mounting user may look in. */
  readonly allowOther: boolean;
  readonly mountedAtMs: number;
}
