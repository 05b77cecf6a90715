/**
 * The status of a mount: the object that `cowfs status --json` prints and the control socket carries. Keys are stable;
 * sizes in bytes, times in milliseconds or ISO 8601.
 */
import type { Totals } from '../fs/counters.ts';

export interface SnapshotStatus {
  readonly name: string;
  /** Size of the disk in bytes, as it was then. */
  readonly size: number;
  readonly createdAt: string;
}

export interface DiskStatus {
  /** From the mountpoint: `disk.raw`, `job-17/a.raw`. */
  readonly name: string;
  readonly path: string;
  /** Where the disk is found also when it has lost its name. */
  readonly pathByNumber: string;
  /** Whether it was removed while it was open; it goes with the last handle. */
  readonly removed: boolean;
  /** Size of the virtual disk in bytes. */
  readonly size: number;
  /** Bytes of blocks that were written or copied up, in all its layers; of a clone those that it shares with no file. */
  readonly writtenBytes: number;
  /** Bytes that its layers really take on their file system, those that it shares with others included; of a clone as above. */
  readonly storeBytes: number;
  readonly openHandles: number;
  /** Layers between the base and what is written now. */
  readonly layers: number;
  readonly snapshots: readonly SnapshotStatus[];
  /** File that keeps it; null for one that is discarded. */
  readonly overlay: string | null;
  /** Where the file can be opened that has all bytes of a clone while it is mounted; null for one of layers. */
  readonly storeFile: string | null;
}

export interface MountStatus {
  readonly mountpoint: string;
  readonly pid: number;
  readonly version: string;
  readonly base: string;
  readonly baseSize: number;
  /** How the base changed since the mount; null while it is as it was. */
  readonly baseChanged: string | null;
  readonly transport: string;
  readonly protocol: string;
  readonly cache: string;
  readonly aio: string;
  readonly threads: number;
  readonly readOnly: boolean;
  readonly store: {
    readonly directory: string;
    /** `sparse` or `reflink`. */
    readonly strategy: string;
    readonly strategyReason: string;
    /** Whether the kernel reads and writes disks by itself. */
    readonly passthrough: boolean;
    readonly freeBytes: number;
    readonly maxBytes: number | null;
    readonly maxSessionBytes: number | null;
    /** Bytes of blocks that all disks together take or are promised; what `maxBytes` counts. */
    readonly occupiedBytes: number;
    /** Cached writes that wait for room. */
    readonly heldBytes: number;
  };
  readonly disks: readonly DiskStatus[];
  /** What was served so far. */
  readonly io: Totals;
  readonly memory: { readonly rssBytes: number; readonly mapBytes: number };
  readonly upSince: string;
  readonly warnings: readonly string[];
}

/**
 * A status after the kernel has written back, with the open handles from before: whoever had it write back opened the
 * disks himself, and the kernel closes them in its own time.
 */
export function withHandlesOf(after: MountStatus, before: MountStatus): MountStatus {
  const handles = new Map(before.disks.map(({ pathByNumber, openHandles }) => [pathByNumber, openHandles]));
  return {
    ...after,
    disks: after.disks.map((disk) => ({ ...disk, openHandles: handles.get(disk.pathByNumber) ?? disk.openHandles })),
  };
}
