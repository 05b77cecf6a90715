/**
 * Reads an overlay file's headers and the pages of its map, and says of each slot what it is. What opens a file and what
 * checks one share it. The file is not changed.
 */
import type { Errno } from '../../lib/errno.ts';
import { EINVAL, ENXIO, errnoName, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { bytesMoved, readAll } from '../../sys/file-bytes.ts';
import { lseek, lseekResult, SEEK_DATA } from '../../sys/libc.ts';
import {
  decodeHeader,
  HEADER_BYTES,
  HEADER_SLOTS,
  type Header,
  type HeaderProblem,
  MAP_OFFSET,
  MapPage,
  PAGE_BYTES,
  PAGE_SLOTS,
  pageOffset,
} from './layout.ts';

export interface Headers {
  readonly slots: readonly (Header | HeaderProblem)[];
  /** The one in force: the youngest whole one. */
  readonly header: Header | undefined;
  /** Its slot. */
  readonly inForce: number;
}

/** `younger`: of a sync that did not come to its end. */
type SlotState = 'empty' | 'whole' | 'younger' | 'damaged';

export interface PageSlots {
  readonly index: number;
  readonly states: readonly [SlotState, SlotState];
  /** The slot in force; undefined if neither is whole. */
  readonly inForce: 0 | 1 | undefined;
  /** Whether both hold the same. */
  readonly equal: boolean;
}

/** @throws CowfsError of kind `failed` when it cannot be read */
export function readHeaders(path: string, fd: number): Headers {
  const slots = Array.from({ length: HEADER_SLOTS }, (_, slot) => {
    const bytes = Buffer.alloc(HEADER_BYTES);
    check(path, slot * HEADER_BYTES, readAll(fd, slot * HEADER_BYTES, HEADER_BYTES, bytes, 0));
    return decodeHeader(bytes.subarray(0, bytesMoved()));
  });
  let header: Header | undefined;
  let inForce = 0;
  for (const [slot, found] of slots.entries()) {
    if (typeof found === 'string' || (header !== undefined && found.generation <= header.generation)) continue;
    header = found;
    inForce = slot;
  }
  return { slots, header, inForce };
}

/** The pages of a map that were ever written, in ascending order. */
export class MapReader {
  /** The slots of the page that `next` found; valid until the next call. */
  readonly pages: readonly [MapPage, MapPage] = [new MapPage(), new MapPage()];
  readonly #path: string;
  readonly #fd: number;
  readonly #header: Header;
  #index = 0;

  constructor(path: string, fd: number, header: Header) {
    this.#path = path;
    this.#fd = fd;
    this.#header = header;
  }

  /** @throws CowfsError of kind `failed` when it cannot be read */
  next(): PageSlots | undefined {
    for (;;) {
      this.#skipHole();
      const index = this.#index++;
      if (index >= this.#header.mapPages) return undefined;
      const empty = this.pages.map((page, slot) => this.#read(page, pageOffset(index, slot)));
      if (!empty.every((isEmpty) => isEmpty)) return this.#classify(index);
    }
  }

  #skipHole(): void {
    const errno = lseek(this.#fd, pageOffset(this.#index, 0), SEEK_DATA);
    // A file system that cannot tell has no holes (lseek(2)).
    if (errno === EINVAL) return;
    if (errno !== OK && errno !== ENXIO) check(this.#path, pageOffset(this.#index, 0), errno);
    const offset = errno === ENXIO ? Number.POSITIVE_INFINITY : lseekResult();
    this.#index = Math.max(this.#index, Math.floor((offset - MAP_OFFSET) / (PAGE_SLOTS * PAGE_BYTES)));
  }

  /** @returns whether there is nothing */
  #read(page: MapPage, offset: number): boolean {
    check(this.#path, offset, readAll(this.#fd, offset, PAGE_BYTES, page.bytes, 0));
    page.bytes.fill(0, bytesMoved());
    return page.isEmpty;
  }

  #classify(index: number): PageSlots {
    const { id, generation } = this.#header;
    const [first, second] = this.pages;
    const stateOf = (page: MapPage): SlotState => {
      if (page.isEmpty) return 'empty';
      if (!page.isSealed(id, index)) return 'damaged';
      return page.generation > generation ? 'younger' : 'whole';
    };
    const states = [stateOf(first), stateOf(second)] as const;
    const isSecond = states[1] === 'whole' && (states[0] !== 'whole' || second.generation > first.generation);
    return {
      index,
      states,
      inForce: isSecond ? 1 : states[0] === 'whole' ? 0 : undefined,
      equal: first.bytes.equals(second.bytes),
    };
  }
}

function check(path: string, offset: number, errno: Errno): void {
  if (errno === OK) return;
  throw new CowfsError(
    'failed',
    `overlay ${path} cannot be read at offset ${offset} (${errnoName(errno)}); check the medium`,
  );
}
