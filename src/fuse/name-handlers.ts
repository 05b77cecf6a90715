/**
 * Handlers of requests about names, attributes and directories: from structures to `FsOps` and back.
 */
import { CONTROL_NODE } from '../fs/control-directory.ts';
import { type NodeId, PERMISSION_BITS, S_IFMT, S_IFREG } from '../fs/node.ts';
import type { AttributeChange, NewFile } from '../fs/ops.ts';
import { EIO, ENOENT, ENOTDIR, EPERM, type Errno, OK } from '../lib/errno.ts';
import {
  FATTR,
  FUSE_ATTR_OUT,
  FUSE_BATCH_FORGET_IN,
  FUSE_CREATE_IN,
  FUSE_DIRENT,
  FUSE_ENTRY_OUT,
  FUSE_FORGET_IN,
  FUSE_FORGET_ONE,
  FUSE_MKDIR_IN,
  FUSE_MKNOD_IN,
  FUSE_READ_IN,
  FUSE_RENAME_IN,
  FUSE_RENAME2_IN,
  FUSE_SETATTR_IN,
  FUSE_STATFS_OUT,
} from './abi.ts';
import { type Call, NO_REPLY } from './call.ts';
import { openFlags, replyOpen } from './io-handlers.ts';

/**
 * Seconds that the kernel may trust names and attributes. Short, although mostly the kernel changes them: it revalidates
 * before a cached write, so a write into a mount whose daemon died fails within this time and not at the next fsync.
 */
const VALID_SECONDS = 1;

export function lookup(call: Call, node: NodeId): Errno {
  const name = call.request.name();
  if (name === undefined) return EIO;
  const errno = call.ops.lookup(node, name);
  return node === CONTROL_NODE ? replySecondName(call, errno) : replyEntry(call, errno);
}

/**
 * A name in `.cowfs` of an inode that has one elsewhere, too, where it may be removed at any moment: what is true is
 * seen once the kernel counts as knowing it.
 */
function replySecondName(call: Call, errno: Errno): Errno {
  const replied = replyEntry(call, errno);
  if (replied !== OK) return replied;
  const { ops, reply } = call;
  const again = ops.getAttributes(ops.attributes.node);
  if (again === OK) reply.attributes(FUSE_ENTRY_OUT.attr, ops.attributes);
  return again;
}

/** Tells the kernel of the inode in `ops.attributes`, which it then knows until it forgets. */
function replyEntry(call: Call, errno: Errno): Errno {
  if (errno !== OK) return errno;
  const { ops, reply } = call;
  if (!ops.remember(ops.attributes.node)) return ENOENT;
  reply.u64(FUSE_ENTRY_OUT.nodeid, ops.attributes.node);
  reply.u64(FUSE_ENTRY_OUT.generation, 0);
  reply.u64(FUSE_ENTRY_OUT.entry_valid, VALID_SECONDS);
  reply.u64(FUSE_ENTRY_OUT.attr_valid, VALID_SECONDS);
  reply.u32(FUSE_ENTRY_OUT.entry_valid_nsec, 0);
  reply.u32(FUSE_ENTRY_OUT.attr_valid_nsec, 0);
  reply.attributes(FUSE_ENTRY_OUT.attr, ops.attributes);
  call.payloadBytes = FUSE_ENTRY_OUT.BYTES;
  return OK;
}

/** Makes a disk and opens it: the entry, and what OPEN answers behind it. */
export function create(call: Call, node: NodeId): Errno {
  const { ops, request } = call;
  const name = request.name(FUSE_CREATE_IN.BYTES);
  if (name === undefined) return EIO;
  const flags = request.u32(FUSE_CREATE_IN.flags);
  const created = ops.create(node, name, newFile(call, request.u32(FUSE_CREATE_IN.mode)), flags);
  if (created !== OK) return created;
  const told = replyEntry(call, OK);
  if (told !== OK) return told;
  const made = ops.attributes.node;
  const opened = ops.open(made, flags);
  if (opened === OK) return replyOpen(call, openFlags(ops), FUSE_ENTRY_OUT.BYTES);
  ops.remove(node, name);
  ops.forget(made, 1);
  return opened;
}

export function mknod(call: Call, node: NodeId): Errno {
  const { ops, request } = call;
  const name = request.name(FUSE_MKNOD_IN.BYTES);
  if (name === undefined) return EIO;
  const mode = request.u32(FUSE_MKNOD_IN.mode);
  if ((mode & S_IFMT) !== S_IFREG && (mode & S_IFMT) !== 0) return EPERM;
  return replyEntry(call, ops.create(node, name, newFile(call, mode), 0));
}

export function mkdir(call: Call, node: NodeId): Errno {
  const { ops, request } = call;
  const name = request.name(FUSE_MKDIR_IN.BYTES);
  if (name === undefined) return EIO;
  return replyEntry(call, ops.makeDirectory(node, name, newFile(call, request.u32(FUSE_MKDIR_IN.mode))));
}

function newFile({ request }: Call, mode: number): NewFile {
  return { mode: mode & PERMISSION_BITS, uid: request.uid, gid: request.gid };
}

export function unlink({ ops, request }: Call, node: NodeId): Errno {
  const name = request.name();
  return name === undefined ? EIO : ops.remove(node, name);
}

export function rmdir({ ops, request }: Call, node: NodeId): Errno {
  const name = request.name();
  return name === undefined ? EIO : ops.removeDirectory(node, name);
}

export function rename(call: Call, node: NodeId): Errno {
  return renameAt(call, node, call.request.u64(FUSE_RENAME_IN.newdir), 0, FUSE_RENAME_IN.BYTES);
}

export function rename2(call: Call, node: NodeId): Errno {
  const { request } = call;
  const flags = request.u32(FUSE_RENAME2_IN.flags);
  return renameAt(call, node, request.u64(FUSE_RENAME2_IN.newdir), flags, FUSE_RENAME2_IN.BYTES);
}

function renameAt({ ops, request }: Call, node: NodeId, newdir: number, flags: number, namesAt: number): Errno {
  const name = request.name(namesAt);
  const newName = name === undefined ? undefined : request.name(request.nameEnd);
  if (name === undefined || newName === undefined) return EIO;
  return ops.rename(node, name, newdir as NodeId, newName, flags);
}

export function forget({ ops, request }: Call, node: NodeId): typeof NO_REPLY {
  ops.forget(node, request.u64(FUSE_FORGET_IN.nlookup));
  return NO_REPLY;
}

export function batchForget({ ops, request }: Call): typeof NO_REPLY {
  const count = request.u32(FUSE_BATCH_FORGET_IN.count);
  let at: number = FUSE_BATCH_FORGET_IN.BYTES;
  for (let done = 0; done < count && at + FUSE_FORGET_ONE.BYTES <= request.argumentBytes; done++) {
    ops.forget(request.u64(at + FUSE_FORGET_ONE.nodeid) as NodeId, request.u64(at + FUSE_FORGET_ONE.nlookup));
    at += FUSE_FORGET_ONE.BYTES;
  }
  return NO_REPLY;
}

function replyAttributes(call: Call, errno: Errno): Errno {
  if (errno !== OK) return errno;
  const { ops, reply } = call;
  reply.u64(FUSE_ATTR_OUT.attr_valid, VALID_SECONDS);
  reply.u64(FUSE_ATTR_OUT.attr_valid_nsec, 0);
  reply.attributes(FUSE_ATTR_OUT.attr, ops.attributes);
  call.payloadBytes = FUSE_ATTR_OUT.BYTES;
  return OK;
}

export function getattr(call: Call, node: NodeId): Errno {
  return replyAttributes(call, call.ops.getAttributes(node));
}

export function setattr(call: Call, node: NodeId): Errno {
  const { request } = call;
  const valid = request.u32(FUSE_SETATTR_IN.valid);
  const change: AttributeChange = {};
  if (valid & FATTR.MODE) change.mode = request.u32(FUSE_SETATTR_IN.mode);
  if (valid & FATTR.UID) change.uid = request.u32(FUSE_SETATTR_IN.uid);
  if (valid & FATTR.GID) change.gid = request.u32(FUSE_SETATTR_IN.gid);
  if (valid & FATTR.SIZE) change.sizeBytes = request.u64(FUSE_SETATTR_IN.size);
  if (valid & FATTR.ATIME_NOW) change.atime = 'now';
  else if (valid & FATTR.ATIME) {
    change.atime = [request.i64(FUSE_SETATTR_IN.atime), request.u32(FUSE_SETATTR_IN.atimensec)];
  }
  if (valid & FATTR.MTIME_NOW) change.mtime = 'now';
  else if (valid & FATTR.MTIME) {
    change.mtime = [request.i64(FUSE_SETATTR_IN.mtime), request.u32(FUSE_SETATTR_IN.mtimensec)];
  }
  return replyAttributes(call, call.ops.setAttributes(node, change));
}

export function statfs(call: Call): Errno {
  const { reply } = call;
  const statistics = call.ops.statistics();
  reply.clear(FUSE_STATFS_OUT.BYTES);
  reply.u64(FUSE_STATFS_OUT.blocks, statistics.blocks);
  reply.u64(FUSE_STATFS_OUT.bfree, statistics.freeBlocks);
  reply.u64(FUSE_STATFS_OUT.bavail, statistics.freeBlocks);
  reply.u64(FUSE_STATFS_OUT.files, statistics.files);
  reply.u32(FUSE_STATFS_OUT.bsize, statistics.blockBytes);
  reply.u32(FUSE_STATFS_OUT.frsize, statistics.blockBytes);
  reply.u32(FUSE_STATFS_OUT.namelen, statistics.nameMax);
  call.payloadBytes = FUSE_STATFS_OUT.BYTES;
  return OK;
}

export function opendir(call: Call, node: NodeId): Errno {
  return call.ops.list(node, 0, 0) === undefined ? ENOTDIR : replyOpen(call, 0);
}

/** Bytes of an entry: FUSE_REC_ALIGN, entries start at multiples of 8. */
function entryBytes(nameBytes: number): number {
  return Math.ceil((FUSE_DIRENT.BYTES + nameBytes) / 8) * 8;
}

/** `offset` is the cookie of the entry before; an entry's own `off` is where the next call goes on. */
export function readdir(call: Call, node: NodeId): Errno {
  const { ops, reply, request } = call;
  const room = Math.min(request.u32(FUSE_READ_IN.size), reply.capacity);
  const entries = ops.list(node, request.u64(FUSE_READ_IN.offset), Math.floor(room / entryBytes(1)));
  if (entries === undefined) return ENOTDIR;
  let at = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name, 'utf8');
    const bytes = entryBytes(name.length);
    if (at + bytes > room) break;
    reply.u64(at + FUSE_DIRENT.ino, entry.node);
    reply.u64(at + FUSE_DIRENT.off, entry.cookie);
    reply.u32(at + FUSE_DIRENT.namelen, name.length);
    reply.u32(at + FUSE_DIRENT.type, entry.type);
    const nameAt = reply.payloadAt + at + FUSE_DIRENT.name;
    reply.bytes.set(name, nameAt);
    reply.bytes.fill(0, nameAt + name.length, reply.payloadAt + at + bytes);
    at += bytes;
  }
  call.payloadBytes = at;
  return OK;
}
