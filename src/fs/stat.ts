/**
 * What stat(2) says of the root directory and of a disk. Pure, but for the block count that it asks the host for.
 */
import { BLOCK_BYTES } from '../overlay/block.ts';
import type { DiskFile } from './disk-file.ts';
import { type NodeId, ROOT_NODE, S_IFDIR, S_IFREG } from './node.ts';
import type { Attributes } from './ops.ts';
import type { CowFsOptions } from './options.ts';

const BLOCK_SECTORS = BLOCK_BYTES / 512;

export function fillDisk(into: Attributes, node: NodeId, file: DiskFile): void {
  const { attributes, disk, store, baseBlocks } = file;
  into.node = node;
  into.mode = S_IFREG | attributes.mode;
  into.nlink = 1;
  into.uid = attributes.uid;
  into.gid = attributes.gid;
  into.sizeBytes = disk.sizeBytes;
  // As a copy of the base would take. Not 0, which tar(1) takes for "all hole" while the kernel still holds data.
  const copied = Math.min(baseBlocks + store.usedBytes / 512, Math.ceil(disk.sizeBytes / BLOCK_BYTES) * BLOCK_SECTORS);
  into.blocks = disk.sizeBytes === 0 ? 0 : Math.max(BLOCK_SECTORS, copied);
  into.atimeSeconds = attributes.seconds('ATIME');
  into.atimeNanoseconds = attributes.nanoseconds('ATIME');
  into.mtimeSeconds = attributes.seconds('MTIME');
  into.mtimeNanoseconds = attributes.nanoseconds('MTIME');
  into.ctimeSeconds = attributes.seconds('CTIME');
  into.ctimeNanoseconds = attributes.nanoseconds('CTIME');
}

export function fillRoot(into: Attributes, { uid, gid, allowOther, mountedAtMs }: CowFsOptions): void {
  const seconds = Math.floor(mountedAtMs / 1000);
  into.node = ROOT_NODE;
  into.mode = S_IFDIR | (allowOther ? 0o755 : 0o700);
  into.nlink = 2;
  into.uid = uid;
  into.gid = gid;
  into.sizeBytes = 0;
  into.blocks = 0;
  into.atimeSeconds = into.mtimeSeconds = into.ctimeSeconds = seconds;
  into.atimeNanoseconds = into.mtimeNanoseconds = into.ctimeNanoseconds = 0;
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
