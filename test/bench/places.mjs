/**
 * Where it is measured: directories that are there, and for clones a file system that shares blocks, made in memory.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { hasProgram, must } from './subjects.mjs';

/** In place of a directory: XFS on a loop device over a file in memory. */
export const XFS = 'xfs';
const XFS_GIB = 8;

/** Why there can be no XFS here; undefined if there can. */
function againstXfs() {
  if (process.getuid() !== 0) return 'for want of root';
  return hasProgram('mkfs.xfs') ? undefined : 'for want of mkfs.xfs';
}

export function defaultPlaces(say) {
  const reason = againstXfs();
  if (reason !== undefined) say(`left out: XFS, ${reason}`);
  return ['/dev/shm', '/var/tmp', ...(reason === undefined ? [XFS] : [])];
}

/** Runs `use` in a directory of that place. */
export async function inPlace(place, use) {
  const root = fs.mkdtempSync(join(place === XFS ? '/dev/shm' : place, 'cowfs-bench-'));
  try {
    return await (place === XFS ? onXfs(root, use) : use(root));
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
}

async function onXfs(root, use) {
  const [image, mountpoint] = [join(root, 'xfs.img'), join(root, 'xfs')];
  fs.writeFileSync(image, '');
  fs.truncateSync(image, XFS_GIB * 2 ** 30);
  fs.mkdirSync(mountpoint);
  must('mkfs.xfs', ['-q', image]);
  must('mount', ['-o', 'loop', image, mountpoint]);
  try {
    return await use(mountpoint);
  } finally {
    must('umount', [mountpoint]);
  }
}
