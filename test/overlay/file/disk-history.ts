/**
 * What a kept disk may hold after a crash: for each sector of 512 bytes the contents that it has had since the last
 * sync, and that of the sync itself. Only of windows of the disk, at places where something can go wrong; elsewhere it
 * is zeros.
 */
import { nonZeroBytes } from '../random.ts';

const SECTOR = 512;
const BLOCK = 4096;
/** What one page of the map tells of. */
const SPAN = 60 * 2 ** 20;

export interface Window {
  readonly offset: number;
  readonly length: number;
}

function blocksAround(center: number, before: number, after: number): Window {
  return { offset: center - before * BLOCK, length: (before + after) * BLOCK };
}

/** The start, a border between pages, the end of the base at another, and past the base at a third. */
export const WINDOWS: readonly Window[] = [
  blocksAround(0, 0, 20),
  blocksAround(SPAN, 12, 12),
  blocksAround(2 * SPAN, 8, 16),
  blocksAround(3 * SPAN, 8, 16),
];
/** In the middle of a sector. */
export const BASE_BYTES = 2 * SPAN + 5 * BLOCK + 1234;
export const DISK_BYTES = 3 * SPAN + 9 * BLOCK + 777;
/** No operation reaches further. */
export const MOST_BYTES = 3 * SPAN + 16 * BLOCK;

const LENGTH = WINDOWS.reduce((sum, { length }) => sum + length, 0);

export const BASE_DATA: readonly (readonly [number, Buffer])[] = WINDOWS.filter(
  ({ offset }) => offset < BASE_BYTES,
).map(({ offset, length }, index) => [offset, nonZeroBytes(length, 100 + index)]);

/** The windows of a disk, one after the other. */
export function readWindows(read: (offset: number, length: number) => Buffer): Buffer {
  return Buffer.concat(WINDOWS.map(({ offset, length }) => read(offset, length)));
}

export function isInWindow(offset: number, end: number): boolean {
  return WINDOWS.some((window) => offset >= window.offset && end <= window.offset + window.length);
}

export class DiskHistory {
  sizeBytes: number;
  #content: Buffer;
  /** Of sectors that were written to since the last sync, the oldest first. */
  readonly #versions = new Map<number, Buffer[]>();
  #sizes: number[];

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#sizes = [sizeBytes];
    this.#content = baseContent(sizeBytes);
  }

  write(offset: number, bytes: Buffer): void {
    const end = offset + bytes.length;
    this.#change(offset, end, (from, to, at) => bytes.copy(this.#content, at, from - offset, to - offset));
    if (end > this.sizeBytes) this.#resize(end);
  }

  zero(offset: number, end: number): void {
    this.#change(offset, end, (from, to, at) => this.#content.fill(0, at, at + to - from));
  }

  truncate(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) this.zero(sizeBytes, MOST_BYTES);
    this.#resize(sizeBytes);
  }

  reset(sizeBytes: number): void {
    const fresh = baseContent(sizeBytes);
    this.#change(0, MOST_BYTES, (from, to, at) => fresh.copy(this.#content, at, at, at + to - from));
    this.#resize(sizeBytes);
  }

  /** All of it is durable. */
  settle(): void {
    this.#versions.clear();
    this.#sizes = [this.sizeBytes];
  }

  /** After a crash this is what it holds. */
  adopt(content: Buffer, sizeBytes: number): void {
    this.#content = Buffer.from(content);
    this.sizeBytes = sizeBytes;
    this.settle();
  }

  /** What is wrong with the windows of a disk as it is, in words. */
  differs(content: Buffer, sizeBytes: number): string | undefined {
    if (sizeBytes !== this.sizeBytes) return `${sizeBytes} bytes instead of ${this.sizeBytes}`;
    const at = content.findIndex((byte, index) => byte !== this.#content[index]);
    return at < 0 ? undefined : `byte ${offsetOf(at)} of the disk is ${content[at]}, not ${this.#content[at]}`;
  }

  /**
   * What is wrong with the windows of a disk after a crash, in words.
   *
   * @param content read after the disk was made larger: past its end there must be zeros
   */
  contradicts(content: Buffer, sizeBytes: number): string | undefined {
    if (!this.#sizes.includes(sizeBytes)) return `${sizeBytes} bytes, which it never had since the last sync`;
    for (let at = 0; at < LENGTH; at += SECTOR) {
      const offset = offsetOf(at);
      const inside = Math.min(SECTOR, Math.max(0, sizeBytes - offset));
      for (let index = at + inside; index < at + SECTOR; index++) {
        if (content[index] !== 0) return `byte ${offsetOf(index)} is past the end at ${sizeBytes} and not zero`;
      }
      if (inside === 0) continue;
      const found = content.subarray(at, at + inside);
      const versions = this.#versions.get(at / SECTOR) ?? [this.#content.subarray(at, at + SECTOR)];
      if (versions.some((version) => version.subarray(0, inside).equals(found))) continue;
      const name = found.every((byte) => byte === 0) ? 'zeros' : found.subarray(0, 8).toString('hex');
      return `sector at ${offset} of the disk is ${name}, none of the ${versions.length} that it was since the last sync`;
    }
    return undefined;
  }

  #resize(sizeBytes: number): void {
    this.sizeBytes = sizeBytes;
    this.#sizes.push(sizeBytes);
  }

  /** @param act changes the bytes of a part of one sector, which are at `at` of the content */
  #change(offset: number, end: number, act: (from: number, to: number, at: number) => void): void {
    let windowAt = 0;
    for (const window of WINDOWS) {
      const start = Math.max(offset, window.offset);
      const stop = Math.min(end, window.offset + window.length);
      for (let from = start; from < stop; ) {
        const at = windowAt + from - window.offset;
        const first = at - (at % SECTOR);
        const length = Math.min(SECTOR - (at % SECTOR), stop - from);
        const sector = first / SECTOR;
        let versions = this.#versions.get(sector);
        if (versions === undefined) {
          versions = [Buffer.from(this.#content.subarray(first, first + SECTOR))];
          this.#versions.set(sector, versions);
        }
        act(from, from + length, at);
        versions.push(Buffer.from(this.#content.subarray(first, first + SECTOR)));
        from += length;
      }
      windowAt += window.length;
    }
  }
}

function baseContent(sizeBytes: number): Buffer {
  const content = Buffer.alloc(LENGTH);
  const end = Math.min(BASE_BYTES, sizeBytes);
  let at = 0;
  for (const [index, { offset, length }] of WINDOWS.entries()) {
    const data = BASE_DATA[index]?.[1];
    data?.copy(content, at, 0, Math.max(0, Math.min(length, end - offset)));
    at += length;
  }
  return content;
}

/** Byte of the disk that is at `at` of the windows. */
function offsetOf(at: number): number {
  let rest = at;
  for (const { offset, length } of WINDOWS) {
    if (rest < length) return offset + rest;
    rest -= length;
  }
  return Number.NaN;
}
