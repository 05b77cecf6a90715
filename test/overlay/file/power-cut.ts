/**
 * What a power cut may leave of a file. Everything up to the last fdatasync(2) is there; of what came after it every
 * sector has any of the contents that it had since, and the size is any that it had: writes may be missing, come in any
 * order and be torn.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { OK } from '../../../src/lib/errno.ts';
import { lseek, lseekResult, SEEK_DATA, SEEK_HOLE } from '../../../src/sys/libc.ts';
import type { Random } from '../random.ts';
import type { FileEvent } from './file-tap.ts';

const SECTOR = 512;
const PAGE = 4096;
const SECTORS = PAGE / SECTOR;
const NOTHING = Buffer.alloc(PAGE);

/** Pages that are not zeros, by their number. Buffers are never changed. */
export interface FileImage {
  readonly pages: ReadonlyMap<number, Buffer>;
  readonly sizeBytes: number;
}

interface Version {
  /** Number of the event since the last sync, from 1 on, that made it. */
  readonly event: number;
  readonly bytes: Buffer;
}

/** Of a sector: how many of the contents that it had since the last sync have been, the last of which it has. */
type Choice = (versions: readonly Version[], sector: number) => number;

export class UnsyncedFile {
  #pages: Map<number, Buffer>;
  #sizeBytes: number;
  #durable: FileImage;
  readonly #versions = new Map<number, Version[]>();
  /** That it had since the last sync. */
  #sizes: number[] = [];
  /** Since the last sync. */
  #events = 0;
  #last: FileEvent = { kind: 'sync' };

  /** @param image all of which is durable */
  constructor(image: FileImage) {
    this.#pages = new Map(image.pages);
    this.#sizeBytes = image.sizeBytes;
    this.#durable = image;
  }

  apply(event: FileEvent): void {
    this.#last = event;
    if (event.kind === 'sync') {
      this.#durable = { pages: new Map(this.#pages), sizeBytes: this.#sizeBytes };
      this.#versions.clear();
      this.#sizes = [];
      this.#events = 0;
      return;
    }
    this.#events += 1;
    switch (event.kind) {
      case 'write':
        this.#put(event.offset, event.bytes);
        this.#resize(Math.max(this.#sizeBytes, event.offset + event.bytes.length));
        break;
      case 'punch':
        this.#zero(event.offset, event.offset + event.length);
        break;
      case 'reserve':
        if (!event.keepsSize) this.#resize(Math.max(this.#sizeBytes, event.offset + event.length));
        break;
      case 'truncate':
        this.#zero(event.sizeBytes, Number.POSITIVE_INFINITY);
        this.#resize(event.sizeBytes);
        break;
    }
  }

  /** Whether nothing was changed since the last sync. */
  get isSynced(): boolean {
    return this.#events === 0;
  }

  /** The file as the page cache has it. */
  get whole(): FileImage {
    return { pages: this.#pages, sizeBytes: this.#sizeBytes };
  }

  /** What a power cut now may leave: nothing of what was not synced, all of it, and `count` mixtures. */
  *cuts(random: Random, count: number): Generator<readonly [kind: string, image: FileImage]> {
    yield ['none', this.#durable];
    if (this.isSynced) return;
    yield ['all', this.#image(all, this.#sizeBytes)];
    for (let index = 0; index < count; index++) yield this.cut(random);
  }

  /** One mixture. */
  cut(random: Random): readonly [kind: string, image: FileImage] {
    switch (random.below(6)) {
      case 0:
        return ['subset', this.#subset(random)];
      case 1:
        // Sectors on their own.
        return ['torn at 512', this.#image((versions) => random.below(versions.length + 1), this.#anySize(random))];
      case 2:
        return ['reordered at 4096', this.#pageTimes(random)];
      case 3:
        return ['torn end', this.#tornEnd(random)];
      case 4:
        return ['regions', this.#regions(random)];
      default:
        return ['subset, torn', this.#tornSubset(random)];
    }
  }

  /** Of the events some. */
  #subset(random: Random): FileImage {
    const taken = this.#someEvents(random);
    return this.#image((versions) => lastOf(versions, (event) => taken[event] === true), this.#anySize(random));
  }

  #tornSubset(random: Random): FileImage {
    const taken = this.#someEvents(random);
    const unit = random.below(2) === 0 ? SECTOR : PAGE;
    const salt = random.below(2 ** 30);
    const isLost = (sector: number): boolean => hash(Math.floor((sector * SECTOR) / unit) ^ salt) % 4 === 0;
    return this.#image((versions, sector) => {
      const found = lastOf(versions, (event) => taken[event] === true);
      return found > 0 && isLost(sector) ? random.below(found) : found;
    }, this.#anySize(random));
  }

  /** Every page was written back at a time of its own. */
  #pageTimes(random: Random): FileImage {
    const times = new Map<number, number>();
    return this.#image((versions, sector) => {
      const page = Math.floor(sector / SECTORS);
      const time = times.get(page) ?? random.below(this.#events + 1);
      times.set(page, time);
      return lastOf(versions, (event) => event <= time);
    }, this.#anySize(random));
  }

  /** All but the last event, and of that a part. */
  #tornEnd(random: Random): FileImage {
    const before = (versions: readonly Version[]): number => lastOf(versions, (event) => event < this.#events);
    if (this.#last.kind !== 'write') return this.#image(before, this.#sizeBytes);
    const first = Math.floor(this.#last.offset / SECTOR);
    const end = Math.ceil((this.#last.offset + this.#last.bytes.length) / SECTOR);
    const unit = random.below(2) === 0 ? 1 : SECTORS;
    const at = Math.floor((first + random.below(end - first + 1)) / unit) * unit;
    const isHead = random.below(2) === 0;
    const isThere = (sector: number): boolean => (isHead ? sector < at : sector >= at);
    return this.#image(
      (versions, sector) => (isThere(sector) ? versions.length : before(versions)),
      random.below(2) === 0 ? this.#sizeBytes : this.#anySize(random),
    );
  }

  /** Headers, map and data each as old or as new as can be, or mixed. */
  #regions(random: Random): FileImage {
    const modes = [random.below(3), random.below(3), random.below(3)];
    return this.#image((versions, sector) => {
      const offset = sector * SECTOR;
      const mode = modes[offset < 16384 ? 0 : offset < 100 * 2 ** 20 ? 1 : 2];
      return mode === 0 ? 0 : mode === 1 ? versions.length : random.below(versions.length + 1);
    }, this.#anySize(random));
  }

  #someEvents(random: Random): boolean[] {
    const tenths = 1 + random.below(9);
    return Array.from({ length: this.#events + 1 }, () => random.below(10) < tenths);
  }

  #anySize(random: Random): number {
    return this.#sizes[random.below(this.#sizes.length + 1)] ?? this.#durable.sizeBytes;
  }

  #image(choose: Choice, sizeBytes: number): FileImage {
    const pages = new Map(this.#durable.pages);
    const fresh = new Map<number, Buffer>();
    for (const [sector, versions] of this.#versions) {
      const chosen = choose(versions, sector);
      if (chosen === 0) continue;
      const page = Math.floor(sector / SECTORS);
      let bytes = fresh.get(page);
      if (bytes === undefined) {
        bytes = Buffer.from(pages.get(page) ?? NOTHING);
        fresh.set(page, bytes);
        pages.set(page, bytes);
      }
      bytes.set((versions[chosen - 1] as Version).bytes, (sector % SECTORS) * SECTOR);
    }
    for (const [page, bytes] of pages) {
      const inside = sizeBytes - page * PAGE;
      if (inside <= 0) pages.delete(page);
      else if (inside < PAGE) pages.set(page, Buffer.concat([bytes.subarray(0, inside), NOTHING.subarray(inside)]));
    }
    return { pages, sizeBytes };
  }

  #put(offset: number, from: Buffer): void {
    for (let at = 0; at < from.length; ) {
      const page = Math.floor((offset + at) / PAGE);
      const inPage = offset + at - page * PAGE;
      const length = Math.min(PAGE - inPage, from.length - at);
      const bytes = Buffer.from(this.#pages.get(page) ?? NOTHING);
      bytes.set(from.subarray(at, at + length), inPage);
      this.#change(page, bytes, inPage, inPage + length);
      at += length;
    }
  }

  #zero(start: number, end: number): void {
    for (const [page, old] of [...this.#pages]) {
      const from = Math.max(0, start - page * PAGE);
      const to = Math.min(PAGE, end - page * PAGE);
      if (from >= to) continue;
      this.#change(page, Buffer.from(old).fill(0, from, to), from, to);
    }
  }

  #change(page: number, bytes: Buffer, from: number, to: number): void {
    if (bytes.equals(NOTHING)) this.#pages.delete(page);
    else this.#pages.set(page, bytes);
    for (let sector = Math.floor(from / SECTOR); sector * SECTOR < to; sector++) {
      const at = page * SECTORS + sector;
      const version = { event: this.#events, bytes: bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR) };
      const versions = this.#versions.get(at);
      if (versions === undefined) this.#versions.set(at, [version]);
      else versions.push(version);
    }
  }

  #resize(sizeBytes: number): void {
    if (sizeBytes === this.#sizeBytes) return;
    this.#sizeBytes = sizeBytes;
    this.#sizes.push(sizeBytes);
  }
}

function all(versions: readonly Version[]): number {
  return versions.length;
}

function lastOf(versions: readonly Version[], isThere: (event: number) => boolean): number {
  let found = versions.length;
  while (found > 0 && !isThere((versions[found - 1] as Version).event)) found--;
  return found;
}

function hash(value: number): number {
  const mixed = Math.imul(value ^ (value >>> 16), 0x45d9f3b);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** A file's content, without its holes. */
export function imageOf(fd: number, sizeBytes: number): FileImage {
  const pages = new Map<number, Buffer>();
  for (let offset = 0; offset < sizeBytes && lseek(fd, offset, SEEK_DATA) === OK; ) {
    const from = Math.floor(lseekResult() / PAGE);
    lseek(fd, from * PAGE, SEEK_HOLE);
    offset = lseekResult();
    for (let page = from; page * PAGE < offset; page++) {
      const bytes = Buffer.alloc(PAGE);
      readSync(fd, bytes, 0, PAGE, page * PAGE);
      if (!bytes.equals(NOTHING)) pages.set(page, bytes);
    }
  }
  return { pages, sizeBytes };
}

/** Makes it a file; pages of zeros become holes. */
export function writeImage(path: string, { pages, sizeBytes }: FileImage): void {
  const fd = openSync(path, 'w', 0o600);
  try {
    const sorted = [...pages.keys()].sort((a, b) => a - b);
    for (let at = 0; at < sorted.length; ) {
      const first = sorted[at] as number;
      const run: Buffer[] = [];
      for (; sorted[at] === first + run.length; at++) run.push(pages.get(sorted[at] as number) as Buffer);
      writeSync(fd, Buffer.concat(run), 0, run.length * PAGE, first * PAGE);
    }
    ftruncateSync(fd, sizeBytes);
  } finally {
    closeSync(fd);
  }
}
