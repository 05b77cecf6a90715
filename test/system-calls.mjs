/**
 * System calls that Node lacks, for programs of the tests that run in processes of their own. They throw `Refused` with
 * the errno's name. Knows nothing of cowfs; plain JavaScript, since Node 20 runs no TypeScript.
 */
import os from 'node:os';
import koffi from 'koffi';

export const PAGE = 4096;
const [PROT_READ, PROT_WRITE, MAP_SHARED, MS_SYNC] = [1, 2, 1, 4];
export const MAP_PRIVATE = 2;
export const [SEEK_DATA, SEEK_HOLE] = [3, 4];
export const [FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE] = [0x01, 0x02, 0x10];
const [F_OFD_SETLK, F_RDLCK, F_WRLCK] = [37, 0, 1];

const libc = koffi.load(null);
const cLseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
const cFallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const cMmap = libc.func('intptr_t mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)');
const cMunmap = libc.func('int munmap(intptr_t address, size_t length)');
const cMsync = libc.func('int msync(intptr_t address, size_t length, int flags)');
const cStore = libc.func('memcpy', 'intptr_t', ['intptr_t', 'void *', 'size_t']);
const cLoad = libc.func('memcpy', 'intptr_t', ['void *', 'intptr_t', 'size_t']);
const cAddress = libc.func('memcpy', 'intptr_t', ['void *', 'void *', 'size_t']);
const cCopyFileRange = libc.func(
  'int64_t copy_file_range(int from, _Inout_ int64_t *at, int to, _Inout_ int64_t *toAt, size_t length, uint32_t flags)',
);
const cFcntl = libc.func('int fcntl(int fd, int command, void *argument)');
const cRenameat2 = libc.func('int renameat2(int from, const char *name, int to, const char *newName, uint32_t flags)');
const cUtimensat = libc.func('int utimensat(int directory, const char *path, void *times, int flags)');

const ERRNO_NAMES = new Map(Object.entries(os.constants.errno).map(([name, number]) => [number, name]));
/** Names of equal numbers: the one that is asked for. */
ERRNO_NAMES.set(os.constants.errno.EOPNOTSUPP, 'EOPNOTSUPP').set(os.constants.errno.EAGAIN, 'EAGAIN');

/** A system call's refusal; the message and `code` are the errno's name. */
export class Refused extends Error {
  constructor(errno) {
    super(ERRNO_NAMES.get(errno) ?? `errno ${errno}`);
    this.code = this.message;
  }
}

function checked(result) {
  if (Number(result) < 0) throw new Refused(koffi.errno());
  return Number(result);
}

export const lseek = (fd, offset, whence) => checked(cLseek(fd, offset, whence));
export const fallocate = (fd, mode, offset, length) => checked(cFallocate(fd, mode, offset, length));
export const munmap = (address, length) => checked(cMunmap(address, length));
export const msync = (address, length) => checked(cMsync(address, length, MS_SYNC));
export const copyFileRange = (fd, from, to, length) => checked(cCopyFileRange(fd, [from], fd, [to], length, 0));

/** A mapping to read and write; its address. */
export const mmap = (fd, offset, length, flags = MAP_SHARED) =>
  checked(cMmap(null, length, PROT_READ | PROT_WRITE, flags, fd, offset));

/** Copies bytes to and from mapped memory. */
export const store = (address, bytes, length = bytes.length) => cStore(address, bytes, length);
export const load = (bytes, address, length = bytes.length) => cLoad(bytes, address, length);

/** Page-aligned memory, as O_DIRECT wants it; of this size it is never moved. */
export function aligned(bytes) {
  const memory = Buffer.allocUnsafeSlow(bytes + PAGE);
  const address = Number(cAddress(memory, memory, 0));
  const start = (PAGE - (address % PAGE)) % PAGE;
  return memory.subarray(start, start + bytes);
}

/** Takes a lock of this open file on a byte, as QEMU does (F_OFD_SETLK); EAGAIN when another open file holds it. */
export function lockByte(fd, offset, exclusive) {
  const flock = Buffer.alloc(32);
  flock.writeInt16LE(exclusive ? F_WRLCK : F_RDLCK, 0);
  flock.writeBigInt64LE(BigInt(offset), 8);
  flock.writeBigInt64LE(1n, 16);
  return checked(cFcntl(fd, F_OFD_SETLK, flock));
}

/** Paths are from the working directory (fcntl.h). */
const AT_FDCWD = -100;

export const [RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT] = [1, 2, 4];
export const renameat2 = (from, to, flags) => checked(cRenameat2(AT_FDCWD, from, AT_FDCWD, to, flags));

/** utimensat(2) with `[seconds, nanoseconds]` each. */
export function setTimes(path, atime, mtime) {
  const times = Buffer.alloc(32);
  for (const [index, [seconds, nanoseconds]] of [atime, mtime].entries()) {
    times.writeBigInt64LE(BigInt(seconds), index * 16);
    times.writeBigInt64LE(BigInt(nanoseconds), index * 16 + 8);
  }
  return checked(cUtimensat(AT_FDCWD, path, times, 0));
}

/** For `setTimes`: leaves that one as it is (bits/stat.h). */
export const UTIME_OMIT = [0, 0x3fff_fffe];
