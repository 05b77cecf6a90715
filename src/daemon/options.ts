/**
 * What a mount is asked to do: parsed once, by the command line. All paths are absolute.
 */

import type { CacheMode } from '../fs/options.ts';
import type { LogLevel } from '../lib/log-level.ts';
import type { AioMode, TransportName } from '../transport/transport.ts';

/** How disks keep what is written (`store-strategy.ts`). */
export const STORE_STRATEGIES = ['sparse', 'reflink'] as const;
export type StoreStrategy = (typeof STORE_STRATEGIES)[number];

export interface MountOptions {
  readonly base: string;
  readonly mountpoint: string;
  /** The connection, when a parent has mounted it; the mountpoint is where, or `/dev/fd/N` if that is unknown. */
  readonly fuseFd?: number;
  /** File names of the disks that are there from the start; the first is the one that is told of. */
  readonly names: readonly string[];
  /** How the names end of files that may be made in the mount, and become disks. */
  readonly suffixes: readonly string[];
  readonly storeDirectory: string;
  readonly storeStrategy: StoreStrategy | 'auto';
  /** File that keeps the first disk. */
  readonly overlay?: string;
  /** Size of the disk in bytes, when larger than the base. */
  readonly sizeBytes?: number;
  readonly transport: TransportName;
  readonly cacheMode: CacheMode;
  readonly aio: AioMode | 'auto';
  /** Most worker threads. */
  readonly threads: number;
  readonly readOnly: boolean;
  readonly allowOther: boolean;
  /** Quotas of the store in bytes: of all disks together, and of each. */
  readonly maxStoreBytes?: number;
  readonly maxSessionStoreBytes?: number;
  /** How long cached writes wait for room in a full store. */
  readonly enospcTimeoutMs: number;
  readonly logFile?: string;
  readonly logLevel: LogLevel;
  readonly trace: boolean;
  /** Go on although the base is in use. */
  readonly force: boolean;
  /** Remove the mountpoint afterwards: it was made for this mount alone (`cowfs run`). */
  readonly privateMountpoint: boolean;
}
