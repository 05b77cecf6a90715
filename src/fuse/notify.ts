/**
 * Messages to the kernel that nobody asked for (`enum fuse_notify_code`). Bytes only; the caller writes them, and must
 * not be the last thread that could serve what the kernel sends before the write returns.
 */
import type { NodeId } from '../fs/node.ts';
import { FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_INODE_OUT, FUSE_OUT_HEADER } from './abi.ts';
import { ReplyWriter } from './reply.ts';

/**
 * Drops the cached pages of a node from `offset` on; dirty ones are written back first, while the caller waits in
 * write(2) (fs/fuse/inode.c, fuse_reverse_inval_inode).
 */
export function invalidateInodeFrom(node: NodeId, offset: number): Uint8Array {
  const bytes = new Uint8Array(FUSE_OUT_HEADER.BYTES + FUSE_NOTIFY_INVAL_INODE_OUT.BYTES);
  const message = new ReplyWriter(bytes);
  message.u64(FUSE_NOTIFY_INVAL_INODE_OUT.ino, node);
  message.u64(FUSE_NOTIFY_INVAL_INODE_OUT.off, offset);
  // 0 or less: to the end.
  message.u64(FUSE_NOTIFY_INVAL_INODE_OUT.len, 0);
  message.finishNotify(FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_INODE_OUT.BYTES);
  return bytes;
}
