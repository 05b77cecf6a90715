/**
 * Handlers of requests about names, attributes and directories: from structures to `FsOps` and back.
 */
import type { NodeId } from '../fs/node.ts';
import type { AttributeChange } from '../fs/ops.ts';
import { EIO, ENOENT, ENOTDIR, type Errno, OK } from '../lib/errno.ts';
import {
  FATTR,
  FUSE_ATTR_OUT,
  FUSE_DIRENT,
  FUSE_ENTRY_OUT,
  FUSE_READ_IN,
  FUSE_SETATTR_IN,
  FUSE_STATFS_OUT,
} from './abi.ts';
import type { Call } from './call.ts';
import { replyOpen } from './io-handlers.ts';

/**
 * Seconds that the kernel may trust names and attributes. Short, although only the kernel changes them: it revalidates
 * before a cached write, so a write into a mount whose daemon died fails within this time and not at the next fsync.
 */
const VALID_SECONDS = 1;

export function lookup(call: Call, node: NodeId): Errno {
  const name = call.request.name();
  if (name === undefined) return EIO;
  const errno = call.ops.lookup(node, name);
  if (errno !== OK) return errno;
  const { ops, reply } = call;
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
  return call.ops.list(node) === undefined ? ENOTDIR : replyOpen(call, 0);
}

/** `offset` counts entries; the entry's own `off` is where the next call goes on. */
export function readdir(call: Call, node: NodeId): Errno {
  const { ops, reply, request } = call;
  const entries = ops.list(node);
  if (entries === undefined) return ENOTDIR;
  const room = Math.min(request.u32(FUSE_READ_IN.size), reply.capacity);
  const first = request.u64(FUSE_READ_IN.offset);
  let at = 0;
  for (let index = first; index < entries.length; index++) {
    const entry = entries[index];
    if (entry === undefined) return ENOENT;
    const name = Buffer.from(entry.name, 'utf8');
    // FUSE_REC_ALIGN: entries start at multiples of 8.
    const bytes = Math.ceil((FUSE_DIRENT.BYTES + name.length) / 8) * 8;
    if (at + bytes > room) break;
    reply.u64(at + FUSE_DIRENT.ino, entry.node);
    reply.u64(at + FUSE_DIRENT.off, index + 1);
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
