/**
 * QEMU's image locking (qemu block/file-posix.c, raw_apply_lock_bytes and raw_check_lock_bytes), so that cowfs and
 * QEMU respect each other: a shared lock on byte 100+p says "I use permission p", on byte 200+p "nobody else may use
 * p". They are open-file-description locks: they live as long as the base's descriptor, whichever thread uses it.
 */
import { type Errno, errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { lockHeldByOther, lockShared } from '../sys/libc.ts';
import { usersOfFile } from '../sys/processes.ts';

const PERMISSION_BASE = 100;
const UNSHARED_BASE = 200;

/** Bits of BlockPermission (qemu include/block/block-common.h) as bit numbers. */
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

/** Bytes on which somebody else's lock means that the base is not ours to rely on. */
const CONFLICTS = [PERMISSION_BASE + WRITE, PERMISSION_BASE + RESIZE, UNSHARED_BASE + CONSISTENT_READ];
/** Bytes that we hold: we read and need it consistent; nobody may write or resize. */
const HOLDS = [PERMISSION_BASE + CONSISTENT_READ, UNSHARED_BASE + WRITE, UNSHARED_BASE + RESIZE];

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
    const users = usersOfFile(path).map(({ pid, command }) => `${command}, pid ${pid}`);
    const who = users.length === 0 ? 'another program' : users.join('; ');
    const found = `${path} is in use for writing (${who})`;
    if (force) return [`${found}; going on because of --force: what it writes may show through`];
    throw new CowfsError('refused', `${found}; stop it first, or insist with --force`);
  }
  return [];
}

function unlockable(path: string, errno: Errno): string {
  return `${path}: the file system has no locks (${errnoName(errno)}); make sure that nothing writes to it`;
}
