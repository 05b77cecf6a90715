/**
 * The size of a layer and how much of its backing still shows, in shared memory: read without a lock on every request,
 * changed under a mutex.
 */
import { lock, unlock } from '../lib/mutex.ts';
import type { Arena } from './arena.ts';
import { EXTENT, LAYER } from './shared.ts';

export class DiskExtent {
  readonly #control: Int32Array;
  readonly #extent: Float64Array;

  /** @param layer index of the layer's record */
  constructor(arena: Arena, layer: number, control: Int32Array) {
    this.#control = control;
    this.#extent = arena.doubles(layer + EXTENT.AT, EXTENT.COUNT);
  }

  /** Of a layer that nobody else knows yet. */
  initialise(sizeBytes: number, backingBytes: number): void {
    this.#extent[EXTENT.SIZE] = sizeBytes;
    this.#extent[EXTENT.BACKING_LIMIT] = Math.min(backingBytes, sizeBytes);
  }

  get sizeBytes(): number {
    return this.#extent[EXTENT.SIZE] as number;
  }

  /** Bytes of the backing that still show; past them blocks of the backing are zeros. */
  get backingLimit(): number {
    return this.#extent[EXTENT.BACKING_LIMIT] as number;
  }

  /** Both, as they were at one moment. */
  both(): { readonly sizeBytes: number; readonly backingLimit: number } {
    lock(this.#control, LAYER.SIZE_MUTEX);
    const { sizeBytes, backingLimit } = this;
    unlock(this.#control, LAYER.SIZE_MUTEX);
    return { sizeBytes, backingLimit };
  }

  growTo(size: number): void {
    if (size <= this.sizeBytes) return;
    lock(this.#control, LAYER.SIZE_MUTEX);
    if (size > this.sizeBytes) this.#extent[EXTENT.SIZE] = size;
    unlock(this.#control, LAYER.SIZE_MUTEX);
  }

  /** What is cut off does not come back: the backing is hidden from here on. */
  shrinkTo(size: number): void {
    lock(this.#control, LAYER.SIZE_MUTEX);
    this.#extent[EXTENT.SIZE] = size;
    this.#extent[EXTENT.BACKING_LIMIT] = Math.min(this.backingLimit, size);
    unlock(this.#control, LAYER.SIZE_MUTEX);
  }
}
