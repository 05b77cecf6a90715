/**
 * `struct stat`, `struct statvfs` and times as fuse-native carries them: whole milliseconds, 32 bits for what is no size.
 */
import type { Attributes, Statistics } from '../../fs/ops.ts';
import { BLOCK_BYTES } from '../../overlay/block.ts';
import type { Stat, Statvfs } from './addon.ts';

const UINT32_MAX = 2 ** 32 - 1;

export function toStat(from: Attributes): Stat {
  return {
    mode: from.mode,
    uid: from.uid,
    gid: from.gid,
    size: from.sizeBytes,
    nlink: from.nlink,
    ino: from.node,
    blksize: BLOCK_BYTES,
    blocks: from.blocks,
    atime: toMs(from.atimeSeconds, from.atimeNanoseconds),
    mtime: toMs(from.mtimeSeconds, from.mtimeNanoseconds),
    ctime: toMs(from.ctimeSeconds, from.ctimeNanoseconds),
  };
}

/** In blocks so large that their number fits: from 16 TiB on of more than 4 KiB. */
export function toStatvfs({ blockBytes, blocks, freeBlocks, files, nameMax }: Statistics): Statvfs {
  let scale = 1;
  while (blocks / scale > UINT32_MAX) scale *= 2;
  const free = Math.floor(freeBlocks / scale);
  return {
    bsize: blockBytes * scale,
    frsize: blockBytes * scale,
    blocks: Math.floor(blocks / scale),
    bfree: free,
    bavail: free,
    files,
    ffree: 0,
    favail: 0,
    namemax: nameMax,
  };
}

/** None before 1970: the addon takes them for unsigned. */
function toMs(seconds: number, nanoseconds: number): number {
  return Math.max(0, seconds * 1000 + Math.floor(nanoseconds / 1e6));
}

export function toTime(milliseconds: number): readonly [seconds: number, nanoseconds: number] {
  const seconds = Math.floor(milliseconds / 1000);
  return [seconds, (milliseconds - seconds * 1000) * 1e6];
}
