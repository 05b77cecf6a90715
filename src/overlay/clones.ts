/**
 * Layers that are clones of the base: made, copied and put back, by having files share blocks. They stand on nothing, and
 * nothing stands on them: a fork or a snapshot is another clone. For `Sessions`; any thread, one instance each.
 */
import { closeSync, fstatSync, ftruncateSync, futimesSync, type Stats } from 'node:fs';
import type { Base } from '../base/base.ts';
import { errnoName, OK } from '../lib/errno.ts';
import { CONTENT, cloneInto, Extents } from '../sys/reflink.ts';
import { Clone } from './clone.ts';
import { BASE_LAYER, type Layers } from './layers.ts';
import { LAYER } from './shared.ts';
import type { StoreDirectory } from './store-directory.ts';

export class Clones {
  readonly #layers: Layers;
  readonly #directory: StoreDirectory;
  readonly #base: Base;

  constructor(layers: Layers, directory: StoreDirectory, base: Base) {
    this.#layers = layers;
    this.#directory = directory;
    this.#base = base;
  }

  isClone(layer: number): boolean {
    return Atomics.load(this.#layers.control(layer), LAYER.CLONE) !== 0;
  }

  fd(layer: number): number {
    return Atomics.load(this.#layers.control(layer), LAYER.STORE) - 1;
  }

  /**
   * A layer with the content of a file, referenced once by whoever asked for it.
   *
   * @param sizeBytes the file's own unless given
   * @throws Error with the errno of the file system
   */
  create(from: number, sizeBytes?: number): number {
    const fd = this.#directory.open();
    try {
      share(from, fd, sizeBytes);
      return this.adopt(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** A layer whose store is a clone already. */
  adopt(fd: number): number {
    const { sizeBytes } = this.#base;
    const layer = this.#layers.create(BASE_LAYER, sizeBytes, sizeBytes);
    this.#layers.giveStore(layer, fd, 0);
    Atomics.store(this.#layers.control(layer), LAYER.CLONE, 1);
    return layer;
  }

  /** Another with the same content, as it is at one moment, whoever writes to it. */
  copy(layer: number): number {
    return this.create(this.fd(layer));
  }

  /**
   * Gives a layer, whose file stays, the content of another file.
   *
   * @param sizeBytes that file's own unless given
   * @throws Error with the errno of the file system; then it may have some of it
   */
  replace(layer: number, from: number, sizeBytes?: number): void {
    const fd = this.fd(layer);
    const { size } = fstatSync(from);
    // The blocks of a file that goes on behind can be shared only if they are whole. To nothing would be too far: who has
    // the disk mapped would get SIGBUS.
    if (fstatSync(fd).size > size) ftruncateSync(fd, size);
    share(from, fd, sizeBytes);
  }

  sizeBytes(layer: number): number {
    return fstatSync(this.fd(layer)).size;
  }

  /** Of its file; the time of modification is that of the last write, or 0. */
  stats(layer: number): Stats {
    return fstatSync(this.fd(layer));
  }

  /** From now on the time of its file tells of writes. */
  resetTime(layer: number): void {
    futimesSync(this.fd(layer), 0, 0);
  }

  open(layer: number): Clone {
    return new Clone(this.fd(layer), this.#base);
  }
}

function share(from: number, to: number, sizeBytes?: number): void {
  const errno = cloneInto(from, to);
  if (errno !== OK) throw Object.assign(new Error(`no blocks can be shared (${errnoName(errno)})`), { errno: -errno });
  // XFS copies up the last block where a size is set that the file has already.
  if (sizeBytes !== undefined && sizeBytes !== fstatSync(to).size) ftruncateSync(to, sizeBytes);
  // From now on its time tells of writes.
  futimesSync(to, 0, 0);
}

/** Bytes of a file that no other has; what is written and has no place yet counts among the blocks of the file only. */
export function unsharedBytes(fd: number): number {
  const extents = new Extents(fd, false);
  const { size, blocks } = fstatSync(fd);
  let placed = 0;
  let shared = 0;
  for (let at = 0; at < size; ) {
    const end = extents.at(at, size);
    if (extents.content !== CONTENT.NOTHING) placed += end - at;
    if (extents.isShared) shared += end - at;
    at = end;
  }
  return Math.max(blocks * 512, placed) - shared;
}
