/**
 * Brings the map of an overlay file into memory, and clears away what a crash left of writes that were never synced. Main
 * thread of a daemon before the mount, or a command.
 */
import { fstatSync } from 'node:fs';
import { EINVAL, ENXIO, type Errno, errnoName, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { writeAll } from '../../sys/file-bytes.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  lseek,
  lseekResult,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../sys/libc.ts';
import { BLOCK_BYTES, RESERVED, STORE } from '../block.ts';
import type { BlockMap } from '../map.ts';
import { KEPT, KEPT_NUMBERS, KeptMemory } from './kept-memory.ts';
import { LEAF_WORDS, PAGE_BYTES, PAGE_LEAVES, pageOffset } from './layout.ts';
import { type OpenedOverlay, trimTo } from './open.ts';
import type { OverlayFileSpec } from './overlay-file.ts';
import { MapReader, type PageSlots } from './slots.ts';

const NO_DIRECTORY = -1;

/**
 * What all threads will share of it.
 *
 * @param directoryFd of its directory, where room is asked for
 */
export function specOf({ fd, header }: OpenedOverlay, directoryFd = NO_DIRECTORY): OverlayFileSpec {
  return { fd, directoryFd, header, memory: KeptMemory.create(header.mapPages) };
}

/**
 * Fills a map that nobody uses yet, and puts in order what a crash left, if the file is open for writing.
 *
 * @throws CowfsError of kind `failed` when the file is damaged; then the map counts for nothing
 */
export function loadMap(opened: OpenedOverlay, spec: OverlayFileSpec, map: BlockMap): void {
  const { path, header, writable } = opened;
  const { leftovers, isWhole } = readMap(opened, new KeptMemory(spec.memory, header.mapPages), map);
  if (!isWhole) {
    throw new CowfsError(
      'failed',
      `overlay ${path} is damaged: its map is not what its header says; \`cowfs check ${path}\` shows where`,
    );
  }
  const missing = missingBytes(opened, map);
  if (missing > 0) {
    throw new CowfsError(
      'failed',
      `overlay ${path} is damaged: ${missing} bytes are missing at its end; restore it from a copy`,
    );
  }
  if (!writable) return;
  clearSlots(opened, leftovers);
  if (!header.clean || leftovers.length > 0) clearData(opened, map);
}

export interface MapFindings {
  /** Offsets of slots that are not in force and not whole. */
  readonly leftovers: readonly number[];
  /** Whether the pages in force are those that the header tells of. */
  readonly isWhole: boolean;
}

/**
 * Reads all pages that are in force.
 *
 * @param visit is told of each page that was ever written; it may fill the map where nothing is in force
 * @throws CowfsError of kind `failed` when the file cannot be read
 */
export function readMap(
  { path, fd, header }: OpenedOverlay,
  memory: KeptMemory,
  map: BlockMap,
  visit: (slots: PageSlots) => void = () => {},
): MapFindings {
  const reader = new MapReader(path, fd, header);
  const leftovers: number[] = [];
  let digest = 0;
  let inForce = 0;
  for (let slots = reader.next(); slots !== undefined; slots = reader.next()) {
    const { index, states } = slots;
    for (const slot of [0, 1] as const) {
      if (states[slot] === 'younger' || states[slot] === 'damaged') leftovers.push(pageOffset(index, slot));
    }
    visit(slots);
    if (slots.inForce === undefined) continue;
    const page = reader.pages[slots.inForce];
    for (let leaf = 0; leaf < PAGE_LEAVES; leaf++) {
      map.loadLeaf(index * PAGE_LEAVES + leaf, page.words, leaf * LEAF_WORDS);
    }
    digest ^= page.checksum;
    inForce += 1;
    memory.set('inForce', index, true);
    memory.set('slot', index, slots.inForce === 1);
    memory.set('touched', index, !slots.equal);
    memory.setChecksum(index, page.checksum);
  }
  const { words, numbers } = memory;
  Atomics.store(words, KEPT.DIGEST, digest);
  Atomics.store(words, KEPT.PAGES_IN_FORCE, inForce);
  numbers[KEPT_NUMBERS.GENERATION] = header.generation;
  numbers[KEPT_NUMBERS.DISK_BYTES] = header.diskBytes;
  numbers[KEPT_NUMBERS.BACKING_LIMIT] = header.backingLimit;
  // A write that grew the disk had not come to its end.
  map.clearFrom(Math.ceil(header.diskBytes / BLOCK_BYTES));
  return { leftovers, isWhole: digest === header.digest && inForce === header.pagesInForce };
}

/** Bytes of data that the map tells of and the file has not: they would read as zeros. */
export function missingBytes({ fd, header }: OpenedOverlay, map: BlockMap): number {
  const last = lastWritten(map);
  const end = header.dataOffset + Math.min(header.diskBytes, last * BLOCK_BYTES);
  return last === 0 ? 0 : Math.max(0, end - fstatSync(fd).size);
}

/** The block after the last one whose content is in the file. */
function lastWritten(map: BlockMap): number {
  let last = 0;
  for (let block = 0; block < map.blocks; ) {
    const run = map.runAt(block, map.blocks - block);
    block += run;
    if (map.runState === STORE) last = block;
  }
  return last;
}

/** A sync that did not come to its end must not come to one later. */
export function clearSlots({ path, fd }: OpenedOverlay, offsets: readonly number[]): void {
  const zeros = Buffer.alloc(PAGE_BYTES);
  for (const offset of offsets) checkWritten(path, writeAll(fd, offset, PAGE_BYTES, zeros, 0));
}

/** Gives back the space of data that the map does not tell of: writes that were never synced. */
export function clearData(opened: OpenedOverlay, map: BlockMap): void {
  const { fd, header } = opened;
  const { dataOffset, diskBytes } = header;
  trimTo(fd, dataOffset + diskBytes);
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  for (const { first, count } of unmappedData(opened, map)) {
    // Where holes cannot be made the space stays taken: no harm.
    fallocate(fd, mode, dataOffset + first * BLOCK_BYTES, count * BLOCK_BYTES);
  }
}

/** Blocks that take space in the file and that the map does not tell of. */
export function* unmappedData(
  { path, fd, header }: OpenedOverlay,
  map: BlockMap,
): Generator<{ readonly first: number; readonly count: number }> {
  const { dataOffset } = header;
  const end = fstatSync(fd).size;
  for (let offset = dataOffset; offset < end; ) {
    const errno = lseek(fd, offset, SEEK_DATA);
    if (errno === ENXIO || errno === EINVAL) return;
    checkWritten(path, errno);
    const from = lseekResult();
    checkWritten(path, lseek(fd, from, SEEK_HOLE));
    offset = lseekResult();
    const endBlock = Math.ceil((offset - dataOffset) / BLOCK_BYTES);
    for (let block = Math.floor((from - dataOffset) / BLOCK_BYTES); block < endBlock; ) {
      const run = map.runAt(block, endBlock - block);
      if (map.runState !== STORE && map.runState !== RESERVED) yield { first: block, count: run };
      block += run;
    }
  }
}

function checkWritten(path: string, errno: Errno): void {
  if (errno !== OK) throw new CowfsError('failed', `overlay ${path} cannot be brought in order (${errnoName(errno)})`);
}
