/**
 * A copy of what a kept disk has, for whoever reads it as a whole while the disk goes on: shares the blocks where the file
 * system can, and is copied where that takes a moment. Main thread of the daemon, while nobody is in the session.
 */
import { closeSync } from 'node:fs';
import { OK } from '../../lib/errno.ts';
import { reasonOf } from '../../lib/error.ts';
import { copyFileRange } from '../../sys/libc.ts';
import { cloneInto } from '../../sys/reflink.ts';
import { openUnnamed } from '../../sys/unnamed-file.ts';
import { BLOCK_BYTES, STORE } from '../block.ts';
import type { Layer } from '../layer.ts';

/** What is copied while the disk waits: some tenths of a second. */
const MOST_COPIED_BYTES = 256 * 1024 * 1024;

/**
 * @param directory of the overlay file
 * @param layer that it keeps
 * @returns a descriptor of a file without a name that has the same data at the same place, or why there is none
 */
export function cloneStore(directory: string, layer: Layer, writtenBytes: number): number | string {
  let fd: number;
  try {
    fd = openUnnamed(directory);
  } catch (error) {
    return reasonOf(error);
  }
  if (cloneInto(layer.store.fd, fd) === OK) return fd;
  const reason = writtenBytes > MOST_COPIED_BYTES ? 'its file system cannot share blocks' : copyBlocks(layer, fd);
  if (reason === undefined) return fd;
  closeSync(fd);
  return reason;
}

function copyBlocks({ map, store }: Layer, to: number): string | undefined {
  for (let block = 0; block < map.blocks; ) {
    const run = map.runAt(block, map.blocks - block);
    const end = store.origin + (block + run) * BLOCK_BYTES;
    if (map.runState === STORE) {
      for (let at = store.origin + block * BLOCK_BYTES; at < end; ) {
        const copied = copyFileRange(store.fd, at, to, at, end - at);
        // The last block of a disk may be shorter in the file.
        if (copied === 0) break;
        if (copied < 0) return 'it could not be copied there';
        at += copied;
      }
    }
    block += run;
  }
  return undefined;
}
