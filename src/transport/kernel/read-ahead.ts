/**
 * How far the kernel reads ahead on a mount of ours, which decides how large the requests of a sequential reader are. INIT
 * can only lower it; above the kernel's 128 KiB it is root's to set, in sysfs. Main thread, between the handshake and the
 * first open: a file takes it over when it is opened.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { EACCES, ENOENT, EPERM, EROFS, errnoOf } from '../../lib/errno.ts';
import { reasonOf } from '../../lib/error.ts';
import { mountAt } from '../../sys/mountinfo.ts';

/**
 * In KiB. Buffered reads of 64k in sequence, base in memory, 2 cores of a virtual machine: 38.0k IOPS with the kernel's own
 * 128, 40.2k with 256, 46.9k with 512, 48.2k with 1024. Random ones make the same with each. A fault in a mapping reads as much
 * around it, so not the last that there is to gain.
 */
const READ_AHEAD_KIB = 512;

/** Not root's here, or no sysfs: the kernel's own is what there is. */
const REFUSALS: readonly number[] = [EACCES, EPERM, EROFS, ENOENT];

/** @returns undefined, or why what should have been possible was not */
export function raiseReadAhead(mountpoint: string): string | undefined {
  if (process.geteuid?.() !== 0) return undefined;
  try {
    const device = mountAt(mountpoint)?.device;
    // A mount that a parent made elsewhere.
    if (device === undefined) return undefined;
    const setting = `/sys/class/bdi/${device}/read_ahead_kb`;
    // Whoever has set more meant it.
    if (Number(readFileSync(setting, 'utf8')) < READ_AHEAD_KIB) writeFileSync(setting, String(READ_AHEAD_KIB));
    return undefined;
  } catch (error) {
    return REFUSALS.includes(errnoOf(error)) ? undefined : `how far to read ahead cannot be set: ${reasonOf(error)}`;
  }
}
