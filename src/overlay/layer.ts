/**
 * A layer for reading: blocks that were written are in its store, trimmed ones are zeros, all others are the backing's.
 * The backing is the base, or another layer, which is frozen: nothing is written there any more. One instance a
 * thread; writing is `disk.ts`, the records behind layers are `layers.ts`.
 */
import type { Backing } from '../base/backing.ts';
import { type Errno, OK } from '../lib/errno.ts';
import type { Arena } from './arena.ts';
import { BLOCK_BYTES, STORE, ZERO } from './block.ts';
import { DiskExtent } from './extent.ts';
import { BlockMap } from './map.ts';
import { LAYER } from './shared.ts';
import { Store } from './store.ts';
import type { StoreDirectory } from './store-directory.ts';

export class Layer implements Backing {
  /** Its record. */
  readonly control: Int32Array;
  readonly map: BlockMap;
  readonly store: Store;
  readonly extent: DiskExtent;
  /** Where its store is, or will be. */
  readonly directory: StoreDirectory;

  readonly #backing: Backing;
  /** End of the current run, and of the part of it that may hold data. */
  #runEnd = 0;
  #dataEnd = 0;

  /** @param at index of its record */
  constructor(arena: Arena, at: number, backing: Backing, directory: StoreDirectory) {
    this.control = arena.record(at, LAYER.WORDS);
    this.map = new BlockMap(arena, this.control);
    this.store = new Store(this.control, directory);
    this.extent = new DiskExtent(arena, at, this.control);
    this.directory = directory;
    this.#backing = backing;
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

  #enterRun(position: number, end: number): void {
    const block = Math.floor(position / BLOCK_BYTES);
    const run = this.map.runAt(block, Math.ceil(end / BLOCK_BYTES) - block);
    this.#runEnd = Math.min(end, (block + run) * BLOCK_BYTES);
    const state = this.map.runState;
    if (state === STORE) this.#dataEnd = this.#runEnd;
    else this.#dataEnd = state === ZERO ? position : Math.min(this.#runEnd, this.extent.backingLimit);
  }
}
