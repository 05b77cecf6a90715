/**
 * One row an opcode: its name, the least size of its argument, and what it does; the table also feeds size checks,
 * traces and counters.
 *
 * What is not in the table is ENOSYS, which the kernel takes as "do not ask again".
 */
import { EIO, ENOSYS, ENOTTY, EPERM, type Errno, OK } from '../lib/errno.ts';
import {
  FUSE_BATCH_FORGET_IN,
  FUSE_CREATE_IN,
  FUSE_FALLOCATE_IN,
  FUSE_FORGET_IN,
  FUSE_GETATTR_IN,
  FUSE_LSEEK_IN,
  FUSE_MKDIR_IN,
  FUSE_MKNOD_IN,
  FUSE_OPEN_IN,
  FUSE_READ_IN,
  FUSE_RELEASE_IN,
  FUSE_RENAME_IN,
  FUSE_RENAME2_IN,
  FUSE_SETATTR_IN,
  FUSE_WRITE_IN,
  OPCODE,
} from './abi.ts';
import { type Handler, NO_REPLY, type Operation } from './call.ts';
import { fallocate, lseek, open, read, release, write } from './io-handlers.ts';
import {
  batchForget,
  create,
  forget,
  getattr,
  lookup,
  mkdir,
  mknod,
  opendir,
  readdir,
  rename,
  rename2,
  rmdir,
  setattr,
  statfs,
  unlink,
} from './name-handlers.ts';

function refuse(errno: Errno | typeof NO_REPLY): Handler {
  return () => errno;
}

const ROWS: readonly (readonly [opcode: number, name: string, inBytes: number, handle: Handler])[] = [
  [OPCODE.LOOKUP, 'LOOKUP', 1, lookup],
  [OPCODE.FORGET, 'FORGET', FUSE_FORGET_IN.BYTES, forget],
  [OPCODE.BATCH_FORGET, 'BATCH_FORGET', FUSE_BATCH_FORGET_IN.BYTES, batchForget],
  [OPCODE.INTERRUPT, 'INTERRUPT', 0, refuse(NO_REPLY)],
  [OPCODE.NOTIFY_REPLY, 'NOTIFY_REPLY', 0, refuse(NO_REPLY)],
  [OPCODE.GETATTR, 'GETATTR', FUSE_GETATTR_IN.BYTES, getattr],
  [OPCODE.SETATTR, 'SETATTR', FUSE_SETATTR_IN.BYTES, setattr],
  [OPCODE.OPEN, 'OPEN', FUSE_OPEN_IN.BYTES, open],
  [OPCODE.RELEASE, 'RELEASE', FUSE_RELEASE_IN.BYTES, release],
  [OPCODE.READ, 'READ', FUSE_READ_IN.BYTES, read],
  [OPCODE.WRITE, 'WRITE', FUSE_WRITE_IN.BYTES, write],
  [OPCODE.FALLOCATE, 'FALLOCATE', FUSE_FALLOCATE_IN.BYTES, fallocate],
  [OPCODE.LSEEK, 'LSEEK', FUSE_LSEEK_IN.BYTES, lseek],
  [OPCODE.FSYNC, 'FSYNC', 0, (call, node) => call.ops.sync(node)],
  [OPCODE.STATFS, 'STATFS', 0, statfs],
  [OPCODE.OPENDIR, 'OPENDIR', FUSE_OPEN_IN.BYTES, opendir],
  [OPCODE.READDIR, 'READDIR', FUSE_READ_IN.BYTES, readdir],
  [OPCODE.RELEASEDIR, 'RELEASEDIR', 0, refuse(OK)],
  [OPCODE.DESTROY, 'DESTROY', 0, refuse(OK)],
  [OPCODE.CREATE, 'CREATE', FUSE_CREATE_IN.BYTES + 1, create],
  [OPCODE.MKNOD, 'MKNOD', FUSE_MKNOD_IN.BYTES + 1, mknod],
  [OPCODE.MKDIR, 'MKDIR', FUSE_MKDIR_IN.BYTES + 1, mkdir],
  [OPCODE.UNLINK, 'UNLINK', 1, unlink],
  [OPCODE.RMDIR, 'RMDIR', 1, rmdir],
  [OPCODE.RENAME, 'RENAME', FUSE_RENAME_IN.BYTES + 2, rename],
  [OPCODE.RENAME2, 'RENAME2', FUSE_RENAME2_IN.BYTES + 2, rename2],
  // There are disks and directories, and a disk has one name.
  [OPCODE.SYMLINK, 'SYMLINK', 0, refuse(EPERM)],
  [OPCODE.LINK, 'LINK', 0, refuse(EPERM)],
  [OPCODE.TMPFILE, 'TMPFILE', 0, refuse(EPERM)],
  // The connection is open already.
  [OPCODE.INIT, 'INIT', 0, refuse(EIO)],
  [OPCODE.IOCTL, 'IOCTL', 0, refuse(ENOTTY)],
  // Named for the trace; the kernel asks once and then does without.
  ...(
    [
      'FLUSH',
      'GETXATTR',
      'SETXATTR',
      'LISTXATTR',
      'REMOVEXATTR',
      'ACCESS',
      'POLL',
      'BMAP',
      'FSYNCDIR',
      'STATX',
    ] as const
  ).map((name) => [OPCODE[name], name, 0, refuse(ENOSYS)] as const),
];

/** Whoever asks these does not wait (fuse.h; fs/fuse/dev.c would take an answer for an error). */
const ONE_WAY: readonly number[] = [OPCODE.FORGET, OPCODE.BATCH_FORGET, OPCODE.INTERRUPT, OPCODE.NOTIFY_REPLY];

/** What looks at names and attributes only, and what is refused at once. */
const QUICK: readonly number[] = [
  OPCODE.LOOKUP,
  OPCODE.GETATTR,
  OPCODE.OPEN,
  OPCODE.OPENDIR,
  OPCODE.READDIR,
  OPCODE.RELEASEDIR,
  OPCODE.INTERRUPT,
  OPCODE.FLUSH,
  OPCODE.GETXATTR,
  OPCODE.LISTXATTR,
  OPCODE.ACCESS,
];

/** Indexed by opcode. */
export const OPERATIONS: readonly (Operation | undefined)[] = ROWS.reduce<(Operation | undefined)[]>(
  (table, [opcode, name, inBytes, handle]) => {
    table[opcode] = { name, inBytes, handle, isQuick: QUICK.includes(opcode), isOneWay: ONE_WAY.includes(opcode) };
    return table;
  },
  new Array<Operation | undefined>(64).fill(undefined),
);
