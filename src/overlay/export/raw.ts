/**
 * Exports a disk as a raw image: holes stay holes. In a command's process.
 */
import { ftruncateSync } from 'node:fs';
import { errnoOf } from '../../lib/errno.ts';
import { Copier, writeError } from './copy.ts';
import type { ExportSource, OnProgress } from './source.ts';

/**
 * Writes the image to an empty file.
 *
 * @param what the file is called in messages
 * @throws CowfsError that says what failed
 */
export function exportRaw(source: ExportSource, fd: number, what: string, onProgress: OnProgress): void {
  const { sizeBytes } = source;
  let total = 0;
  for (const { length } of dataOf(source)) total += length;
  let done = 0;
  const copier = new Copier(source, fd, what, (bytes) => {
    done += bytes;
    onProgress(done, total);
  });
  onProgress(0, total);
  try {
    ftruncateSync(fd, sizeBytes);
  } catch (error) {
    throw writeError(what, errnoOf(error));
  }
  for (const { offset, length } of dataOf(source)) copier.copy(offset, length, 0);
}

/** Ranges of a disk that are not holes, in ascending order. */
function* dataOf(source: ExportSource): Generator<{ readonly offset: number; readonly length: number }> {
  const end = source.sizeBytes;
  for (let at = source.nextData(0, end); at < end; ) {
    const hole = source.nextHole(at, end);
    yield { offset: at, length: hole - at };
    at = source.nextData(hole, end);
  }
}
