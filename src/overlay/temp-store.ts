/**
 * Opens the temporary store: a file that never has a name that anybody else could open, of mode 0600, whose space the
 * kernel takes back however the daemon ends. Main thread before the mount; any thread that serves afterwards.
 */
import { closeSync, ftruncateSync, realpathSync, statSync, writeSync } from 'node:fs';
import { errnoOf, isNoSpace } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { openUnnamed } from '../sys/unnamed-file.ts';
import { BLOCK_BYTES } from './block.ts';

/** `--store`, else `$TMPDIR`, else /var/tmp; taken as given, never replaced by another place. */
export function storeDirectory(option: string | undefined): string {
  return option ?? (process.env['TMPDIR'] || '/var/tmp');
}

/**
 * @returns a read-write descriptor of an empty file
 * @throws CowfsError naming the directory: missing, not writable, full
 */
export function openTempStore(directory: string): number {
  checkDirectory(directory);
  let fd: number;
  try {
    fd = openUnnamed(directory);
  } catch (error) {
    throw storeError(directory, error);
  }
  try {
    // A full file system still gives out empty files: find out now, not at the guest's first write.
    writeSync(fd, new Uint8Array(BLOCK_BYTES), 0, BLOCK_BYTES, 0);
    ftruncateSync(fd, 0);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw storeError(directory, error);
  }
}

/** @throws CowfsError of kind `usage` for what is no directory */
export function checkDirectory(directory: string): void {
  try {
    if (statSync(realpathSync(directory)).isDirectory()) return;
  } catch (error) {
    throw storeError(directory, error);
  }
  throw new CowfsError('usage', `store ${directory} is not a directory; give one with --store`);
}

function storeError(directory: string, error: unknown): CowfsError {
  if (isNoSpace(errnoOf(error))) {
    return new CowfsError('missing', `store ${directory} is full; make room there or give another with --store`, error);
  }
  return new CowfsError(
    'usage',
    `store ${directory}: ${reasonOf(error)}; give a writable directory with --store`,
    error,
  );
}
