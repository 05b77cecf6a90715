/**
 * What stat(2) and statfs(2) say of directories, disks and the mount. Any thread.
 */
import { BLOCK_BYTES } from '../overlay/block.ts';
import type { Sessions } from '../overlay/sessions.ts';
import { SharedAttributes } from './attributes.ts';
import { touchIfWritten } from './file-times.ts';
import { type Inodes, KIND } from './inodes.ts';
import { NAME_MAX_BYTES, NO_NODE, type NodeId, ROOT_NODE, S_IFDIR, S_IFREG } from './node.ts';
import type { Attributes, Statistics } from './ops.ts';

const BLOCK_SECTORS = BLOCK_BYTES / 512;

/** @param session of the disk; the caller is inside of it */
export function fillDisk(into: Attributes, node: NodeId, inodes: Inodes, sessions: Sessions, session: number): void {
  const attributes = new SharedAttributes(inodes, node);
  const file = sessions.cloned.stats(session);
  const sizeBytes = file?.size ?? sessions.sizeBytes(session);
  if (file !== undefined) touchIfWritten(attributes, sessions, session, file);
  fill(into, node, attributes);
  into.mode = S_IFREG | attributes.mode;
  into.nlink = linksOf(inodes, node);
  into.sizeBytes = sizeBytes;
  // Never 0, which tar(1) takes for "all hole".
  into.blocks = sizeBytes === 0 ? 0 : Math.max(BLOCK_SECTORS, file?.blocks ?? sessions.occupiedBytesOf(session) / 512);
}

/** Names that an inode has; a file that was removed while it was open has none. */
export function linksOf(inodes: Inodes, node: NodeId): number {
  if (node !== ROOT_NODE && inodes.parent(node) === NO_NODE) return 0;
  return inodes.kind(node) === KIND.DIRECTORY ? 2 + (node === ROOT_NODE ? inodes.directories : 0) : 1;
}

/** @param links 2, and one for each directory in it */
export function fillDirectory(into: Attributes, node: NodeId, attributes: SharedAttributes, links: number): void {
  fill(into, node, attributes);
  into.mode = S_IFDIR | attributes.mode;
  into.nlink = links;
  into.sizeBytes = 0;
  into.blocks = 0;
}

function fill(into: Attributes, node: NodeId, attributes: SharedAttributes): void {
  into.node = node;
  into.uid = attributes.uid;
  into.gid = attributes.gid;
  into.atimeSeconds = attributes.seconds('ATIME');
  into.atimeNanoseconds = attributes.nanoseconds('ATIME');
  into.mtimeSeconds = attributes.seconds('MTIME');
  into.mtimeNanoseconds = attributes.nanoseconds('MTIME');
  into.ctimeSeconds = attributes.seconds('CTIME');
  into.ctimeNanoseconds = attributes.nanoseconds('CTIME');
}

/** What statfs(2) says. Room is what the store's file system has for us and the quota still allows. */
export function statisticsOf(inodes: Inodes, sessions: Sessions, maxStoreBytes: number | undefined): Statistics {
  const occupied = sessions.occupiedBytes;
  const quotaLeft = maxStoreBytes === undefined ? Number.POSITIVE_INFINITY : Math.max(0, maxStoreBytes - occupied);
  const freeBlocks = Math.floor(Math.min(sessions.freeBytes, quotaLeft) / BLOCK_BYTES);
  return {
    blockBytes: BLOCK_BYTES,
    blocks: freeBlocks + Math.ceil(occupied / BLOCK_BYTES),
    freeBlocks,
    files: inodes.count,
    nameMax: NAME_MAX_BYTES,
  };
}

export function emptyAttributes(): Attributes {
  return {
    node: ROOT_NODE,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    blocks: 0,
    atimeSeconds: 0,
    atimeNanoseconds: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    ctimeSeconds: 0,
    ctimeNanoseconds: 0,
  };
}
