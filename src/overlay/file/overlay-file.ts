/**
 * The file behind a kept disk while it is served: makes durable what was written (fsync(2)), empties it, finishes it. Any
 * thread; one at a time does so, the others wait. Opening and checking is `open.ts`, the bytes are `layout.ts`.
 *
 * The order that makes it safe at any instant: data and changed pages of the map, each page into the slot that is not in
 * force; fdatasync; a header of the next generation, into the older of its slots; fdatasync. Whoever opens the file
 * after a crash finds the newest whole header, and ignores pages that are younger than it.
 */
import { fdatasyncSync } from 'node:fs';
import { EINTR, type Errno, errnoOf, isNoSpace, OK } from '../../lib/errno.ts';
import { lock, unlock } from '../../lib/mutex.ts';
import { readAll, writeAll } from '../../sys/file-bytes.ts';
import { FALLOC_FL_KEEP_SIZE, fallocate } from '../../sys/libc.ts';
import type { DiskExtent } from '../extent.ts';
import type { BlockMap } from '../map.ts';
import type { Store } from '../store.ts';
import { StoreDirectory } from '../store-directory.ts';
import { KEPT, KEPT_NUMBERS, KeptMemory } from './kept-memory.ts';
import {
  capacityBytes,
  digestOf,
  encodeHeader,
  HEADER_BYTES,
  type Header,
  LEAF_WORDS,
  MapPage,
  PAGE_BYTES,
  PAGE_LEAVES,
  PAGE_SLOTS,
  pageOffset,
} from './layout.ts';

/** Plain data, posted to every thread. */
export interface OverlayFileSpec {
  readonly fd: number;
  /** Of the directory that it lies in. */
  readonly directoryFd: number;
  readonly memory: SharedArrayBuffer;
  /** As the file was opened; what changes is in `memory`. */
  readonly header: Header;
}

/** A view of the layer that is kept. */
export interface KeptLayer {
  readonly map: BlockMap;
  readonly extent: DiskExtent;
  readonly store: Store;
}

interface WrittenPage {
  readonly page: number;
  readonly slot: number;
  readonly checksum: number;
}

export class OverlayFile {
  readonly memory: KeptMemory;
  readonly directory: StoreDirectory;
  /** Of the largest disk that its map can tell of. */
  readonly maxBytes: number;
  readonly #fd: number;
  readonly #page = new MapPage();
  #header: Header;

  constructor({ fd, directoryFd, memory, header }: OverlayFileSpec) {
    this.directory = new StoreDirectory(directoryFd);
    this.#fd = fd;
    this.#header = header;
    this.maxBytes = capacityBytes(header);
    this.memory = new KeptMemory(memory, header.mapPages);
  }

  /**
   * Makes durable what was written before the call.
   *
   * @param layer a view of the layer that it keeps
   * @returns what the file system says; EIO from then on if it has lost something
   */
  sync(layer: KeptLayer): Errno {
    const { words } = this.memory;
    const before = Atomics.load(words, KEPT.STARTED);
    lock(words, KEPT.MUTEX);
    try {
      // One that began after we came has done our work, too.
      if (((Atomics.load(words, KEPT.SUCCEEDED) - before) | 0) > 0) return OK;
      return this.#sync(layer, false);
    } finally {
      unlock(words, KEPT.MUTEX);
    }
  }

  /**
   * Empties it in one step, durably: the disk is the base again. Nobody is in the session.
   *
   * @param forget makes the layer's map and extent those of an empty overlay
   * @param base what the base is now; as it was unless said otherwise
   */
  empty(layer: KeptLayer, forget: () => void, base = this.#header.base): Errno {
    const { words } = this.memory;
    lock(words, KEPT.MUTEX);
    try {
      this.#header = { ...this.#header, base };
      forget();
      this.memory.markAll();
      const errno = this.#sync(layer, true);
      // Only now: until then a crash would find the old map and no data.
      return errno === OK ? layer.store.cut(0) : errno;
    } finally {
      unlock(words, KEPT.MUTEX);
    }
  }

  /** Writes a header although nothing may have changed: what is in force is not what the last one says. */
  rewrite(layer: KeptLayer): Errno {
    lock(this.memory.words, KEPT.MUTEX);
    try {
      return this.#sync(layer, true);
    } finally {
      unlock(this.memory.words, KEPT.MUTEX);
    }
  }

  /**
   * The last sync, with both slots of everything made equal, so that damage to one can be mended from the other. Nobody
   * writes any more.
   */
  finish(layer: KeptLayer): Errno {
    lock(this.memory.words, KEPT.MUTEX);
    try {
      const errno = this.#sync(layer, false);
      return errno === OK ? this.#twin() : errno;
    } finally {
      unlock(this.memory.words, KEPT.MUTEX);
    }
  }

  #sync(layer: KeptLayer, force: boolean): Errno {
    const { memory } = this;
    const { words, numbers } = memory;
    const failed = Atomics.load(words, KEPT.FAILED);
    if (failed !== OK) return failed;
    if (!force && this.#isInForce(layer)) return OK;
    const number = Atomics.add(words, KEPT.STARTED, 1) + 1;
    Atomics.store(words, KEPT.WRITTEN, 0);
    const generation = numbers[KEPT_NUMBERS.NEXT_GENERATION] as number;
    const pages: WrittenPage[] = [];
    let errno = this.#writePages(layer, generation, pages);
    // After the pages: who cuts a disk shorter does that before the map forgets what is cut off.
    const { sizeBytes, backingLimit } = layer.extent.both();
    if (errno === OK) errno = this.#flush();
    if (errno === OK && (pages.length > 0 || force || !this.#hasExtent(sizeBytes, backingLimit))) {
      errno = this.#publish(generation, pages, sizeBytes, backingLimit);
    }
    if (errno !== OK) {
      // Nothing of it is in force: it is to be written again, with what has changed besides.
      for (const { page } of pages) memory.set('dirty', page, true);
      Atomics.store(words, KEPT.WRITTEN, 1);
      return errno;
    }
    Atomics.store(words, KEPT.SUCCEEDED, number);
    return OK;
  }

  /** Whether nothing was written since the last sync. */
  #isInForce({ extent }: KeptLayer): boolean {
    const { words } = this.memory;
    if (Atomics.load(words, KEPT.WRITTEN) !== 0) return false;
    const { sizeBytes, backingLimit } = extent.both();
    return this.#hasExtent(sizeBytes, backingLimit) && this.memory.next('dirty', 0) === this.memory.pages;
  }

  #hasExtent(sizeBytes: number, backingLimit: number): boolean {
    const { numbers } = this.memory;
    return sizeBytes === numbers[KEPT_NUMBERS.DISK_BYTES] && backingLimit === numbers[KEPT_NUMBERS.BACKING_LIMIT];
  }

  /** Changed pages into their free slots; those that were begun are in `pages`, also on an error. */
  #writePages(layer: KeptLayer, generation: number, pages: WrittenPage[]): Errno {
    const { memory } = this;
    for (let page = memory.next('dirty', 0); page < memory.pages; page = memory.next('dirty', page + 1)) {
      // First: a change from here on marks it again.
      memory.set('dirty', page, false);
      const isNew = !memory.has('inForce', page);
      const slot = isNew || memory.has('slot', page) ? 0 : 1;
      // Room for both slots, so that no later sync of it wants any; where that cannot be asked for, it may.
      const reserved = isNew
        ? fallocate(this.#fd, FALLOC_FL_KEEP_SIZE, pageOffset(page, 0), PAGE_SLOTS * PAGE_BYTES)
        : OK;
      for (let leaf = 0; leaf < PAGE_LEAVES; leaf++) {
        layer.map.copyLeaf(page * PAGE_LEAVES + leaf, this.#page.words, leaf * LEAF_WORDS);
      }
      this.#page.seal(this.#header.id, page, generation);
      pages.push({ page, slot, checksum: this.#page.checksum });
      const errno = isNoSpace(reserved) ? reserved : this.#write(this.#page.bytes, pageOffset(page, slot));
      if (errno !== OK) return errno;
    }
    return OK;
  }

  #publish(generation: number, pages: readonly WrittenPage[], diskBytes: number, backingLimit: number): Errno {
    const { memory } = this;
    const { words, numbers } = memory;
    let digest = Atomics.load(words, KEPT.DIGEST);
    let inForce = Atomics.load(words, KEPT.PAGES_IN_FORCE);
    for (const { page, checksum } of pages) {
      if (memory.has('inForce', page)) digest ^= digestOf(page, memory.checksum(page));
      else inForce += 1;
      digest ^= digestOf(page, checksum);
    }
    const header = {
      ...this.#header,
      clean: false,
      generation,
      diskBytes,
      backingLimit,
      digest,
      pagesInForce: inForce,
    };
    const slot = 1 - Atomics.load(words, KEPT.HEADER_SLOT);
    const written = this.#write(encodeHeader(header), slot * HEADER_BYTES);
    const errno = written === OK ? this.#flush() : written;
    if (errno !== OK) return errno;
    for (const { page, slot, checksum } of pages) {
      memory.set('slot', page, slot === 1);
      memory.set('inForce', page, true);
      memory.set('touched', page, true);
      memory.setChecksum(page, checksum);
    }
    Atomics.store(words, KEPT.HEADER_SLOT, slot);
    Atomics.store(words, KEPT.DIGEST, digest);
    Atomics.store(words, KEPT.PAGES_IN_FORCE, inForce);
    numbers[KEPT_NUMBERS.GENERATION] = generation;
    numbers[KEPT_NUMBERS.NEXT_GENERATION] = generation + 1;
    numbers[KEPT_NUMBERS.DISK_BYTES] = diskBytes;
    numbers[KEPT_NUMBERS.BACKING_LIMIT] = backingLimit;
    return OK;
  }

  /** The slots that are not in force become copies of those that are. */
  #twin(): Errno {
    const { memory } = this;
    const { words, numbers } = memory;
    for (let page = memory.next('touched', 0); page < memory.pages; page = memory.next('touched', page + 1)) {
      const slot = memory.has('slot', page) ? 1 : 0;
      const errno = readAll(this.#fd, pageOffset(page, slot), PAGE_BYTES, this.#page.bytes, 0);
      if (errno !== OK) return errno;
      // What was damaged since it was written is not copied over a whole one.
      if (!this.#page.isSealed(this.#header.id, page) || this.#page.checksum !== memory.checksum(page)) continue;
      const written = this.#write(this.#page.bytes, pageOffset(page, 1 - slot));
      if (written !== OK) return written;
    }
    const bytes = encodeHeader({
      ...this.#header,
      clean: true,
      generation: numbers[KEPT_NUMBERS.GENERATION] as number,
      diskBytes: numbers[KEPT_NUMBERS.DISK_BYTES] as number,
      backingLimit: numbers[KEPT_NUMBERS.BACKING_LIMIT] as number,
      digest: Atomics.load(words, KEPT.DIGEST),
      pagesInForce: Atomics.load(words, KEPT.PAGES_IN_FORCE),
    });
    // The one in force last: until the other is whole, it is the one that counts.
    const inForce = Atomics.load(words, KEPT.HEADER_SLOT);
    for (const slot of [1 - inForce, inForce]) {
      const flushed = this.#flush();
      const errno = flushed === OK ? this.#write(bytes, slot * HEADER_BYTES) : flushed;
      if (errno !== OK) return errno;
    }
    return this.#flush();
  }

  #write(bytes: Buffer, offset: number): Errno {
    return writeAll(this.#fd, offset, bytes.length, bytes, 0);
  }

  /** fdatasync(2). A failure is for good: the host's kernel counts the lost pages as written (fsyncgate). */
  #flush(): Errno {
    for (;;) {
      try {
        fdatasyncSync(this.#fd);
        return OK;
      } catch (error) {
        const errno = errnoOf(error);
        if (errno !== EINTR) return this.#fail(errno);
      }
    }
  }

  #fail(errno: Errno): Errno {
    Atomics.store(this.memory.words, KEPT.FAILED, errno);
    return errno;
  }
}
