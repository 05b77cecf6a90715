/**
 * The size of a disk and how much of its base still shows, in shared memory: read without a lock on every request,
 * changed under a mutex.
 */
import { lock, unlock } from '../lib/mutex.ts';
import { CONTROL, EXTENT, type OverlayShared } from './shared.ts';

export class DiskExtent {
  readonly #control: Int32Array;
  readonly #extent: Float64Array;

  static initialise(control: SharedArrayBuffer, sizeBytes: number, baseBytes: number): void {
    const extent = new Float64Array(control, CONTROL.BYTES, EXTENT.COUNT);
    extent[EXTENT.SIZE] = sizeBytes;
    extent[EXTENT.BASE_LIMIT] = Math.min(baseBytes, sizeBytes);
  }

  constructor({ control }: OverlayShared) {
    this.#control = new Int32Array(control, 0, CONTROL.BYTES / 4);
    this.#extent = new Float64Array(control, CONTROL.BYTES, EXTENT.COUNT);
  }

  get sizeBytes(): number {
    return this.#extent[EXTENT.SIZE] as number;
  }

  /** Bytes of the base that still show; past them its blocks are zeros. */
  get baseLimit(): number {
    return this.#extent[EXTENT.BASE_LIMIT] as number;
  }

  growTo(size: number): void {
    if (size <= this.sizeBytes) return;
    lock(this.#control, CONTROL.SIZE_MUTEX);
    if (size > this.sizeBytes) this.#extent[EXTENT.SIZE] = size;
    unlock(this.#control, CONTROL.SIZE_MUTEX);
  }

  /** What is cut off does not come back: the base is hidden from here on. */
  shrinkTo(size: number): void {
    lock(this.#control, CONTROL.SIZE_MUTEX);
    this.#extent[EXTENT.SIZE] = size;
    this.#extent[EXTENT.BASE_LIMIT] = Math.min(this.baseLimit, size);
    unlock(this.#control, CONTROL.SIZE_MUTEX);
  }
}
