/**
 * The status of a mount: the object that `cowfs status --json` prints and the control socket carries. Keys are stable;
 * sizes in bytes, times in milliseconds or ISO 8601.
 */
import type { Totals } from '../fs/counters.ts';

interface DiskStatus {
  readonly name: string;
  readonly path: string;
  /** Size of the virtual disk in bytes. */
  readonly size: number;
  /** Bytes of blocks whose content differs in origin from the base: written or copied up. */
  readonly writtenBytes: number;
  /** Bytes that the store really takes on its file system. */
  readonly storeBytes: number;
  readonly openHandles: number;
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
  readonly threads: number;
  readonly readOnly: boolean;
  readonly store: {
    readonly directory: string;
    readonly strategy: string;
    readonly freeBytes: number;
    readonly maxBytes: number | null;
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
