/**
 * A layer for reading: blocks that were written are in its store, trimmed ones are zeros, all others are the backing's.
 * The backing is the base, or another layer, which is frozen: nothing is written there any more. One instance a
 * thread; writing is `disk.ts`, the records behind layers are `layers.ts`.
 */
import type { Backing } from '../base/backing.ts';
import { type Errno, OK } from '../lib/errno.ts';
import type { Arena } from './arena.ts';
import { BASE, BLOCK_BYTES, type BlockIndex, type BlockState, MAX_DISK_BYTES, RESERVED, STORE, ZERO } from './block.ts';
import type { ExportSource } from './export/source.ts';
import { DiskExtent } from './extent.ts';
import type { OverlayFile } from './file/overlay-file.ts';
import { BlockMap } from './map.ts';
import { EXTENT, LAYER } from './shared.ts';
import { Store } from './store.ts';
import type { StoreDirectory } from './store-directory.ts';

/** In place of a descriptor: zeros. */
const NOWHERE = -1;

export class Layer implements ExportSource {
  difference: BlockState = BASE;
  placeFd = NOWHERE;
  placeOffset = 0;

  /** Its record. */
  readonly control: Int32Array;
  readonly map: BlockMap;
  readonly store: Store;
  readonly extent: DiskExtent;
  /** Where its store is, or will be. */
  readonly directory: StoreDirectory;

  /** Most bytes that a disk of it can have. */
  readonly maxBytes: number;

  readonly #backing: Backing | Layer;
  readonly #file: OverlayFile | undefined;
  /** End of the current run, and of the part of it that may hold data. */
  #runEnd = 0;
  #dataEnd = 0;

  /**
   * @param at index of its record
   * @param file that it is kept in; undefined for one that is discarded
   */
  constructor(arena: Arena, at: number, backing: Backing | Layer, directory: StoreDirectory, file?: OverlayFile) {
    this.control = arena.record(at, LAYER.WORDS);
    this.map = new BlockMap(arena, this.control, file?.memory);
    this.store = new Store(this.control, directory, arena.double(at + EXTENT.AT + EXTENT.ORIGIN * 2), file?.memory);
    this.extent = new DiskExtent(arena, at, this.control);
    this.#file = file;
    this.maxBytes = file?.maxBytes ?? MAX_DISK_BYTES;
    this.directory = directory;
    this.#backing = backing;
  }

  get sizeBytes(): number {
    return this.extent.sizeBytes;
  }

  /** Whether it is kept in a file. */
  get isKept(): boolean {
    return this.#file !== undefined;
  }

  /** Makes durable what was written to it, where it is kept (fsync(2)). */
  sync(): Errno {
    return this.#file?.sync(this) ?? OK;
  }

  /**
   * Reads exactly `length` bytes, as they are below the disk's end and zeros past it.
   *
   * @returns the base's or the store's errno; then nothing of `into` counts
   */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const end = offset + length;
    for (let position = offset; position < end; ) {
      const block = Math.floor(position / BLOCK_BYTES);
      const run = this.map.runAt(block, Math.ceil(end / BLOCK_BYTES) - block);
      const bytes = Math.min(end, (block + run) * BLOCK_BYTES) - position;
      const errno = this.readRun(position, bytes, into, at + position - offset);
      if (errno !== OK) return errno;
      position += bytes;
    }
    return OK;
  }

  /** Reads bytes that share the state in the map's `runState`. */
  readRun(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const state = this.map.runState;
    if (state === STORE) return this.store.read(offset, length, into, at);
    if (state === ZERO) {
      into.fill(0, at, at + length);
      return OK;
    }
    const shown = Math.min(length, Math.max(0, this.extent.backingLimit - offset));
    if (shown < length) into.fill(0, at + shown, at + length);
    return shown === 0 ? OK : this.#backing.read(offset, shown, into, at);
  }

  /** The first byte at or after `offset` that is data, or `end` if there is none before it. Takes no lock. */
  nextData(offset: number, end: number): number {
    for (let position = offset; position < end; position = this.#runEnd) {
      this.#enterRun(position, end);
      if (position >= this.#dataEnd) continue;
      const found = this.map.runState === STORE ? position : this.#backing.nextData(position, this.#dataEnd);
      if (found < this.#dataEnd) return found;
    }
    return end;
  }

  /** The first byte at or after `offset` that lies in a hole, or `end` if there is none before it. Takes no lock. */
  nextHole(offset: number, end: number): number {
    for (let position = offset; position < end; position = this.#runEnd) {
      this.#enterRun(position, end);
      if (this.map.runState === STORE) continue;
      const found = position < this.#dataEnd ? this.#backing.nextHole(position, this.#dataEnd) : position;
      if (found < this.#runEnd) return found;
    }
    return end;
  }

  locate(offset: number, length: number): number {
    this.#enterRun(offset, offset + length);
    const state = this.map.runState;
    if (state === STORE) {
      this.placeFd = this.store.fd;
      this.placeOffset = this.store.origin + offset;
      return this.#runEnd - offset;
    }
    if (offset >= this.#dataEnd) {
      this.placeFd = NOWHERE;
      return this.#runEnd - offset;
    }
    const found = this.#backing.locate(offset, this.#dataEnd - offset);
    this.placeFd = this.#backing.placeFd;
    this.placeOffset = this.#backing.placeOffset;
    return found;
  }

  /** Also looks through to what the layers below have. */
  differenceAt(block: BlockIndex, limit: number): number {
    const run = this.map.runAt(block, limit);
    const state = this.map.runState;
    this.difference = state === RESERVED ? BASE : state;
    if (this.difference !== BASE) return run;
    const { backingLimit } = this.extent;
    const wholeBlocks = Math.floor(backingLimit / BLOCK_BYTES);
    if (block >= wholeBlocks && backingLimit < this.#backing.sizeBytes) {
      // What was cut off of the backing; of a block in the middle of which that begins, the rest still shows.
      const isPartial = block === wholeBlocks && backingLimit % BLOCK_BYTES > 0;
      this.difference = isPartial ? STORE : ZERO;
      return isPartial ? 1 : run;
    }
    const shown = block < wholeBlocks ? Math.min(run, wholeBlocks - block) : run;
    if (!(this.#backing instanceof Layer)) return shown;
    const below = this.#backing.differenceAt(block, shown);
    this.difference = this.#backing.difference;
    return below;
  }

  #enterRun(position: number, end: number): void {
    const block = Math.floor(position / BLOCK_BYTES);
    const run = this.map.runAt(block, Math.ceil(end / BLOCK_BYTES) - block);
    this.#runEnd = Math.min(end, (block + run) * BLOCK_BYTES);
    const state = this.map.runState;
    if (state === STORE) this.#dataEnd = this.#runEnd;
    else this.#dataEnd = state === ZERO ? position : Math.min(this.#runEnd, this.extent.backingLimit);
  }
}
