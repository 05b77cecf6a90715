/**
 * Makes the kernel hand over what it still caches of a disk before a command looks at the disk past the kernel: an
 * fsync of the disk file, from this process, never from the daemon's, which would wait for itself.
 */
import { closeSync, fsyncSync, openSync } from 'node:fs';
import type { MountStatus } from '../daemon/status.ts';
import { reasonOf } from '../lib/error.ts';
import { warn } from './exit.ts';

/** Nothing is asked of a mount whose store is full: its write-backs wait for room, and so would we. */
export function flushDisks(status: MountStatus): void {
  if (status.store.heldBytes > 0) return;
  for (const { path } of status.disks) {
    try {
      const fd = openSync(path, 'r');
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      warn(`${path}: ${reasonOf(error)}; figures leave out what the kernel still caches`);
    }
  }
}
