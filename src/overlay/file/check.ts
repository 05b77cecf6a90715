/**
 * Verifies an overlay file: every checksum of headers and map, both copies, the length; and mends what can be mended. In a
 * command's process; nobody else has the file open for writing.
 */
import { type Errno, errnoName, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { lseek, lseekResult, SEEK_DATA } from '../../sys/libc.ts';
import { BLOCK_BYTES, STORE, ZERO } from '../block.ts';
import { LayerStack } from '../export/stack.ts';
import type { Layer } from '../layer.ts';
import { KEPT, KeptMemory } from './kept-memory.ts';
import { HEADER_BYTES, PAGE_BLOCKS, PAGE_SPAN_BYTES, pageOffset } from './layout.ts';
import { clearData, clearSlots, missingBytes, readMap, specOf, unmappedData } from './load.ts';
import type { OpenedOverlay } from './open.ts';
import { OverlayFile } from './overlay-file.ts';
import type { PageSlots } from './slots.ts';

/**
 * - `damage`: something that was durable is lost.
 * - `copy`: one of two copies is damaged; the other is whole.
 * - `leftover`: of writes that were never synced, as a crash leaves them; the next mount clears it away.
 */
type ProblemKind = 'damage' | 'copy' | 'leftover';

export interface Problem {
  readonly kind: ProblemKind;
  /** Byte of the file. */
  readonly offset: number;
  readonly what: string;
}

export interface CheckReport {
  readonly problems: readonly Problem[];
  /** Bytes of blocks that are in the file. */
  readonly writtenBytes: number;
  readonly pages: number;
}

export function checkOverlay(opened: OpenedOverlay): CheckReport {
  return new OverlayCheck(opened).report();
}

/**
 * Mends it; the file is open for writing.
 *
 * @returns what could not be mended for certain, in words
 * @throws CowfsError when it cannot be written
 */
export function repairOverlay(opened: OpenedOverlay): string[] {
  return new OverlayCheck(opened).repair();
}

class OverlayCheck {
  readonly #opened: OpenedOverlay;
  readonly #memory: KeptMemory;
  readonly #file: OverlayFile;
  readonly #layer: Layer;
  readonly #problems: Problem[] = [];
  readonly #isWhole: boolean;
  /** Pages of which what is in force may not be what was durable. */
  readonly #uncertain: number[] = [];
  /** Slots with something that is not whole, of pages of which nothing is in force. */
  readonly #orphans: number[] = [];
  readonly #missingBytes: number;

  constructor(opened: OpenedOverlay) {
    const { fd, header } = opened;
    const { path, kind, sizeBytes } = header.base;
    const spec = specOf(opened);
    this.#opened = opened;
    this.#memory = new KeptMemory(spec.memory, header.mapPages);
    this.#file = new OverlayFile(spec);
    // The base is not looked at: only the map matters.
    const stack = new LayerStack({ fd: -1, sizeBytes, hasHoles: kind === 'file' }, this.#file);
    const { diskBytes, backingLimit, dataOffset } = header;
    this.#layer = stack.push({ sizeBytes: diskBytes, backingLimit, fd, origin: dataOffset });
    const { isWhole } = readMap(opened, this.#memory, this.#layer.map, (slots) => this.#look(slots));
    this.#isWhole = isWhole;
    this.#missingBytes = missingBytes(opened, this.#layer.map);
    this.#lookAtHeaders();
    if (!isWhole) this.#add('damage', pageOffset(0, 0), `the map of ${path}'s overlay is not what its header says`);
    if (this.#missingBytes > 0) this.#add('damage', dataOffset, `${this.#missingBytes} bytes are missing at the end`);
    let leakedBytes = 0;
    if (isWhole) for (const { count } of unmappedData(opened, this.#layer.map)) leakedBytes += count * BLOCK_BYTES;
    if (leakedBytes > 0) this.#add('leftover', dataOffset, `${leakedBytes} bytes of writes that were never synced`);
  }

  report(): CheckReport {
    const { map } = this.#layer;
    let writtenBytes = 0;
    for (let block = 0; block < map.blocks; ) {
      const run = map.runAt(block, map.blocks - block);
      if (map.runState === STORE) writtenBytes += run * BLOCK_BYTES;
      block += run;
    }
    return { problems: this.#problems, writtenBytes, pages: Atomics.load(this.#memory.words, KEPT.PAGES_IN_FORCE) };
  }

  repair(): string[] {
    const guesses = this.#isWhole ? [] : [...this.#doubtful()].map((page) => this.#rebuild(page));
    if (!this.#isWhole) this.#orThrow(this.#file.rewrite(this.#layer));
    this.#orThrow(this.#file.finish(this.#layer));
    clearSlots(this.#opened, this.#orphans);
    clearData(this.#opened, this.#layer.map);
    if (this.#missingBytes > 0) guesses.push(`the last ${this.#missingBytes} bytes of data are lost and read as zeros`);
    return guesses;
  }

  #look(slots: PageSlots): void {
    const { index, states, inForce, equal } = slots;
    const { clean } = this.#opened.header;
    // Whose other copy is younger or the same is in force for certain.
    if (!equal) this.#uncertain.push(index);
    for (const slot of [0, 1] as const) {
      const offset = pageOffset(index, slot);
      if (inForce === undefined) this.#orphans.push(offset);
      const what = `page ${index} of the map, copy ${slot + 1}`;
      if (states[slot] === 'younger')
        this.#add('leftover', offset, `${what}, is of a sync that did not come to its end`);
      else if (states[slot] === 'damaged' && inForce === undefined) this.#add('damage', offset, `${what}, is damaged`);
      else if (states[slot] === 'damaged') this.#add(clean ? 'copy' : 'leftover', offset, `${what}, is not whole`);
      else if (clean && inForce !== slot && !equal) this.#add('copy', offset, `${what}, is not like the other`);
    }
  }

  #lookAtHeaders(): void {
    const { headers, header } = this.#opened;
    for (const [slot, found] of headers.slots.entries()) {
      const offset = slot * HEADER_BYTES;
      const what = `header, copy ${slot + 1}`;
      if (typeof found === 'string')
        this.#add(header.clean ? 'copy' : 'leftover', offset, `${what}, is not whole (${found})`);
      else if (header.clean && found.generation !== header.generation) {
        this.#add('copy', offset, `${what}, is older than the other`);
      }
    }
  }

  /** And those that are gone altogether, though they have data. */
  #doubtful(): Set<number> {
    const pages = new Set(this.#uncertain);
    for (const { first, count } of unmappedData(this.#opened, this.#layer.map)) {
      const last = Math.floor((first + count - 1) / PAGE_BLOCKS);
      for (let page = Math.floor(first / PAGE_BLOCKS); page <= last; page++) {
        if (!this.#memory.has('inForce', page)) pages.add(page);
      }
    }
    return pages;
  }

  /** The best that can be had: what is in the file was written, what an older copy says was trimmed is zeros. */
  #rebuild(index: number): string {
    const { fd, header } = this.#opened;
    const { map } = this.#layer;
    const first = index * PAGE_BLOCKS;
    const end = Math.min(first + PAGE_BLOCKS, Math.ceil(header.diskBytes / BLOCK_BYTES));
    for (let block = first; block < end; block++) {
      const offset = header.dataOffset + block * BLOCK_BYTES;
      const isData = lseek(fd, offset, SEEK_DATA) === OK && lseekResult() < offset + BLOCK_BYTES;
      map.runAt(block, 1);
      if (isData) map.set(block, 1, STORE);
      else if (map.runState === STORE) map.set(block, 1, ZERO);
    }
    const from = index * PAGE_SPAN_BYTES;
    return `bytes ${from} to ${Math.min(from + PAGE_SPAN_BYTES, header.diskBytes)} of the disk may be wrong`;
  }

  #add(kind: ProblemKind, offset: number, what: string): void {
    this.#problems.push({ kind, offset, what });
  }

  #orThrow(errno: Errno): void {
    if (errno === OK) return;
    throw new CowfsError(
      'failed',
      `overlay ${this.#opened.path} cannot be repaired (${errnoName(errno)}); make room there`,
    );
  }
}
