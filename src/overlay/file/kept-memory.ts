/**
 * What all threads know of the overlay file of a kept disk, in shared memory: which pages of the map have changed since
 * they were last written, and what of the file is in force. Marking is lock-free and part of every change of a block's
 * state; all else belongs to whoever holds the mutex (`overlay-file.ts`).
 */
import { PAGE_BLOCKS } from './layout.ts';

/** Int32 slots. */
export const KEPT = {
  MUTEX: 0,
  /** Counts syncs that were begun. */
  STARTED: 1,
  /** Number of the last sync that succeeded. */
  SUCCEEDED: 2,
  /** Errno of a write-back that failed for good: what the host's cache had is lost. 0 until then. */
  FAILED: 3,
  /** As the header has them. */
  DIGEST: 4,
  PAGES_IN_FORCE: 5,
  /** Not 0 when something was written since the last sync. */
  WRITTEN: 6,
  /** Slot of the header in force. */
  HEADER_SLOT: 7,
  WORDS: 16,
} as const;

/** Float64 slots between them: what the header in force says. */
export const KEPT_NUMBERS = {
  AT: 8,
  GENERATION: 0,
  DISK_BYTES: 1,
  BACKING_LIMIT: 2,
  /** What the next header is to have. */
  NEXT_GENERATION: 3,
  COUNT: 4,
} as const;

type Bitmap = 'dirty' | 'slot' | 'inForce' | 'touched';
const BITMAPS: readonly Bitmap[] = ['dirty', 'slot', 'inForce', 'touched'];

export class KeptMemory {
  readonly words: Int32Array;
  readonly numbers: Float64Array;
  readonly pages: number;
  readonly #bits: Readonly<Record<Bitmap, Int32Array>>;
  readonly #checksums: Int32Array;

  /** @param pages of the map; memory is committed as far as it is touched */
  static create(pages: number): SharedArrayBuffer {
    return new SharedArrayBuffer((KEPT.WORDS + BITMAPS.length * bitmapWords(pages) + pages) * 4);
  }

  constructor(buffer: SharedArrayBuffer, pages: number) {
    const length = bitmapWords(pages);
    const bitmap = (index: number): Int32Array => new Int32Array(buffer, (KEPT.WORDS + index * length) * 4, length);
    this.pages = pages;
    this.words = new Int32Array(buffer, 0, KEPT.WORDS);
    this.numbers = new Float64Array(buffer, KEPT_NUMBERS.AT * 4, KEPT_NUMBERS.COUNT);
    this.#bits = { dirty: bitmap(0), slot: bitmap(1), inForce: bitmap(2), touched: bitmap(3) };
    this.#checksums = new Int32Array(buffer, (KEPT.WORDS + BITMAPS.length * length) * 4, pages);
  }

  /** The states of these blocks have changed; called after the change, so that none is missed. */
  mark(first: number, count: number): void {
    const last = Math.min(this.pages - 1, Math.floor((first + count - 1) / PAGE_BLOCKS));
    for (let page = Math.floor(first / PAGE_BLOCKS); page <= last; page++) this.set('dirty', page, true);
  }

  /** The whole map has changed. */
  markAll(): void {
    for (let page = this.next('inForce', 0); page < this.pages; page = this.next('inForce', page + 1)) {
      this.set('dirty', page, true);
    }
  }

  /** Something was written to the data; called after the write, so that none is missed. */
  noteWrite(): void {
    Atomics.store(this.words, KEPT.WRITTEN, 1);
  }

  has(bitmap: Bitmap, page: number): boolean {
    return (Atomics.load(this.#bits[bitmap], page >>> 5) & (1 << (page & 31))) !== 0;
  }

  set(bitmap: Bitmap, page: number, value: boolean): void {
    const bits = this.#bits[bitmap];
    if (value) Atomics.or(bits, page >>> 5, 1 << (page & 31));
    else Atomics.and(bits, page >>> 5, ~(1 << (page & 31)));
  }

  /** The first page at or after `page` with the bit, or `pages`. */
  next(bitmap: Bitmap, page: number): number {
    const bits = this.#bits[bitmap];
    for (let at = page; at < this.pages; ) {
      const word = Atomics.load(bits, at >>> 5) >>> (at & 31);
      if (word !== 0) return Math.min(this.pages, at + 31 - Math.clz32(word & -word));
      at = ((at >>> 5) + 1) << 5;
    }
    return this.pages;
  }

  /** Checksum of the page in force. */
  checksum(page: number): number {
    return Atomics.load(this.#checksums, page);
  }

  setChecksum(page: number, checksum: number): void {
    Atomics.store(this.#checksums, page, checksum);
  }
}

function bitmapWords(pages: number): number {
  return Math.ceil(pages / 32);
}
