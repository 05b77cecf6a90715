/**
 * A disk to export, over real sparse files: a base, a store at the same offsets, and beside them the raw disk that an
 * image of it has to equal. Knows nothing of overlays.
 */
import { closeSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Base } from '../../../src/base/base.ts';
import { EIO, type Errno, OK } from '../../../src/lib/errno.ts';
import { BASE, type BlockState, STORE, ZERO } from '../../../src/overlay/block.ts';
import type { ExportSource } from '../../../src/overlay/export/source.ts';
import { nonZeroBytes } from '../random.ts';

const BLOCK = 4096;
const PATTERN_BYTES = 2 ** 20;
const pattern = nonZeroBytes(PATTERN_BYTES + BLOCK, 11);
const zeros = Buffer.alloc(PATTERN_BYTES);

export interface SourceOptions {
  readonly directory: string;
  readonly baseBytes: number;
  readonly sizeBytes?: number;
  /** Data of the base, start and length in bytes; all of it unless given. */
  readonly baseData?: readonly (readonly [offset: number, length: number])[];
  readonly baseName?: string;
}

interface Run {
  readonly first: number;
  readonly end: number;
  readonly state: BlockState;
}

let made = 0;

export class FileSource implements ExportSource {
  readonly sizeBytes: number;
  difference: BlockState = BASE;
  readonly basePath: string;
  readonly baseBytes: number;
  /** Every buffer that was read into, and the longest read. */
  readonly buffers = new Set<ArrayBufferLike>();
  longestRead = 0;
  bytesRead = 0;
  /** Where reading the disk fails. */
  badOffset = Number.NaN;

  placeFd = -1;
  placeOffset = 0;

  readonly #base: Base;
  readonly #store: number;
  readonly #expected: number;
  readonly #expectedPath: string;
  /** Sorted, without gaps. */
  #runs: Run[];
  readonly #blocks: number;

  constructor(options: SourceOptions) {
    const { directory, baseBytes, sizeBytes = baseBytes, baseData = [[0, baseBytes]] } = options;
    this.sizeBytes = sizeBytes;
    this.baseBytes = baseBytes;
    this.#blocks = Math.ceil(sizeBytes / BLOCK);
    this.#runs = this.#blocks === 0 ? [] : [{ first: 0, end: this.#blocks, state: BASE }];
    const number = made++;
    this.basePath = join(directory, options.baseName ?? `base-${number}.img`);
    this.#expectedPath = join(directory, `expected-${number}.raw`);
    const base = openSync(this.basePath, 'w+');
    this.#store = openSync(join(directory, `store-${number}`), 'w+');
    this.#expected = openSync(this.#expectedPath, 'w+');
    onTestFinished(() => {
      for (const fd of [base, this.#store, this.#expected]) closeSync(fd);
    });
    for (const [offset, length] of baseData) {
      fillFile(base, offset, length, pattern, 1);
      fillFile(this.#expected, offset, Math.max(0, Math.min(length, sizeBytes - offset)), pattern, 1);
    }
    ftruncateSync(base, baseBytes);
    this.#base = new Base({ fd: base, sizeBytes: baseBytes, hasHoles: true });
  }

  /** Data in blocks, `count` of them or up to the disk's end. */
  write(first: number, count = 1, seed = first + 2): this {
    return this.#put(first, count, STORE, pattern, seed);
  }

  /** Blocks that are written, and full of zeros. */
  writeZeros(first: number, count = 1): this {
    return this.#put(first, count, STORE, zeros, 0);
  }

  /** Blocks that are trimmed. */
  zero(first: number, count = 1): this {
    return this.#put(first, count, ZERO, zeros, 0);
  }

  /** Path of the raw disk, whole sectors long. */
  expected(): string {
    ftruncateSync(this.#expected, this.sizeBytes);
    ftruncateSync(this.#expected, Math.ceil(this.sizeBytes / 512) * 512);
    return this.#expectedPath;
  }

  /** Bytes that the raw disk takes on the host. */
  get occupiedBytes(): number {
    return statSync(this.expected()).blocks * 512;
  }

  #put(first: number, count: number, state: BlockState, from: Buffer, seed: number): this {
    const end = Math.min(first + count, this.#blocks);
    // Bytes past the disk's end in its last block are not the disk's, and must not show.
    if (state === STORE) fillFile(this.#store, first * BLOCK, (end - first) * BLOCK, from, seed);
    const length = Math.min(end * BLOCK, this.sizeBytes) - first * BLOCK;
    if (from === zeros) this.#clear(first * BLOCK, length);
    else fillFile(this.#expected, first * BLOCK, length, from, seed);
    const last = this.#runs.at(-1);
    const at = last !== undefined && first >= last.first ? this.#runs.length - 1 : this.#find(first);
    const until = this.#find(end - 1);
    const [head, tail] = [this.#runs[at], this.#runs[until]] as [Run, Run];
    const parts = [
      { ...head, end: first },
      { first, end, state },
      { ...tail, first: end },
    ];
    this.#runs.splice(at, until - at + 1, ...parts.filter((run) => run.end > run.first));
    return this;
  }

  /** Zeros in the raw disk, and only where it has data. */
  #clear(offset: number, length: number): void {
    const expected = new Base({ fd: this.#expected, sizeBytes: 0, hasHoles: true });
    const end = offset + length;
    for (let at = expected.nextData(offset, end); at < end; ) {
      const hole = expected.nextHole(at, end);
      fillFile(this.#expected, at, hole - at, zeros, 0);
      at = expected.nextData(hole, end);
    }
  }

  /** Index of the run that has the block. */
  #find(block: number): number {
    let [low, high] = [0, this.#runs.length - 1];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.#runs[middle] as Run).end > block) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  locate(offset: number, length: number): number {
    const run = this.#runs[this.#find(Math.floor(offset / BLOCK))] as Run;
    const stop = Math.min(offset + length, run.end * BLOCK);
    const isBase = run.state === BASE && offset < this.baseBytes;
    this.placeFd = isBase ? this.#base.placeFd : run.state === STORE ? this.#store : -1;
    this.placeOffset = offset;
    return (isBase ? Math.min(stop, this.baseBytes) : stop) - offset;
  }

  differenceAt(block: number, limit: number): number {
    const run = this.#runs[this.#find(block)] as Run;
    this.difference = run.state;
    return Math.min(run.end - block, limit);
  }

  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.buffers.add(into.buffer);
    this.longestRead = Math.max(this.longestRead, length);
    this.bytesRead += length;
    const end = offset + length;
    if (offset <= this.badOffset && this.badOffset < end) return EIO;
    for (let position = offset; position < end; ) {
      const run = this.#runs[this.#find(Math.floor(position / BLOCK))] as Run;
      const stop = Math.min(end, run.end * BLOCK);
      const target = at + position - offset;
      into.fill(0, target, target + stop - position);
      if (run.state === STORE) readSync(this.#store, into, target, stop - position, position);
      const shown = Math.min(stop, this.baseBytes) - position;
      if (run.state === BASE && shown > 0) {
        const errno = this.#base.read(position, shown, into, target);
        if (errno !== OK) return errno;
      }
      position = stop;
    }
    return OK;
  }

  nextData(offset: number, end: number): number {
    for (let at = offset; at < end; ) {
      const run = this.#runs[this.#find(Math.floor(at / BLOCK))] as Run;
      const stop = Math.min(end, run.end * BLOCK);
      if (run.state === STORE) return at;
      const dataEnd = run.state === BASE ? Math.min(stop, this.baseBytes) : at;
      const found = at < dataEnd ? this.#base.nextData(at, dataEnd) : dataEnd;
      if (found < dataEnd) return found;
      at = stop;
    }
    return end;
  }

  nextHole(offset: number, end: number): number {
    for (let at = offset; at < end; ) {
      const run = this.#runs[this.#find(Math.floor(at / BLOCK))] as Run;
      const stop = Math.min(end, run.end * BLOCK);
      if (run.state !== STORE) {
        const dataEnd = run.state === BASE ? Math.min(stop, this.baseBytes) : at;
        const found = at < dataEnd ? this.#base.nextHole(at, dataEnd) : at;
        if (found < stop) return found;
      }
      at = stop;
    }
    return end;
  }
}

/** Each block a part of `from` of its own, so that a block in the wrong place shows. */
function fillFile(fd: number, offset: number, length: number, from: Buffer, seed: number): void {
  for (let done = 0; done < length; ) {
    const start = from === zeros ? 0 : (Math.floor((offset + done) / PATTERN_BYTES) * 131 + seed * 7) % BLOCK;
    const bytes = Math.min(length - done, PATTERN_BYTES - ((offset + done) % PATTERN_BYTES));
    writeSync(fd, from, start, bytes, offset + done);
    done += bytes;
  }
}
