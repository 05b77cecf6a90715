/**
 * Verifies an overlay file: every checksum of headers and map, both copies, the length; and mends what can be mended. In a
 * command's process; nobody else has the file open for writing.
 */
import { fstatSync, ftruncateSync } from 'node:fs';
import { type Errno, errnoName, errnoOf, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { readAll } from '../../sys/file-bytes.ts';
import { BLOCK_BYTES, STORE, ZERO } from '../block.ts';
import { LayerStack } from '../export/stack.ts';
import type { Layer } from '../layer.ts';
import { KEPT, KeptMemory } from './kept-memory.ts';
import { encodeHeader, HEADER_BYTES, MAP_OFFSET, PAGE_BLOCKS, PAGE_SPAN_BYTES, pageOffset } from './layout.ts';
import {
  clearData,
  isZeroBlock,
  mendSlots,
  missingBytes,
  type PageSlot,
  readMap,
  specOf,
  unmappedData,
} from './load.ts';
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

/** What a medium writes whole, or not. */
const SECTOR_BYTES = 512;

class OverlayCheck {
  readonly #opened: OpenedOverlay;
  readonly #memory: KeptMemory;
  readonly #file: OverlayFile;
  readonly #layer: Layer;
  readonly #pages: PageSlots[] = [];
  readonly #isWhole: boolean;
  readonly #leftovers: readonly PageSlot[];
  readonly #missingBytes: number;

  constructor(opened: OpenedOverlay) {
    const { header } = opened;
    const { kind, sizeBytes } = header.base;
    const spec = specOf(opened);
    this.#opened = opened;
    this.#memory = new KeptMemory(spec.memory, header.mapPages);
    this.#file = new OverlayFile(spec);
    // The base is not looked at: only the map matters.
    const stack = new LayerStack({ fd: -1, sizeBytes, hasHoles: kind === 'file' }, this.#file);
    this.#layer = stack.pushFile(opened);
    const { isWhole, leftovers } = readMap(opened, this.#memory, this.#layer.map, (slots) => this.#pages.push(slots));
    this.#isWhole = isWhole;
    this.#leftovers = leftovers;
    this.#missingBytes = missingBytes(opened, this.#layer.map);
  }

  report(): CheckReport {
    const { map } = this.#layer;
    let writtenBytes = 0;
    for (let block = 0; block < map.blocks; ) {
      const run = map.runAt(block, map.blocks - block);
      if (map.runState === STORE) writtenBytes += run * BLOCK_BYTES;
      block += run;
    }
    const problems = [...this.#headerProblems(), ...this.#pages.flatMap((slots) => this.#pageProblems(slots))];
    return {
      problems: [...problems, ...this.#dataProblems()].sort((one, other) => one.offset - other.offset),
      writtenBytes,
      pages: Atomics.load(this.#memory.words, KEPT.PAGES_IN_FORCE),
    };
  }

  repair(): string[] {
    // First: the next header must bring nothing into force that was not.
    mendSlots(this.#opened, this.#leftovers);
    const lost = this.#isWhole ? [] : this.#rebuild();
    if (!this.#isWhole) this.#orThrow(this.#file.rewrite(this.#layer));
    if (this.#missingBytes > 0) {
      this.#lengthen(this.#missingBytes);
      lost.push(`the last ${this.#missingBytes} bytes of data are lost and read as zeros`);
    }
    this.#orThrow(this.#file.finish(this.#layer));
    // Where the map is a guess, data that it does not tell of is all that is left.
    if (this.#isWhole) clearData(this.#opened, this.#layer.map);
    return lost;
  }

  #headerProblems(): Problem[] {
    const { headers, header } = this.#opened;
    // While it is not clean the other one is older, or was being written.
    return headers.slots.flatMap((found, slot): Problem[] => {
      const offset = slot * HEADER_BYTES;
      const name = `header, copy ${slot + 1}`;
      if (typeof found === 'string') {
        const kind = header.clean && !this.#isBegun(offset) ? 'copy' : 'leftover';
        return [{ kind, offset, what: `${name}, is not whole (${found})` }];
      }
      if (!header.clean || found.generation === header.generation) return [];
      return [{ kind: 'copy', offset, what: `${name}, is older than the other` }];
    });
  }

  /** Whether a slot has what a crash leaves in the moment in which a clean file is marked as in use (`load.ts`). */
  #isBegun(offset: number): boolean {
    const { fd, header } = this.#opened;
    const found = Buffer.alloc(HEADER_BYTES);
    if (readAll(fd, offset, HEADER_BYTES, found, 0) !== OK) return false;
    const before = encodeHeader(header);
    const after = encodeHeader({ ...header, clean: false, generation: header.generation + 1 });
    for (let at = 0; at < HEADER_BYTES; at += SECTOR_BYTES) {
      const end = at + SECTOR_BYTES;
      const isEither = [before, after].some((bytes) => bytes.compare(found, at, end, at, end) === 0);
      if (!isEither) return false;
    }
    return true;
  }

  #pageProblems({ index, states, inForce, equal }: PageSlots): Problem[] {
    const { clean } = this.#opened.header;
    return ([0, 1] as const).flatMap((slot): Problem[] => {
      const offset = pageOffset(index, slot);
      const name = `page ${index} of the map, copy ${slot + 1}`;
      switch (states[slot]) {
        case 'younger':
          return [{ kind: 'leftover', offset, what: `${name}, is of a sync that did not come to its end` }];
        case 'damaged':
          if (inForce === undefined) {
            return [{ kind: this.#isWhole ? 'leftover' : 'damage', offset, what: `${name}, is not whole` }];
          }
          return [{ kind: clean ? 'copy' : 'leftover', offset, what: `${name}, is not whole` }];
        default:
          if (!clean || inForce === undefined || inForce === slot || equal) return [];
          return [{ kind: 'copy', offset, what: `${name}, is not like the other` }];
      }
    });
  }

  #dataProblems(): Problem[] {
    const { path, header } = this.#opened;
    const { dataOffset } = header;
    const problems: Problem[] = [];
    if (!this.#isWhole) {
      problems.push({ kind: 'damage', offset: MAP_OFFSET, what: `the map is not what the header of ${path} says` });
      return problems;
    }
    if (this.#missingBytes > 0) {
      const { size } = fstatSync(this.#opened.fd);
      problems.push({ kind: 'damage', offset: size, what: `${this.#missingBytes} bytes are missing at the end` });
    }
    let leakedBytes = 0;
    for (const { first, count } of unmappedData(this.#opened, this.#layer.map)) {
      for (let block = first; block < first + count; block++) {
        if (!isZeroBlock(this.#opened, block)) leakedBytes += BLOCK_BYTES;
      }
    }
    if (leakedBytes > 0) {
      const what = `${leakedBytes} bytes of writes that were never synced`;
      problems.push({ kind: 'leftover', offset: dataOffset, what });
    }
    return problems;
  }

  /**
   * Of the pages that may not be what was durable the best that can be had: what is in the file was written, what an older
   * copy says was trimmed is zeros.
   *
   * @returns what is not certain
   */
  #rebuild(): string[] {
    const { header } = this.#opened;
    const pages = [...this.#doubtful()].sort((one, other) => one - other);
    for (const page of pages) this.#rebuildPage(page);
    const lost = pages.map((page) => {
      const from = page * PAGE_SPAN_BYTES;
      return `bytes ${from} to ${Math.min(from + PAGE_SPAN_BYTES, header.diskBytes)} of the disk may be wrong`;
    });
    return [...lost, 'parts of the map are lost: where the disk was trimmed the base may show again'];
  }

  #doubtful(): Set<number> {
    const { header } = this.#opened;
    const lost = new Set(this.#pages.filter(({ inForce }) => inForce === undefined).map(({ index }) => index));
    // Those that are gone altogether show by their data.
    for (const { first, count } of unmappedData(this.#opened, this.#layer.map)) {
      for (let block = first; block < first + count; block++) {
        const page = Math.floor(block / PAGE_BLOCKS);
        if (!this.#memory.has('inForce', page) && !lost.has(page) && !isZeroBlock(this.#opened, block)) lost.add(page);
      }
    }
    const found = Atomics.load(this.#memory.words, KEPT.PAGES_IN_FORCE);
    if (lost.size > 0 && found + lost.size === header.pagesInForce) return lost;
    // It may be any that has no equal copy, and if there is none, any.
    const unequal = this.#pages.filter(({ equal }) => !equal);
    for (const { index } of unequal.length > 0 ? unequal : this.#pages) lost.add(index);
    return lost;
  }

  #rebuildPage(page: number): void {
    const { header } = this.#opened;
    const { map } = this.#layer;
    const first = page * PAGE_BLOCKS;
    const end = Math.min(first + PAGE_BLOCKS, Math.ceil(header.diskBytes / BLOCK_BYTES));
    for (let block = first; block < end; block++) {
      map.runAt(block, 1);
      if (!isZeroBlock(this.#opened, block)) map.set(block, 1, STORE);
      else if (map.runState === STORE) map.set(block, 1, ZERO);
    }
    // Also where nothing was found: what its slots have is not to be in force any more.
    this.#memory.set('dirty', page, true);
  }

  #lengthen(bytes: number): void {
    const { fd } = this.#opened;
    try {
      ftruncateSync(fd, fstatSync(fd).size + bytes);
    } catch (error) {
      this.#orThrow(errnoOf(error));
    }
  }

  #orThrow(errno: Errno): void {
    if (errno === OK) return;
    throw new CowfsError(
      'failed',
      `overlay ${this.#opened.path} cannot be repaired (${errnoName(errno)}); make room there`,
    );
  }
}
