/**
 * What stat(2) says of directories and disks. Pure.
 */
import { BLOCK_BYTES } from '../overlay/block.ts';
import type { SharedAttributes } from './attributes.ts';
import { type NodeId, ROOT_NODE, S_IFDIR, S_IFREG } from './node.ts';
import type { Attributes } from './ops.ts';

const BLOCK_SECTORS = BLOCK_BYTES / 512;

export interface DiskStat {
  readonly sizeBytes: number;
  /** Bytes that it takes in the store. */
  readonly occupiedBytes: number;
  /** Names that it has; a file that was removed while it was open has none. */
  readonly links: number;
}

export function fillDisk(
  into: Attributes,
  node: NodeId,
  attributes: SharedAttributes,
  { sizeBytes, occupiedBytes, links }: DiskStat,
): void {
  fill(into, node, attributes);
  into.mode = S_IFREG | attributes.mode;
  into.nlink = links;
  into.sizeBytes = sizeBytes;
  // Never 0, which tar(1) takes for "all hole".
  into.blocks = sizeBytes === 0 ? 0 : Math.max(BLOCK_SECTORS, occupiedBytes / 512);
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
