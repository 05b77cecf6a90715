/**
 * Files that the kernel reads and writes by itself for a FUSE file (FUSE passthrough, Linux 6.9), registered with the
 * connection (linux/fuse.h, FUSE_DEV_IOC_BACKING_OPEN). Any thread; needs CAP_SYS_ADMIN.
 */
import { type Errno, OK } from '../lib/errno.ts';
import { ioctl } from './libc.ts';

const FUSE_DEV_IOC_BACKING_OPEN = 0x4010_e501;
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004_e502;

/** @returns a number above 0 by which replies to OPEN name the file, or the errno negated */
export function openBackingFile(fuseFd: number, fd: number): number {
  // struct fuse_backing_map: int32 fd, uint32 flags, uint64 padding.
  const map = Buffer.alloc(16);
  map.writeInt32LE(fd, 0);
  return ioctl(fuseFd, FUSE_DEV_IOC_BACKING_OPEN, map);
}

/** Open handles go on with it. */
export function closeBackingFile(fuseFd: number, id: number): Errno {
  const number = Buffer.alloc(4);
  number.writeUInt32LE(id, 0);
  const answer = ioctl(fuseFd, FUSE_DEV_IOC_BACKING_CLOSE, number);
  return answer < 0 ? -answer : OK;
}
