/**
 * What a transport is to the daemon: it mounts a file system and carries requests to it. The daemon chooses one and
 * knows no more of it than this. Main thread; a transport may serve on threads of its own.
 */
import type { NodeId } from '../fs/node.ts';
import type { CacheMode, KernelCaching } from '../fs/options.ts';
import type { FsSpec } from '../fs/spec.ts';

export const TRANSPORT_NAMES = ['kernel', 'fuse-native'] as const;
export type TransportName = (typeof TRANSPORT_NAMES)[number];

/** What each can do with the kernel's page cache; the first is its default. libfuse 2 has no write-back cache. */
export const CACHE_MODES: Readonly<Record<TransportName, readonly [CacheMode, ...CacheMode[]]>> = {
  kernel: ['writeback', 'writethrough', 'none'],
  'fuse-native': ['writethrough', 'none'],
};

/**
 * How requests are taken and data is moved, by the names that QEMU has for it: `io_uring` by one thread that waits for
 * nothing, with others for what has to wait; `threads` by all alike.
 */
export const AIO_MODES = ['io_uring', 'threads'] as const;
export type AioMode = (typeof AIO_MODES)[number];

/** Type of the mounted file system, as mount(8) and /proc/self/mountinfo show it: `fuse.SUBTYPE`. */
export const MOUNT_TYPE = 'fuse.cowfs';
export const MOUNT_SUBTYPE = 'cowfs';

/** libfuse and its helper take commas in an option for separators unless a backslash stands before. */
export function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, '\\$&');
}

export interface MountRequest {
  readonly mountpoint: string;
  /** Shown as the mount's source. */
  readonly source: string;
  readonly readOnly: boolean;
  readonly allowOther: boolean;
}

/** Where `--trace` prints: a file, or undefined for standard error. */
export interface TraceTarget {
  readonly logFile: string | undefined;
}

export interface TransportTask {
  readonly request: MountRequest;
  /** The connection, when a parent has mounted it already: the command line refuses that for any but the kernel's. */
  readonly fuseFd: number | undefined;
  readonly cacheMode: CacheMode;
  /** Whether the kernel is to read and write disks past us, if it can. */
  readonly passthrough: boolean;
  /** Everything of the file system but what only the kernel decides. */
  readonly describe: (caching: KernelCaching) => FsSpec;
  /** `auto`: `io_uring` where the machine has it. */
  readonly aio: AioMode | 'auto';
  /** Most threads that serve, and as many rows of counters. */
  readonly threads: number;
  readonly counters: SharedArrayBuffer;
  /** How long a write-back may wait for room, in milliseconds. */
  readonly enospcTimeoutMs: number;
  readonly trace: TraceTarget | undefined;
  readonly warn: (message: string) => void;
  readonly error: (message: string, detail?: string) => void;
}

export interface Transport {
  /**
   * Mounts. Requests may be served from now on.
   *
   * @throws CowfsError; then nothing is mounted
   */
  mount(task: TransportTask): Promise<Connection>;
}

/** A file system that is mounted. */
export interface Connection {
  /** Version of the FUSE protocol in use. */
  readonly protocol: string;
  readonly aio: AioMode;
  readonly fs: FsSpec;
  /** Serves until the kernel ends it; called once, and soon. */
  serve(side: DaemonSide): Serving;
}

/** What a transport asks the daemon for while it serves. */
export interface DaemonSide {
  /** The size in bytes of a file in the mount as the kernel knows it; undefined when nobody can tell. */
  readonly sizeOf: (node: NodeId) => Promise<number | undefined>;
  /** The content of the mount's status file, as of now. */
  readonly statusText: () => Promise<string>;
  /** Whether the mount is gone and nobody has a file open: then nothing will be read again, and nothing is lost. */
  readonly isDiscarded: () => boolean;
}

export interface Serving {
  /** Resolves when requests are served. */
  readonly ready: Promise<void>;
  /** Resolves when the file system is unmounted; rejects when serving broke down. */
  readonly unmounted: Promise<void>;
  /** Bytes of write-backs that wait for room. */
  readonly heldBytes: number;
  /** Gives up what waits: the mount is being taken away by force. */
  close(): void;
}
