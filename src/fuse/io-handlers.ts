/**
 * Handlers of requests on open files: from structures to `FsOps` and back. READ and WRITE are the hot path: they
 * allocate nothing.
 */
import { isSynchronous } from '../fs/handle-kinds.ts';
import type { NodeId } from '../fs/node.ts';
import type { FsOps } from '../fs/ops.ts';
import { EINVAL, EIO, ENOSYS, ENXIO, type Errno, isNoSpace, OK } from '../lib/errno.ts';
import {
  FOPEN,
  FUSE_FALLOCATE_IN,
  FUSE_IN_HEADER,
  FUSE_LSEEK_IN,
  FUSE_LSEEK_OUT,
  FUSE_OPEN_IN,
  FUSE_OPEN_OUT,
  FUSE_READ_IN,
  FUSE_RELEASE_IN,
  FUSE_WRITE_CACHE,
  FUSE_WRITE_IN,
  FUSE_WRITE_OUT,
} from './abi.ts';
import { type Call, NO_REPLY } from './call.ts';

/**
 * The reply to OPEN and OPENDIR.
 *
 * @param at where it starts in the payload: behind an entry for CREATE
 * @param handle what the kernel names in requests on it
 */
export function replyOpen(call: Call, openFlags: number, at = 0, handle = 0): Errno {
  call.reply.u64(at + FUSE_OPEN_OUT.fh, handle);
  call.reply.u32(at + FUSE_OPEN_OUT.open_flags, openFlags);
  call.reply.u32(at + FUSE_OPEN_OUT.backing_id, (openFlags & FOPEN.PASSTHROUGH) === 0 ? 0 : call.ops.backingFile);
  call.payloadBytes = at + FUSE_OPEN_OUT.BYTES;
  return OK;
}

/**
 * For O_DIRECT a handle beside the page cache, whose writers share the inode's lock: 16 jobs of 4k random writes make
 * 72k to 95k IOPS on such handles, 16k on cached ones. The cache is kept all the same, unless it is stale: dropping it
 * at an open waits for every page that is being written back.
 *
 * What the kernel reads and writes by itself it does for O_DIRECT, too. Such writers could be served here (FOPEN_DIRECT_IO
 * beside FOPEN_PASSTHROUGH), past the lock under which the kernel passes on one write at a time, into the page cache. On XFS
 * in memory that makes 36k IOPS of 17k with one job of random first writes, 53k of 17k with 16; but the same handles then
 * read at 18k of 37k, and 36k of 105k, write 1M at 1.9 of 3.9 GB/s, and mix 70/30 at 22k of 28k. So it is not done.
 */
export function openFlags({ backingFile, direct, keepCache }: FsOps): number {
  if (backingFile > 0) return FOPEN.PASSTHROUGH;
  return (direct ? FOPEN.DIRECT_IO | FOPEN.PARALLEL_DIRECT_WRITES : 0) | (keepCache ? FOPEN.KEEP_CACHE : 0);
}

export function open(call: Call, node: NodeId): Errno | typeof NO_REPLY {
  const { ops, request } = call;
  const errno = ops.open(node, request.u32(FUSE_OPEN_IN.flags));
  if (errno !== OK) return errno;
  if (!ops.isGenerated(node)) return replyOpen(call, openFlags(ops));
  const { uniqueLow, uniqueHigh } = request;
  call.defer({ kind: 'generate', uniqueLow, uniqueHigh, node });
  return NO_REPLY;
}

export function release(call: Call, node: NodeId): Errno | typeof NO_REPLY {
  const { ops, request } = call;
  if (ops.isGenerated(node)) {
    const { uniqueLow, uniqueHigh } = request;
    call.defer({ kind: 'generated-release', uniqueLow, uniqueHigh, node, handle: request.u64(FUSE_RELEASE_IN.fh) });
    return NO_REPLY;
  }
  ops.release(node, request.u32(FUSE_RELEASE_IN.flags));
  return OK;
}

export function read(call: Call, node: NodeId): Errno | typeof NO_REPLY {
  const { ops, reply, request } = call;
  const length = request.u32(FUSE_READ_IN.size);
  if (length > reply.capacity) return EINVAL;
  const offset = request.u64(FUSE_READ_IN.offset);
  if (ops.isGenerated(node)) {
    const { uniqueLow, uniqueHigh } = request;
    const handle = request.u64(FUSE_READ_IN.fh);
    call.defer({ kind: 'generated-read', uniqueLow, uniqueHigh, node, handle, offset, length });
    return NO_REPLY;
  }
  const errno = ops.read(node, offset, length, reply.bytes, reply.payloadAt);
  if (errno !== OK) return errno;
  // Short, so it reaches past our end, which may not be the kernel's.
  if (ops.transferred < length && ops.readNeedsKernelSize(node, offset + length, request.u32(FUSE_READ_IN.flags))) {
    const { uniqueLow, uniqueHigh } = request;
    call.defer({ kind: 'read', uniqueLow, uniqueHigh, node, offset, length });
    return NO_REPLY;
  }
  call.payloadBytes = ops.transferred;
  call.movedBytes = ops.transferred;
  return OK;
}

export function write(call: Call, node: NodeId): Errno | typeof NO_REPLY {
  const { ops, reply, request } = call;
  const size = request.u32(FUSE_WRITE_IN.size);
  if (size > request.argumentBytes - FUSE_WRITE_IN.BYTES) return EIO;
  const offset = request.u64(FUSE_WRITE_IN.offset);
  const at = FUSE_IN_HEADER.BYTES + FUSE_WRITE_IN.BYTES;
  const errno = ops.write(node, offset, size, request.bytes, at);
  const done = ops.transferred;
  call.movedBytes = done;
  if (done < size && (request.u32(FUSE_WRITE_IN.write_flags) & FUSE_WRITE_CACHE) !== 0) {
    if (!isNoSpace(errno)) return errno;
    // The kernel took this data from its writer already; an error now would lose it.
    const { uniqueLow, uniqueHigh } = request;
    call.hold({
      uniqueLow,
      uniqueHigh,
      node,
      offset,
      data: Uint8Array.from(request.bytes.subarray(at, at + size)),
    });
    return NO_REPLY;
  }
  if (errno !== OK && done === 0) return errno;
  // Writes past the page cache are not followed by an FSYNC (fs/fuse/file.c, fuse_direct_write_iter).
  if (isSynchronous(request.u32(FUSE_WRITE_IN.flags))) {
    const synced = ops.sync(node);
    if (synced !== OK && synced !== ENOSYS) return synced;
  }
  reply.u64(FUSE_WRITE_OUT.size, done);
  call.payloadBytes = FUSE_WRITE_OUT.BYTES;
  return OK;
}

export function fallocate(call: Call, node: NodeId): Errno {
  const { request } = call;
  return call.ops.allocate(
    node,
    request.u32(FUSE_FALLOCATE_IN.mode),
    request.u64(FUSE_FALLOCATE_IN.offset),
    request.u64(FUSE_FALLOCATE_IN.length),
  );
}

export function lseek(call: Call, node: NodeId): Errno | typeof NO_REPLY {
  const { ops, reply, request } = call;
  const offset = request.u64(FUSE_LSEEK_IN.offset);
  const whence = request.u32(FUSE_LSEEK_IN.whence);
  if (offset === Number.POSITIVE_INFINITY) return ENXIO;
  if (ops.seekNeedsKernelSize(node, offset, whence)) {
    const { uniqueLow, uniqueHigh } = request;
    call.defer({ kind: 'seek', uniqueLow, uniqueHigh, node, offset, whence });
    return NO_REPLY;
  }
  const errno = ops.seek(node, offset, whence);
  if (errno !== OK) return errno;
  reply.u64(FUSE_LSEEK_OUT.offset, ops.found);
  call.payloadBytes = FUSE_LSEEK_OUT.BYTES;
  return OK;
}
