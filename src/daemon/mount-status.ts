/**
 * Puts the status of a mount together from those who know parts of it. Main thread.
 */
import type { Totals } from '../fs/counters.ts';
import type { Sessions } from '../overlay/sessions.ts';
import type { Connection } from '../transport/transport.ts';
import type { MountOptions } from './options.ts';
import type { DiskStatus, MountStatus } from './status.ts';
import type { ChosenStrategy } from './store-strategy.ts';

export interface StatusSources {
  /** Path of the base. */
  readonly base: string;
  readonly baseChanged: string | undefined;
  readonly connection: Connection;
  readonly sessions: Sessions;
  readonly strategy: ChosenStrategy;
  readonly heldBytes: number;
  readonly disks: readonly DiskStatus[];
  readonly io: Totals;
  readonly version: string;
  readonly startedAt: Date;
  readonly warnings: readonly string[];
}

export function mountStatus(options: MountOptions, sources: StatusSources): MountStatus {
  const { mountpoint, storeDirectory, transport, cacheMode, threads, readOnly } = options;
  const { maxStoreBytes, maxSessionStoreBytes } = options;
  const { base, baseChanged, connection, sessions, strategy, heldBytes, disks, io, version, startedAt, warnings } =
    sources;
  return {
    mountpoint,
    pid: process.pid,
    version,
    base,
    baseSize: sessions.base.bytes,
    baseChanged: baseChanged ?? null,
    transport,
    protocol: connection.protocol,
    cache: cacheMode,
    aio: connection.aio,
    threads,
    readOnly,
    store: {
      directory: storeDirectory,
      strategy: strategy.strategy,
      strategyReason: strategy.reason,
      passthrough: connection.fs.options.passthroughFd !== undefined,
      freeBytes: sessions.freeBytes,
      maxBytes: maxStoreBytes ?? null,
      maxSessionBytes: maxSessionStoreBytes ?? null,
      occupiedBytes: sessions.occupiedBytes + bytesOfClones(disks),
      heldBytes,
    },
    disks,
    io,
    memory: { rssBytes: process.memoryUsage().rss, mapBytes: sessions.memoryBytes },
    upSince: startedAt.toISOString(),
    warnings,
  };
}

function bytesOfClones(disks: readonly DiskStatus[]): number {
  return disks.reduce((sum, { storeFile, storeBytes }) => sum + (storeFile === null ? 0 : storeBytes), 0);
}
