/**
 * How a mount's file system behaves; decided once, the same on every thread.
 */

import type { Quotas } from '../overlay/account.ts';

/** `writeback` and `writethrough` go through the kernel's page cache; `none` bypasses it for every opener. */
export type CacheMode = 'writeback' | 'writethrough' | 'none';

/** What the kernel does with the page cache in front of us: the transport finds out when it connects. */
export interface KernelCaching {
  /**
   * Whether an O_DIRECT opener may get a handle that bypasses the cache: only where the kernel keeps it coherent with
   * cached handles and mappings (FUSE_DIRECT_IO_ALLOW_MMAP).
   */
  readonly coherentDirect: boolean;
  /** Whether the kernel may know a larger size than we do (WRITEBACK_CACHE): it extends the file and writes later. */
  readonly sizeMayLag: boolean;
  /** Whether a file can be read whose size nobody knows before it is opened (FOPEN_DIRECT_IO for it alone). */
  readonly sizelessFiles: boolean;
  /** The connection, where the kernel can read and write files past us that are registered there (PASSTHROUGH). */
  readonly passthroughFd: number | undefined;
}

export interface CowFsOptions extends KernelCaching {
  readonly cacheMode: CacheMode;
  readonly readOnly: boolean;
  readonly quotas: Quotas;
  /** Bytes of a fresh disk. */
  readonly diskBytes: number;
  /** How the name of a file ends that may be made in the mount: it becomes a disk. */
  readonly suffixes: readonly string[];
  /** Whether others than the mounting user may look in. */
  readonly allowOther: boolean;
}
