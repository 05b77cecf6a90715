/**
 * The records of layers: made, opened, counted and freed. A layer lives as long as a session, a snapshot or another layer
 * stands on it. Any thread; one instance each.
 */
import { closeSync } from 'node:fs';
import type { Base } from '../base/base.ts';
import { lock, unlock } from '../lib/mutex.ts';
import { blocksAt } from './account.ts';
import type { Arena } from './arena.ts';
import { BLOCK_BYTES, RESERVED, BASE as SHOWS_BACKING } from './block.ts';
import { DiskExtent } from './extent.ts';
import type { OverlayFile } from './file/overlay-file.ts';
import { Layer } from './layer.ts';
import { BlockMap } from './map.ts';
import { EXTENT, LAYER, MOUNT } from './shared.ts';
import type { StoreDirectory } from './store-directory.ts';

/** In place of a layer: the base. */
export const BASE_LAYER = 0;

/** Gives back the space of stores that nobody needs any more. */
export function closeStores(stores: readonly number[]): void {
  for (const store of stores) closeSync(store);
}

export class Layers {
  readonly #arena: Arena;
  readonly #mount: Int32Array;
  readonly #base: Base;
  readonly #directory: StoreDirectory;
  readonly #file: OverlayFile | undefined;

  /** @param file behind the one layer that is kept, if there is one */
  constructor(arena: Arena, mount: Int32Array, base: Base, directory: StoreDirectory, file?: OverlayFile) {
    this.#arena = arena;
    this.#mount = mount;
    this.#base = base;
    this.#directory = directory;
    this.#file = file;
  }

  /**
   * A fresh layer, referenced once by whoever asked for it, on a backing that it references.
   *
   * @throws RangeError when no memory is left
   */
  create(backing: number, sizeBytes: number, backingBytes: number): number {
    return this.#locked(() => {
      const at = this.#arena.locked(() => this.#arena.allocate(LAYER.WORDS));
      const control = this.control(at);
      new DiskExtent(this.#arena, at, control).initialise(sizeBytes, backingBytes);
      Atomics.store(control, LAYER.BACKING, backing);
      Atomics.store(control, LAYER.REFERENCES, 1);
      if (backing !== BASE_LAYER) Atomics.add(this.control(backing), LAYER.REFERENCES, 1);
      const older = Atomics.exchange(this.#mount, MOUNT.NEWEST_LAYER, at);
      Atomics.store(control, LAYER.OLDER, older);
      if (older !== BASE_LAYER) Atomics.store(this.control(older), LAYER.NEWER, at);
      return at;
    });
  }

  /** Gives a layer that nobody has opened yet a store, in which the disk begins at byte `origin`. */
  giveStore(at: number, fd: number, origin: number): void {
    this.#arena.doubles(at + EXTENT.AT, EXTENT.COUNT)[EXTENT.ORIGIN] = origin;
    Atomics.store(this.control(at), LAYER.STORE, fd + 1);
  }

  /** Makes it one that the overlay file keeps. */
  keep(at: number): void {
    Atomics.store(this.control(at), LAYER.KEPT, 1);
  }

  isKept(at: number): boolean {
    return Atomics.load(this.control(at), LAYER.KEPT) !== 0;
  }

  control(at: number): Int32Array {
    return this.#arena.record(at, LAYER.WORDS);
  }

  extent(at: number): DiskExtent {
    return new DiskExtent(this.#arena, at, this.control(at));
  }

  backing(at: number): number {
    return Atomics.load(this.control(at), LAYER.BACKING);
  }

  /** A view of the layer and all below it, for this thread. */
  open(at: number): Layer {
    const below = this.backing(at);
    const backing = below === BASE_LAYER ? this.#base : this.open(below);
    const file = this.isKept(at) ? this.#file : undefined;
    return new Layer(this.#arena, at, backing, file?.directory ?? this.#directory, file);
  }

  references(at: number): number {
    return Atomics.load(this.control(at), LAYER.REFERENCES);
  }

  reference(at: number): void {
    this.#locked(() => Atomics.add(this.control(at), LAYER.REFERENCES, 1));
  }

  /**
   * Gives one reference up. The last one takes the layer's memory and its reference to what is below.
   *
   * @returns descriptors of stores that nobody needs any more, for `closeStores`: giving back much space takes time
   */
  release(at: number): number[] {
    const stores: number[] = [];
    this.#locked(() => {
      Atomics.add(this.#mount, MOUNT.RELEASES, 1);
      for (let layer = at; layer !== BASE_LAYER; ) {
        const control = this.control(layer);
        if (Atomics.sub(control, LAYER.REFERENCES, 1) > 1) return;
        const below = Atomics.load(control, LAYER.BACKING);
        this.#free(layer, stores);
        layer = below;
      }
    });
    return stores;
  }

  /** Counts references that were given up so far. */
  get releases(): number {
    return Atomics.load(this.#mount, MOUNT.RELEASES);
  }

  /**
   * Puts `below` in the place of the layer above it, which has given it all it had: whatever stood on `above` stands on
   * `below` from now on. Nobody is in a session that stands on either, and the references are what `releases` and
   * `create` see.
   *
   * @returns as `release`
   */
  replace(above: number, below: number): number[] {
    const stores: number[] = [];
    this.#locked(() => {
      const control = this.control(above);
      for (let at = Atomics.load(this.#mount, MOUNT.NEWEST_LAYER); at !== BASE_LAYER; at = this.#older(at)) {
        if (this.backing(at) === above) Atomics.store(this.control(at), LAYER.BACKING, below);
      }
      // The one reference that it had was the upper layer's.
      Atomics.add(this.control(below), LAYER.REFERENCES, Atomics.load(control, LAYER.REFERENCES) - 1);
      this.#free(above, stores);
      Atomics.add(this.#mount, MOUNT.TOPOLOGY, 1);
    });
    return stores;
  }

  #older(at: number): number {
    return Atomics.load(this.control(at), LAYER.OLDER);
  }

  /** Takes a layer out of the list and gives back its memory. */
  #free(at: number, stores: number[]): void {
    const control = this.control(at);
    const older = Atomics.load(control, LAYER.OLDER);
    const newer = Atomics.load(control, LAYER.NEWER);
    if (older !== BASE_LAYER) Atomics.store(this.control(older), LAYER.NEWER, newer);
    if (newer === BASE_LAYER) Atomics.store(this.#mount, MOUNT.NEWEST_LAYER, older);
    else Atomics.store(this.control(newer), LAYER.OLDER, older);
    const store = Atomics.load(control, LAYER.STORE) - 1;
    // That of a kept one is closed when it is clean.
    if (store >= 0 && !this.isKept(at)) stores.push(store);
    Atomics.sub(this.#mount, MOUNT.OCCUPIED_BLOCKS, Atomics.load(control, LAYER.OCCUPIED_BLOCKS));
    this.#arena.locked(() => {
      new BlockMap(this.#arena, control).free();
      this.#arena.free(at, LAYER.WORDS);
    });
  }

  #locked<T>(action: () => T): T {
    lock(this.#mount, MOUNT.LAYERS_MUTEX);
    try {
      return action();
    } finally {
      unlock(this.#mount, MOUNT.LAYERS_MUTEX);
    }
  }

  /** All layers, the youngest first. */
  all(): number[] {
    return this.#locked(() => {
      const found: number[] = [];
      for (let at = Atomics.load(this.#mount, MOUNT.NEWEST_LAYER); at !== BASE_LAYER; at = this.#older(at))
        found.push(at);
      return found;
    });
  }

  /** Blocks that the layer itself takes in its store. */
  ownBlocks(at: number): number {
    return blocksAt(this.control(at), LAYER.OCCUPIED_BLOCKS);
  }

  /** Whether room is set aside in it for writes to come. */
  hasReservations(at: number): boolean {
    return this.ownBlocks(at) !== blocksAt(this.control(at), LAYER.WRITTEN_BLOCKS);
  }

  /** Whether nothing was ever written to the layer; its size may have changed. */
  isClean(at: number): boolean {
    const control = this.control(at);
    return Atomics.load(control, LAYER.ROOT) === 0 && Atomics.load(control, LAYER.OCCUPIED_BLOCKS) === 0;
  }

  /** Layers from this one down to the base. */
  depth(at: number): number {
    return at === BASE_LAYER ? 0 : 1 + this.depth(this.backing(at));
  }

  /** Blocks that the layer and those below it take in their stores. */
  occupiedBlocks(at: number): number {
    let blocks = 0;
    for (let layer = at; layer !== BASE_LAYER; layer = this.backing(layer)) {
      blocks += this.ownBlocks(layer);
    }
    return blocks;
  }

  /**
   * Takes the layers from `below` down from under the one that stands on it, at or below `top`: the base has what they had.
   * Nobody is in a session that stands on them.
   *
   * @returns as `release`
   */
  standOnBase(top: number, below: number): number[] {
    let above = top;
    while (this.backing(above) !== below && this.backing(above) !== BASE_LAYER) above = this.backing(above);
    if (this.backing(above) !== below) return [];
    Atomics.store(this.control(above), LAYER.BACKING, BASE_LAYER);
    return this.release(below);
  }

  /** Makes a layer that nobody looks at one to which nothing was written, over all of its backing. */
  clear(at: number, sizeBytes: number, backingBytes: number): void {
    const control = this.control(at);
    Atomics.sub(this.#mount, MOUNT.OCCUPIED_BLOCKS, Atomics.exchange(control, LAYER.OCCUPIED_BLOCKS, 0));
    Atomics.store(control, LAYER.WRITTEN_BLOCKS, 0);
    this.extent(at).initialise(sizeBytes, backingBytes);
    this.#arena.locked(() => new BlockMap(this.#arena, control).free());
  }

  /** Corrects the account of a layer whose map was changed past it; its stores took no more than they gave. */
  recount(at: number): void {
    const control = this.control(at);
    const { map } = this.open(at);
    const occupied = map.occupied(0, map.blocks);
    const before = Atomics.exchange(control, LAYER.OCCUPIED_BLOCKS, occupied | 0);
    Atomics.add(this.#mount, MOUNT.OCCUPIED_BLOCKS, occupied - (before >>> 0));
  }

  /** Bytes that the stores of the layer and those below it really take on their file system. */
  usedBytes(at: number): number {
    let bytes = 0;
    for (let layer = at; layer !== BASE_LAYER; layer = this.backing(layer)) bytes += this.open(layer).store.usedBytes;
    return bytes;
  }

  /** Bytes of blocks that were written to the layer or those below it. */
  writtenBytes(at: number): number {
    let blocks = 0;
    for (let layer = at; layer !== BASE_LAYER; layer = this.backing(layer)) {
      blocks += blocksAt(this.control(layer), LAYER.WRITTEN_BLOCKS);
    }
    return blocks * BLOCK_BYTES;
  }

  /**
   * Gives back what was set aside for writes in a layer that takes none any more. The promise of fallocate(2) ends there,
   * as on file systems that share extents.
   */
  dropReservations(at: number): void {
    if (!this.hasReservations(at)) return;
    const control = this.control(at);
    const { map, store } = this.open(at);
    const end = map.blocks;
    let dropped = 0;
    for (let block = 0; block < end; ) {
      const run = map.runAt(block, end - block);
      if (map.runState === RESERVED) {
        store.discard(block * BLOCK_BYTES, run * BLOCK_BYTES);
        map.set(block, run, SHOWS_BACKING);
        dropped += run;
      }
      block += run;
    }
    Atomics.sub(control, LAYER.OCCUPIED_BLOCKS, dropped);
    Atomics.sub(this.#mount, MOUNT.OCCUPIED_BLOCKS, dropped);
  }
}
