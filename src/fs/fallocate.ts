/**
 * fallocate(2) as operations of a disk.
 */
import { EFBIG, EINVAL, EOPNOTSUPP, type Errno, OK } from '../lib/errno.ts';
import { MAX_DISK_BYTES } from '../overlay/block.ts';
import type { SessionDisk } from '../overlay/sessions.ts';
import { tryDiscard } from '../overlay/transfer.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../sys/libc.ts';

/** @returns EOPNOTSUPP for modes that a disk has no use for, else what the disk says */
export function fallocateOn(disk: SessionDisk, mode: number, offset: number, length: number): Errno {
  if (length === 0) return EINVAL;
  if (offset + length > MAX_DISK_BYTES) return EFBIG;
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
      return disk.allocate(offset, length, keepSize);
    case FALLOC_FL_PUNCH_HOLE:
      return keepSize ? disk.discard(offset, length) : EOPNOTSUPP;
    // Thin, where an ordinary file would set the space aside: zeros need none here until they are overwritten.
    case FALLOC_FL_ZERO_RANGE: {
      const errno = disk.discard(offset, length);
      return errno === OK && !keepSize && offset + length > disk.sizeBytes ? disk.truncate(offset + length) : errno;
    }
    default:
      return EOPNOTSUPP;
  }
}

/** As `fallocateOn`, where that needs no waiting; false, and nothing has happened, where it would, or is an error. */
export function tryFallocate(disk: SessionDisk, mode: number, offset: number, length: number): boolean {
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  const wanted = mode & ~FALLOC_FL_KEEP_SIZE;
  const isDiscard =
    wanted === FALLOC_FL_PUNCH_HOLE
      ? keepSize
      : wanted === FALLOC_FL_ZERO_RANGE && (keepSize || offset + length <= disk.sizeBytes);
  return isDiscard && length > 0 && offset + length <= MAX_DISK_BYTES && tryDiscard(disk, offset, length);
}
