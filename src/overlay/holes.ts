/**
 * Where a disk has data and where holes (lseek(2), SEEK_DATA and SEEK_HOLE): the map's runs, and within those that show
 * the base, the base's own holes. Takes no lock: an answer is as old as the question.
 */
import type { Base } from '../base/base.ts';
import { ENXIO, type Errno, OK } from '../lib/errno.ts';
import { BLOCK_BYTES, STORE, ZERO } from './block.ts';
import type { DiskExtent } from './extent.ts';
import type { BlockMap } from './map.ts';

export class Holes {
  /** Offset that the last question found. */
  found = 0;

  readonly #base: Base;
  readonly #map: BlockMap;
  readonly #extent: DiskExtent;
  /** End of the current run, and of the part of it that may hold data. */
  #runEnd = 0;
  #dataEnd = 0;

  constructor(base: Base, map: BlockMap, extent: DiskExtent) {
    this.#base = base;
    this.#map = map;
    this.#extent = extent;
  }

  /** First data at or after `offset` into `found`; ENXIO if only holes follow. */
  seekData(offset: number): Errno {
    const size = this.#extent.sizeBytes;
    for (let position = offset; position < size; position = this.#runEnd) {
      this.#enterRun(position, size);
      if (position >= this.#dataEnd) continue;
      this.found = this.#map.runState === STORE ? position : this.#base.nextData(position, this.#dataEnd);
      if (this.found < this.#dataEnd) return OK;
    }
    return ENXIO;
  }

  /** First hole at or after `offset` into `found`, the end of the disk at the latest; ENXIO past it. */
  seekHole(offset: number): Errno {
    const size = this.#extent.sizeBytes;
    if (offset >= size) return ENXIO;
    for (let position = offset; position < size; position = this.#runEnd) {
      this.#enterRun(position, size);
      if (this.#map.runState === STORE) continue;
      this.found = position < this.#dataEnd ? this.#base.nextHole(position, this.#dataEnd) : position;
      if (this.found < this.#runEnd) return OK;
    }
    this.found = size;
    return OK;
  }

  #enterRun(position: number, size: number): void {
    const block = Math.floor(position / BLOCK_BYTES);
    const run = this.#map.runAt(block, Math.ceil(size / BLOCK_BYTES) - block);
    this.#runEnd = Math.min(size, (block + run) * BLOCK_BYTES);
    const state = this.#map.runState;
    if (state === STORE) this.#dataEnd = this.#runEnd;
    else this.#dataEnd = state === ZERO ? position : Math.min(this.#runEnd, this.#extent.baseLimit);
  }
}
