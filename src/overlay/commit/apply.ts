/**
 * Writes a redo log into its base, and clears away after it. Doing it twice does no harm, nor does being killed in
 * between: that is what the log is for. In a command's process, or a daemon's before it mounts; nobody else uses the base.
 */
import { closeSync, fstatSync, fsyncSync, ftruncateSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { Base } from '../../base/base.ts';
import type { OpenedBase } from '../../base/open.ts';
import { ENOSPC, EOPNOTSUPP, errnoName, errnoOf, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { FALLOC_FL_KEEP_SIZE, fallocate } from '../../sys/libc.ts';
import { syncDirectory } from '../../sys/unnamed-file.ts';
import { BLOCK_BYTES, STORE, ZERO } from '../block.ts';
import { Copier, writeError, zeroRange } from '../export/copy.ts';
import { differencesOf, type ExportSource } from '../export/source.ts';
import { LayerStack } from '../export/stack.ts';
import { identityOf } from '../file/identity.ts';
import type { Origin } from '../file/layout.ts';
import { loadMap, specOf } from '../file/load.ts';
import { type OpenedOverlay, openOverlay, overlayExists } from '../file/open.ts';
import { OverlayFile } from '../file/overlay-file.ts';
import { markApplied } from './redo-log.ts';

/** Room that file systems want for themselves. */
const SPARE_BYTES = 1024 * 1024;

/** Bytes that applying has to move. */
export function differenceBytes(source: ExportSource): number {
  let bytes = 0;
  for (const { first, count, state } of differencesOf(source)) {
    if (state === STORE) bytes += Math.min(count * BLOCK_BYTES, source.sizeBytes - first * BLOCK_BYTES);
  }
  return bytes;
}

/**
 * Sets room aside in the base for what will be written there, so that it does not run out half-way; its content stays.
 * File systems that write elsewhere anyway (btrfs; XFS where blocks are shared) promise less.
 *
 * @throws CowfsError of kind `missing` when there is none
 */
function reserveRoom(source: ExportSource, base: OpenedBase, fd: number): void {
  eachHole(source, base, (offset, length) => reserve(base.path, fd, offset, length));
}

/**
 * Looks whether there will be room for that, and changes nothing, not even a time.
 *
 * @throws CowfsError of kind `missing` when there is none
 */
export function checkRoom(source: ExportSource, base: OpenedBase, fd: number): void {
  let needed = 0;
  eachHole(source, base, (_offset, length) => {
    needed += length;
  });
  const { bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  if (needed > 0 && needed + needed / 128 + SPARE_BYTES > bavail * bsize) throw writeError(base.path, ENOSPC);
}

/** Parts of the base that have no space yet and will be written to. */
function eachHole(source: ExportSource, base: OpenedBase, found: (offset: number, length: number) => void): void {
  const shown = new Base(base.descriptor);
  for (const { first, count, state } of differencesOf(source)) {
    if (state !== STORE) continue;
    const offset = first * BLOCK_BYTES;
    const end = Math.min(offset + count * BLOCK_BYTES, source.sizeBytes);
    const inside = Math.min(end, shown.sizeBytes);
    for (let at = offset; at < inside; ) {
      const hole = shown.nextHole(at, inside);
      at = hole < inside ? shown.nextData(hole, inside) : inside;
      if (hole < at) found(hole, at - hole);
    }
    if (end > inside) found(Math.max(offset, inside), end - Math.max(offset, inside));
  }
}

function reserve(path: string, fd: number, offset: number, length: number): void {
  const errno = fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length);
  if (errno !== OK && errno !== EOPNOTSUPP) throw writeError(path, errno);
}

/**
 * Brings a log that has its name to its end: the base has all of it, the overlay that it came from is empty, the log is
 * gone.
 *
 * @param fd the base's, open for writing
 * @param base the same file, as it was opened for reading
 * @param origin the overlay that the log came from, if the caller has it open
 * @throws CowfsError; then the log is still there, for the next try
 */
export function applyRedoLog(
  log: OpenedOverlay,
  base: OpenedBase,
  fd: number,
  moved: (bytes: number) => void,
  origin?: OpenedOverlay,
): void {
  if (!log.header.applied) {
    writeBase(log, base, fd, moved);
    const errno = markApplied(log);
    if (errno !== OK) throw writeError(`redo log ${log.path}`, errno);
    fsyncSync(log.fd);
  }
  if (log.header.origin !== undefined) emptyOrigin(log.header.origin, base, origin);
  unlinkSync(log.path);
  syncDirectory(dirname(log.path));
}

function writeBase(log: OpenedOverlay, base: OpenedBase, fd: number, moved: (bytes: number) => void): void {
  const { path } = base;
  const { diskBytes: sizeBytes } = log.header;
  const stack = new LayerStack(base.descriptor);
  const layer = stack.pushFile(log);
  loadMap(log, specOf(log), layer.map, 'read');
  const before = fstatSync(fd).size;
  try {
    reserveRoom(layer, base, fd);
    if (sizeBytes > before) ftruncateSync(fd, sizeBytes);
    const copier = new Copier(layer, fd, path, moved);
    for (let block = 0; block < layer.map.blocks; ) {
      const run = layer.map.runAt(block, layer.map.blocks - block);
      const offset = block * BLOCK_BYTES;
      const length = Math.min(run * BLOCK_BYTES, Math.max(0, sizeBytes - offset));
      if (layer.map.runState === STORE && length > 0) copier.copy(offset, length, 0);
      else if (layer.map.runState === ZERO && length > 0) zeroRange(fd, offset, length, path);
      block += run;
    }
    if (sizeBytes < before) ftruncateSync(fd, sizeBytes);
    fsyncSync(fd);
  } catch (error) {
    const reason = error instanceof CowfsError ? error.message : writeError(path, errnoOf(error)).message;
    throw new CowfsError(
      'failed',
      `${reason}; ${path} is half written: mend that, and any cowfs command on it will finish the commit`,
      error,
    );
  }
}

/** Only as it was when the log was made: what came since is not in the base. */
function emptyOrigin({ path, id, generation }: Origin, base: OpenedBase, given: OpenedOverlay | undefined): void {
  if (given === undefined && !overlayExists(path)) return;
  const opened = given ?? openOrigin(path);
  if (opened === undefined) return;
  try {
    const { header } = opened;
    if (Buffer.compare(header.id, id) !== 0 || header.generation !== generation) return;
    const now = identityOf({
      ...base,
      descriptor: { ...base.descriptor, sizeBytes: fstatSync(base.descriptor.fd).size },
    });
    const spec = specOf(opened);
    const file = new OverlayFile(spec);
    const stack = new LayerStack({ ...base.descriptor, sizeBytes: now.sizeBytes }, file);
    const layer = stack.pushFile(opened);
    // Its generation stays until it is empty: by that it is known.
    loadMap(opened, spec, layer.map, 'mend');
    let errno = file.empty(stack.top, () => stack.clear(now.sizeBytes), now);
    if (errno === OK) errno = file.finish(stack.top);
    if (errno !== OK) throw new CowfsError('failed', `overlay ${path} cannot be emptied (${errnoName(errno)})`);
  } finally {
    if (given === undefined) closeSync(opened.fd);
  }
}

/** Undefined for something else that has taken its place. */
function openOrigin(path: string): OpenedOverlay | undefined {
  try {
    return openOverlay(path, 'overlay', 'write');
  } catch (error) {
    if (error instanceof CowfsError && error.kind === 'usage') return undefined;
    throw error;
  }
}
