/**
 * Brings the map of an overlay file into memory, and clears away what a crash left of writes that were never synced. Main
 * thread of a daemon before the mount, or a command.
 */
import { fdatasyncSync, fstatSync, ftruncateSync } from 'node:fs';
import { EINVAL, ENXIO, type Errno, errnoName, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { readAll, writeAll } from '../../sys/file-bytes.ts';
import { lseek, lseekResult, SEEK_DATA, SEEK_HOLE } from '../../sys/libc.ts';
import { BLOCK_BYTES, RESERVED, STORE } from '../block.ts';
import { zeroRange } from '../export/copy.ts';
import type { BlockMap } from '../map.ts';
import { KEPT, KEPT_NUMBERS, KeptMemory } from './kept-memory.ts';
import {
  digestOf,
  encodeHeader,
  HEADER_BYTES,
  LEAF_WORDS,
  MapPage,
  PAGE_BYTES,
  PAGE_LEAVES,
  pageOffset,
} from './layout.ts';
import type { OpenedOverlay } from './open.ts';
import type { OverlayFileSpec } from './overlay-file.ts';
import { MapReader, type PageSlots } from './slots.ts';

const NO_DIRECTORY = -1;

/**
 * What all threads will share of it.
 *
 * @param directoryFd of its directory, where room is asked for
 */
export function specOf({ fd, header }: OpenedOverlay, directoryFd = NO_DIRECTORY): OverlayFileSpec {
  const memory = KeptMemory.create(header.mapPages);
  const { numbers } = new KeptMemory(memory, header.mapPages);
  numbers[KEPT_NUMBERS.GENERATION] = header.generation;
  numbers[KEPT_NUMBERS.NEXT_GENERATION] = header.generation + 1;
  return { fd, directoryFd, header, memory };
}

/**
 * - `read`: the file stays as it is.
 * - `mend`: what a crash left is put in order, for whoever writes the next header at once.
 * - `serve`: besides, the file says that it is in use.
 */
type Use = 'read' | 'mend' | 'serve';

/**
 * Fills a map that nobody uses yet.
 *
 * @throws CowfsError of kind `failed` when the file is damaged; then the map counts for nothing
 */
export function loadMap(
  opened: OpenedOverlay,
  spec: OverlayFileSpec,
  map: BlockMap,
  use: Use = opened.writable ? 'serve' : 'read',
): void {
  const { path, header } = opened;
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
  if (use === 'read') return;
  mendSlots(opened, leftovers);
  // Whoever was killed before his first sync left a file that says that it is clean.
  const wasWritten = cutTo(opened);
  if (!header.clean || leftovers.length > 0 || wasWritten) clearData(opened, map);
  if (use === 'serve' && header.clean) markInUse(opened, spec);
}

export interface PageSlot {
  readonly page: number;
  readonly slot: 0 | 1;
}

export interface MapFindings {
  /** What is not in force and not whole. */
  readonly leftovers: readonly PageSlot[];
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
  { path, fd, header, headers }: OpenedOverlay,
  memory: KeptMemory,
  map: BlockMap,
  visit: (slots: PageSlots) => void = () => {},
): MapFindings {
  const reader = new MapReader(path, fd, header);
  const leftovers: PageSlot[] = [];
  let digest = 0;
  let inForce = 0;
  for (let slots = reader.next(); slots !== undefined; slots = reader.next()) {
    const { index, states } = slots;
    for (const slot of [0, 1] as const) {
      if (states[slot] === 'younger' || states[slot] === 'damaged') leftovers.push({ page: index, slot });
    }
    visit(slots);
    if (slots.inForce === undefined) continue;
    const page = reader.pages[slots.inForce];
    for (let leaf = 0; leaf < PAGE_LEAVES; leaf++) {
      map.loadLeaf(index * PAGE_LEAVES + leaf, page.words, leaf * LEAF_WORDS);
    }
    digest ^= digestOf(index, page.checksum);
    inForce += 1;
    memory.set('inForce', index, true);
    memory.set('slot', index, slots.inForce === 1);
    memory.set('touched', index, !slots.equal);
    memory.setChecksum(index, page.checksum);
  }
  const { words, numbers } = memory;
  Atomics.store(words, KEPT.HEADER_SLOT, headers.inForce);
  Atomics.store(words, KEPT.DIGEST, digest);
  Atomics.store(words, KEPT.PAGES_IN_FORCE, inForce);
  // One that is not whole may have had the next generation, and come to life again where it is written over in part.
  const isEitherBroken = headers.slots.some((slot) => typeof slot === 'string');
  if (isEitherBroken) numbers[KEPT_NUMBERS.NEXT_GENERATION] = header.generation + 2;
  numbers[KEPT_NUMBERS.DISK_BYTES] = header.diskBytes;
  numbers[KEPT_NUMBERS.BACKING_LIMIT] = header.backingLimit;
  // A write that grew the disk had not come to its end.
  map.clearFrom(Math.ceil(header.diskBytes / BLOCK_BYTES));
  return { leftovers, isWhole: digest === header.digest && inForce === header.pagesInForce };
}

/** Bytes of data that the map tells of and the file has not: they would read as zeros. */
export function missingBytes({ fd, header }: OpenedOverlay, map: BlockMap): number {
  const last = lastWritten(map);
  return last === 0 ? 0 : Math.max(0, header.dataOffset + last * BLOCK_BYTES - fstatSync(fd).size);
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

/**
 * Makes each slot like its page's other one, if that is whole, or empty, durably: a sync that did not come to its end must
 * not come to one with the next header.
 */
export function mendSlots({ path, fd, header }: OpenedOverlay, slots: readonly PageSlot[]): void {
  const bytes = new MapPage();
  for (const { page, slot } of slots) {
    checkWritten(path, readAll(fd, pageOffset(page, 1 - slot), PAGE_BYTES, bytes.bytes, 0));
    if (!bytes.isSealed(header.id, page) || bytes.generation > header.generation) bytes.bytes.fill(0);
    checkWritten(path, writeAll(fd, pageOffset(page, slot), PAGE_BYTES, bytes.bytes, 0));
  }
  if (slots.length > 0) fdatasyncSync(fd);
}

/**
 * From here on what is found after a crash is what a crash leaves. Also keeps what the base is now.
 */
function markInUse({ path, fd, headers }: OpenedOverlay, { header, memory }: OverlayFileSpec): void {
  const { words, numbers } = new KeptMemory(memory, header.mapPages);
  const slot = 1 - headers.inForce;
  const generation = numbers[KEPT_NUMBERS.NEXT_GENERATION] as number;
  const bytes = encodeHeader({ ...header, clean: false, generation });
  checkWritten(path, writeAll(fd, slot * HEADER_BYTES, HEADER_BYTES, bytes, 0));
  fdatasyncSync(fd);
  Atomics.store(words, KEPT.HEADER_SLOT, slot);
  numbers[KEPT_NUMBERS.GENERATION] = generation;
  numbers[KEPT_NUMBERS.NEXT_GENERATION] = generation + 1;
  numbers[KEPT_NUMBERS.BACKING_LIMIT] = header.backingLimit;
}

/**
 * Drops what lies past the disk's end, which must not come to light when it grows.
 *
 * @returns whether there was anything in blocks of their own
 */
function cutTo({ path, fd, header }: OpenedOverlay): boolean {
  const end = header.dataOffset + header.diskBytes;
  const blockEnd = header.dataOffset + Math.ceil(header.diskBytes / BLOCK_BYTES) * BLOCK_BYTES;
  const { size } = fstatSync(fd);
  if (size > end && blockEnd > end) zeroRange(fd, end, blockEnd - end, `overlay ${path}`);
  if (size > blockEnd) ftruncateSync(fd, blockEnd);
  return size > blockEnd;
}

/** Gives back the space of data that the map does not tell of: writes that were never synced. */
export function clearData(opened: OpenedOverlay, map: BlockMap): void {
  const { path, fd, header } = opened;
  for (const { first, count } of unmappedData(opened, map)) {
    // Where holes cannot be made it becomes zeros, which is not taken for data.
    zeroRange(fd, header.dataOffset + first * BLOCK_BYTES, count * BLOCK_BYTES, `overlay ${path}`);
  }
}

/** Whether a block of the file has nothing but zeros, also where they take space: a copy may have lost its holes. */
export function isZeroBlock({ path, fd, header }: OpenedOverlay, block: number): boolean {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  checkWritten(path, readAll(fd, header.dataOffset + block * BLOCK_BYTES, BLOCK_BYTES, bytes, 0));
  return bytes.every((byte) => byte === 0);
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
