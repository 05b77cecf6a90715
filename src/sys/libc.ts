/**
 * The system calls that Node lacks, from libc through koffi: with io-uring.ts and memory-io.ts the only FFI of the project.
 * Every wrapper returns an errno (0 for success) or a value beside it, never throws for an expected refusal, and passes
 * numbers below 2^53. Runs on workers and on the main thread (errno is per thread).
 */
import { constants } from 'node:fs';
import koffi from 'koffi';
import { EINTR, ENOSYS, type Errno, OK } from '../lib/errno.ts';
import { reasonOf } from '../lib/error.ts';

const libc = koffi.load(null);

const cLseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
const cFallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const cIoctlNumber = libc.func('ioctl', 'int', ['int', 'unsigned long', 'int']);
const cFcntl = libc.func('int fcntl(int fd, int command, void *argument)');
const cFcntlNumber = libc.func('fcntl', 'int', ['int', 'int', 'int']);
const cLinkat = libc.func(
  'int linkat(int oldDirectory, const char *oldPath, int newDirectory, const char *newPath, int flags)',
);
const cRenameat2 = functionOrNone(
  'int renameat2(int oldDirectory, const char *oldPath, int newDirectory, const char *newPath, unsigned int flags)',
);
const cCopyFileRange = libc.func(
  'int64_t copy_file_range(int from, int64_t *fromOffset, int to, int64_t *toOffset, size_t length, unsigned int flags)',
);
const cPrctl = libc.func(
  'int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5)',
);
const cMount = libc.func(
  'int mount(const char *source, const char *target, const char *fstype, unsigned long flags, const char *data)',
);
const cUmount2 = libc.func('int umount2(const char *target, int flags)');
const cPoll = libc.func('int poll(void *descriptors, unsigned long count, int timeoutMs)');
const cDup2 = libc.func('int dup2(int from, int to)');
const cSetsid = libc.func('int setsid()');
const cExit = libc.func('void _exit(int status)');

/** lseek(2) whence values beyond SEEK_END (linux/fs.h). */
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** fallocate(2) modes (linux/falloc.h). */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** fcntl(2) commands for open file description locks (asm-generic/fcntl.h). */
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** openat(2), linkat(2) (linux/fcntl.h). */
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
/** renameat2(2) (linux/fs.h). */
const RENAME_NOREPLACE = 1;

/** fcntl(2): duplicates (linux/fcntl.h), descriptor flags (asm-generic/fcntl.h). */
const F_DUPFD_CLOEXEC = 1030;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
/** File status flags. */
const F_GETFL = 3;
const F_SETFL = 4;
const { O_NONBLOCK } = constants;

/** mount(2) and umount2(2) flags (sys/mount.h). */
export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MNT_DETACH = 2;

/** What poll(2) tells unasked (asm-generic/poll.h). */
const POLLERR = 0x08;
const POLLHUP = 0x10;
const POLLNVAL = 0x20;

/** prctl(2) (linux/prctl.h): reclaim in this thread must not wait for its own write-back. Linux 5.6, CAP_SYS_RESOURCE. */
const PR_SET_IO_FLUSHER = 57;

/** ioctl of block devices: size in bytes as a u64 (linux/fs.h). */
const BLKGETSIZE64 = 0x80081272;

/** The offset that the last `lseek` returned on this thread; valid until the next call. */
let lastOffset = 0;

/**
 * lseek(2). With SEEK_DATA and SEEK_HOLE it answers from the file's extents and is safe on a shared descriptor as
 * long as everybody else uses positional reads.
 *
 * @returns errno; the offset is in `lseekResult()`
 */
export function lseek(fd: number, offset: number, whence: number): Errno {
  lastOffset = Number(cLseek(fd, offset, whence));
  return lastOffset < 0 ? koffi.errno() : OK;
}

export function lseekResult(): number {
  return lastOffset;
}

/** fallocate(2); interrupted calls are made again. */
export function fallocate(fd: number, mode: number, offset: number, length: number): Errno {
  for (;;) {
    if (cFallocate(fd, mode, offset, length) === 0) return OK;
    const errno = koffi.errno();
    if (errno !== EINTR) return errno;
  }
}

/** ioctl(2) with a structure that the kernel reads, and may write. @returns what it answers, or the errno negated */
export function ioctl(fd: number, request: number, argument: Uint8Array): number {
  const answer = cIoctl(fd, request, argument) as number;
  return answer < 0 ? -koffi.errno() : answer;
}

/** ioctl(2) with a number. @returns what it answers, or the errno negated */
export function ioctlNumber(fd: number, request: number, argument: number): number {
  const answer = cIoctlNumber(fd, request, argument) as number;
  return answer < 0 ? -koffi.errno() : answer;
}

/** Size of a block device in bytes (ioctl BLKGETSIZE64), or the errno negated. */
export function blockDeviceSize(fd: number): number {
  const size = Buffer.alloc(8);
  if (cIoctl(fd, BLKGETSIZE64, size) !== 0) return -koffi.errno();
  return Number(size.readBigUInt64LE());
}

/** `struct flock` of the 64-bit ABIs (asm-generic/fcntl.h): type, whence, start, length, pid. */
function flock(type: number, start: number, length: number): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeInt16LE(type, 0);
  bytes.writeBigInt64LE(BigInt(start), 8);
  bytes.writeBigInt64LE(BigInt(length), 16);
  return bytes;
}

/** Takes a shared open-file-description lock on `length` bytes at `start` (fcntl(2), F_OFD_SETLK); never waits. */
export function lockShared(fd: number, start: number, length: number): Errno {
  return cFcntl(fd, F_OFD_SETLK, flock(F_RDLCK, start, length)) === 0 ? OK : koffi.errno();
}

/** Takes an exclusive lock likewise: the descriptor must be open for writing. */
export function lockExclusive(fd: number, start: number, length: number): Errno {
  return cFcntl(fd, F_OFD_SETLK, flock(F_WRLCK, start, length)) === 0 ? OK : koffi.errno();
}

/** Gives up what this open file description holds of the bytes. */
export function unlockRange(fd: number, start: number, length: number): Errno {
  return cFcntl(fd, F_OFD_SETLK, flock(F_UNLCK, start, length)) === 0 ? OK : koffi.errno();
}

/** Gives an open file, also one without a name, a name (linkat(2) of /proc/self/fd/N, as open(2) has it under O_TMPFILE). */
export function linkDescriptor(fd: number, path: string): Errno {
  const linked = cLinkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
  return linked === 0 ? OK : koffi.errno();
}

/**
 * Renames a file unless the new name is taken: EEXIST (renameat2(2), RENAME_NOREPLACE). EINVAL and ENOSYS: not on this file
 * system, or not with this libc.
 */
export function renameNoReplace(from: string, to: string): Errno {
  if (cRenameat2 === undefined) return ENOSYS;
  return cRenameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) === 0 ? OK : koffi.errno();
}

/** A function that not every libc has. */
function functionOrNone(prototype: string): ReturnType<typeof libc.func> | undefined {
  try {
    return libc.func(prototype);
  } catch {
    return undefined;
  }
}

const copyOffsets = [new BigInt64Array(1), new BigInt64Array(1)] as const;

/**
 * copy_file_range(2): the kernel copies, or shares the blocks where the file system can.
 *
 * @returns bytes copied, 0 at the end of the file, or the errno negated (EXDEV, EOPNOTSUPP, EINVAL: not between these)
 */
export function copyFileRange(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
  copyOffsets[0][0] = BigInt(fromOffset);
  copyOffsets[1][0] = BigInt(toOffset);
  const copied = Number(cCopyFileRange(from, copyOffsets[0], to, copyOffsets[1], length, 0));
  return copied < 0 ? -koffi.errno() : copied;
}

/**
 * Whether another open file description holds any lock on the bytes (F_OFD_GETLK for a write lock).
 *
 * @returns 1 held, 0 free, or the errno negated
 */
export function lockHeldByOther(fd: number, start: number, length: number): number {
  const probe = flock(F_WRLCK, start, length);
  if (cFcntl(fd, F_OFD_GETLK, probe) !== 0) return -koffi.errno();
  return probe.readInt16LE(0) === F_UNLCK ? 0 : 1;
}

/** The flags of an open file (F_GETFL), or the errno negated. Of all descriptors of this open file, as what follows. */
function fileFlags(fd: number): number {
  const flags = cFcntlNumber(fd, F_GETFL, 0) as number;
  return flags >= 0 ? flags : -koffi.errno();
}

/** F_SETFL. */
export function setFileFlags(fd: number, flags: number): Errno {
  return cFcntlNumber(fd, F_SETFL, flags) === 0 ? OK : koffi.errno();
}

/** Has reads say EAGAIN where they would wait (O_NONBLOCK). */
export function nonBlocking(fd: number): Errno {
  const flags = fileFlags(fd);
  return flags < 0 ? -flags : setFileFlags(fd, flags | O_NONBLOCK);
}

/** Another descriptor of the same open file, which no program is given (F_DUPFD_CLOEXEC), or the errno negated. */
export function duplicate(fd: number): number {
  const other = cFcntlNumber(fd, F_DUPFD_CLOEXEC, 0) as number;
  return other < 0 ? -koffi.errno() : other;
}

/** Has `fd` stand for the open file of another descriptor (dup2(2)). */
export function duplicateTo(from: number, fd: number): Errno {
  return cDup2(from, fd) === fd ? OK : koffi.errno();
}

/** Makes this process the leader of a session of its own, without a terminal (setsid(2)). */
export function newSession(): Errno {
  return cSetsid() > 0 ? OK : koffi.errno();
}

/** Keeps a descriptor from the programs that this process starts (F_SETFD). */
export function closeOnExec(fd: number): Errno {
  return cFcntlNumber(fd, F_SETFD, FD_CLOEXEC) === 0 ? OK : koffi.errno();
}

/**
 * Whether the other side of a descriptor is gone (poll(2): POLLERR, POLLHUP), or the descriptor itself (POLLNVAL). Does
 * not wait.
 */
export function hasHungUp(fd: number): boolean {
  // struct pollfd: int fd, short events, short revents.
  const descriptor = Buffer.alloc(8);
  descriptor.writeInt32LE(fd, 0);
  return cPoll(descriptor, 1, 0) > 0 && (descriptor.readInt16LE(6) & (POLLERR | POLLHUP | POLLNVAL)) !== 0;
}

/** mount(2). */
export function mount(source: string, target: string, type: string, flags: number, data: string): Errno {
  return cMount(source, target, type, flags, data) === 0 ? OK : koffi.errno();
}

/** umount2(2); `flags` 0 or MNT_DETACH. */
export function umount2(target: string, flags: number): Errno {
  return cUmount2(target, flags) === 0 ? OK : koffi.errno();
}

/**
 * Marks this thread as one that writes back for the kernel (PR_SET_IO_FLUSHER): without it, memory reclaim in here
 * can wait for dirty pages of our own mount (a loop device over the disk deadlocks so). Needs CAP_SYS_RESOURCE.
 */
export function setIoFlusher(): Errno {
  return cPrctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) === 0 ? OK : koffi.errno();
}

/**
 * _exit(2): ends every thread at once. `process.exit()` would wait for workers that block in read(2) on /dev/fuse,
 * for ever if the connection outlives us.
 */
export function exitNow(status: number): never {
  cExit(status);
  throw new Error('_exit returned');
}

/** The `int` at an address of this process. For memory of a library that hands out no more than its place. */
export function readInt32(address: bigint): number {
  return Number(koffi.decode(address, 'int32_t'));
}

/**
 * dlopen(3): from now on the dynamic linker takes this library for whoever needs one of its soname.
 *
 * @throws with the path in the message
 */
export function loadLibrary(path: string): void {
  try {
    koffi.load(path);
  } catch (error) {
    throw new Error(`${path}: ${reasonOf(error)}`, { cause: error });
  }
}
