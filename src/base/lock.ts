/**
 * QEMU's image locking (qemu block/file-posix.c, raw_apply_lock_bytes and raw_check_lock_bytes), so that cowfs and
 * QEMU respect each other: a shared lock on byte 100+p says "I use permission p", on byte 200+p "nobody else may use
 * p". They are open-file-description locks: they live as long as the base's descriptor, whichever thread uses it.
 */
import { type Errno, errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { lockHeldByOther, lockShared, unlockRange } from '../sys/libc.ts';
import { namesOf, usersOfFile } from '../sys/processes.ts';

const PERMISSION_BASE = 100;
const UNSHARED_BASE = 200;

/** Bits of BlockPermission (qemu include/block/block-common.h) as bit numbers. */
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

/** Bytes on which somebody else's lock means that the base is not ours to rely on; what we hold while we write to it. */
const CONFLICTS = [PERMISSION_BASE + WRITE, PERMISSION_BASE + RESIZE, UNSHARED_BASE + CONSISTENT_READ];
/** Bytes that we hold: we read and need it consistent; nobody may write or resize. */
const HOLDS = [PERMISSION_BASE + CONSISTENT_READ, UNSHARED_BASE + WRITE, UNSHARED_BASE + RESIZE];
const WRITER_HOLDS = [...HOLDS, ...CONFLICTS];

/**
 * Takes the locks, then looks whether somebody writes: in this order two that start at once see each other.
 *
 * @returns warnings: what could not be locked, or what was found in use when `force` is set
 * @throws CowfsError of kind `refused` when a writer has the base and `force` is not set
 */
export function lockBase(path: string, fd: number, force: boolean): string[] {
  for (const byte of HOLDS) {
    const errno = lockShared(fd, byte, 1);
    if (errno !== OK) return [unlockable(path, errno)];
  }
  for (const byte of CONFLICTS) {
    const held = lockHeldByOther(fd, byte, 1);
    if (held < 0) return [unlockable(path, -held)];
    if (held === 0) continue;
    const who = namesOf(usersOfFile(path)) || 'another program';
    const found = `${path} is in use for writing (${who})`;
    if (force) return [`${found}; going on because of --force: what it writes may show through`];
    throw new CowfsError('refused', `${found}; stop it first, or insist with --force`);
  }
  return [];
}

/**
 * Takes the base for itself, to write to it: the locks besides, then a look whether anybody else uses it.
 *
 * @param fd one that `lockBase` has locked, or a fresh one
 * @throws CowfsError of kind `refused` when somebody does, or that cannot be told
 */
export function useAlone(path: string, fd: number): void {
  const errno = lockAlone(fd);
  if (errno !== OK) {
    shareAgain(fd);
    throw cannotTell(path, errno);
  }
  for (const byte of WRITER_HOLDS) {
    const held = lockHeldByOther(fd, byte, 1);
    if (held === 0) continue;
    shareAgain(fd);
    throw held < 0
      ? cannotTell(path, -held)
      : new CowfsError('refused', `${path} is in use${usersText(path)}; stop that first`);
  }
}

/** Takes what `useAlone` does, without a look at others. */
export function lockAlone(fd: number): Errno {
  for (const byte of WRITER_HOLDS) {
    const errno = lockShared(fd, byte, 1);
    if (errno !== OK) return errno;
  }
  return OK;
}

/** Gives up what `useAlone` took besides. */
export function shareAgain(fd: number): void {
  for (const byte of CONFLICTS) unlockRange(fd, byte, 1);
}

function cannotTell(path: string, errno: Errno): CowfsError {
  return new CowfsError(
    'refused',
    `${path}: the file system has no locks (${errnoName(errno)}), so others may be using it; commit to a new file with --to`,
  );
}

function usersText(path: string): string {
  const users = namesOf(usersOfFile(path));
  return users === '' ? '' : ` (${users})`;
}

function unlockable(path: string, errno: Errno): string {
  return `${path}: the file system has no locks (${errnoName(errno)}); make sure that nothing writes to it`;
}
