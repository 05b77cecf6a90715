/**
 * A kept disk that lives through random operations while every change of its file is watched, so that a test can look at
 * any moment at what a power cut would leave; and the look itself, as the next mount has it.
 */
import { closeSync, fstatSync, rmSync } from 'node:fs';
import type { BaseDescriptor } from '../../../src/base/base.ts';
import { EOPNOTSUPP, type Errno, errnoName, OK } from '../../../src/lib/errno.ts';
import { STORE } from '../../../src/overlay/block.ts';
import type { Disk } from '../../../src/overlay/disk.ts';
import { checkOverlay } from '../../../src/overlay/file/check.ts';
import { MAP_OFFSET } from '../../../src/overlay/file/layout.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import { readDisk } from '../disk-fixture.ts';
import { nonZeroBytes, type Random } from '../random.ts';
import { DISK_BYTES, DiskHistory, isInWindow, MOST_BYTES, readWindows, WINDOWS } from './disk-history.ts';
import { type FileEvent, tap } from './file-tap.ts';
import { type KeptMount, mountKept, openKept } from './kept-disk.ts';
import { type FileImage, imageOf, UnsyncedFile, writeImage } from './power-cut.ts';

const BLOCK = 4096;

export interface LifeOptions {
  readonly random: Random;
  readonly path: string;
  readonly basePath: string;
  /** Of an overlay that a crash left; undefined to make one. */
  readonly image?: FileImage | undefined;
  /** Of the disk until then. */
  readonly history?: DiskHistory | undefined;
  /** Whether its file system can make holes; yes unless said otherwise. */
  readonly canPunch?: boolean;
  /** After each change of the file. It must not do what the code under test does: that is in the middle of it. */
  readonly onEvent: (life: KeptLife) => void;
  /** After each operation, before what it has made durable counts as durable. */
  readonly onOperation: (life: KeptLife) => void;
}

export class KeptLife {
  readonly history: DiskHistory;
  /** Calls that changed the file so far. */
  events = 0;
  readonly #onEvent: (life: KeptLife) => void;
  readonly #onOperation: (life: KeptLife) => void;
  /** The last few, for messages. */
  readonly log: string[] = [];
  #file: UnsyncedFile;
  #mount: KeptMount;
  readonly #random: Random;
  readonly #path: string;
  readonly #basePath: string;

  constructor({ random, path, basePath, image, history, onEvent, onOperation, canPunch = true }: LifeOptions) {
    this.#random = random;
    this.#path = path;
    this.#basePath = basePath;
    this.#onEvent = onEvent;
    this.#onOperation = onOperation;
    this.history = history ?? new DiskHistory(DISK_BYTES);
    if (image === undefined) rmSync(path, { force: true });
    else writeImage(path, image);
    this.#file = new UnsyncedFile(image ?? { pages: new Map(), sizeBytes: 0 });
    const before = ({ kind }: FileEvent): Errno | undefined => (kind === 'punch' && !canPunch ? EOPNOTSUPP : undefined);
    tap.current = { path, fd: -1, before, after: (event) => this.#seen(event) };
    this.#mount = mountKept(path, basePath, image === undefined ? DISK_BYTES : undefined);
    if (image !== undefined) return;
    const { fd } = this.#mount.spec;
    this.#file = new UnsyncedFile(imageOf(fd, fstatSync(fd).size));
    tap.current.fd = fd;
  }

  get file(): UnsyncedFile {
    return this.#file;
  }

  close(): void {
    tap.current = undefined;
    this.#mount.close();
  }

  /** Some operation, which must succeed. */
  step(): void {
    const random = this.#random;
    const dice = random.below(100);
    if (dice < 42) this.#write();
    else if (dice < 54) this.#discard();
    else if (dice < 59) this.#allocate();
    else if (dice < 67) this.#shrink();
    else if (dice < 75) this.#grow();
    else if (dice < 94) this.sync();
    else if (dice < 97) this.#reset();
    else this.finish();
  }

  sync(): void {
    this.#do('sync', () => this.#mount.sessions.kept.sync());
    this.history.settle();
  }

  /** A clean end, and the next mount. */
  finish(): void {
    this.#do('finish', () => this.#mount.sessions.kept.finish());
    this.history.settle();
    this.#mount.close();
    this.#do('mount', () => {
      this.#mount = mountKept(this.#path, this.#basePath);
      return OK;
    });
    this.compare();
  }

  /** The disk as it is now is what was written to it. */
  compare(): void {
    const { disk } = this.#mount;
    const difference = this.history.differs(windowsOf(disk), disk.sizeBytes);
    if (difference !== undefined) throw new Error(difference);
  }

  #write(): void {
    const [offset, length] = this.#range(MOST_BYTES);
    const bytes = nonZeroBytes(length, this.#random.below(2 ** 30));
    this.history.write(offset, bytes);
    this.#do(`write ${offset}+${length}`, () => this.#mount.disk.write(offset, length, bytes, 0));
  }

  #discard(): void {
    const [offset, near] = this.#range(MOST_BYTES);
    const length = this.#random.below(5) === 0 ? MOST_BYTES - offset : near;
    const end = Math.min(offset + length, this.history.sizeBytes);
    if (end > offset) this.history.zero(offset, end);
    this.#do(`discard ${offset}+${length}`, () => this.#mount.disk.discard(offset, length));
  }

  #allocate(): void {
    const [offset, length] = this.#range(MOST_BYTES);
    const keepSize = this.#random.below(2) === 0;
    if (!keepSize) this.history.truncate(Math.max(this.history.sizeBytes, offset + length));
    this.#do(`allocate ${offset}+${length}`, () => this.#mount.disk.allocate(offset, length, keepSize));
  }

  #shrink(): void {
    const random = this.#random;
    const isFar = random.below(6) === 0;
    const window = WINDOWS[isFar ? random.below(WINDOWS.length) : WINDOWS.length - 1] as (typeof WINDOWS)[number];
    const size = Math.min(this.history.sizeBytes, window.offset + this.#align(random.below(window.length)));
    this.history.truncate(size);
    this.#do(`truncate ${size}`, () => this.#mount.disk.truncate(size));
    this.history.settle();
  }

  #grow(): void {
    const size = this.#random.below(2) === 0 ? MOST_BYTES : this.history.sizeBytes + this.#random.below(3 * BLOCK);
    if (size > MOST_BYTES || size <= this.history.sizeBytes) return;
    this.history.truncate(size);
    this.#do(`truncate ${size}`, () => this.#mount.disk.truncate(size));
  }

  #reset(): void {
    const size = this.#random.below(2) === 0 ? DISK_BYTES : this.#align(DISK_BYTES - this.#random.below(90 * 2 ** 20));
    this.history.reset(size);
    this.#do(`reset ${size}`, () => this.#mount.sessions.reset(this.#mount.session, size));
    this.history.settle();
  }

  /** Within a window, also across blocks; often aligned to blocks or sectors. */
  #range(most: number): [offset: number, length: number] {
    const random = this.#random;
    const window = WINDOWS[random.below(WINDOWS.length)] as (typeof WINDOWS)[number];
    const end = Math.min(window.length, most - window.offset);
    const at = Math.min(end - 1, this.#align(random.below(end)));
    const length = Math.max(1, this.#align(1 + random.below(5 * BLOCK)));
    return [window.offset + at, Math.min(length, end - at)];
  }

  #align(value: number): number {
    const unit = [1, 512, BLOCK, BLOCK][this.#random.below(4)] as number;
    return Math.ceil(value / unit) * unit;
  }

  #do(what: string, act: () => Errno): void {
    this.#note(`\n${what}:`);
    const errno = act();
    this.#onOperation(this);
    if (errno !== OK) throw new Error(`${what}: ${errnoName(errno)}`);
  }

  #note(what: string): void {
    this.log.push(what);
    if (this.log.length > 150) this.log.shift();
  }

  #seen(event: FileEvent): void {
    this.#file.apply(event);
    this.events += 1;
    this.#note(describe(event));
    this.#onEvent(this);
  }
}

/** As in a trace. */
function describe(event: FileEvent): string {
  switch (event.kind) {
    case 'sync':
      return 'fdatasync';
    case 'write':
      return `write(${event.offset}+${event.bytes.length})`;
    case 'truncate':
      return `ftruncate(${event.sizeBytes})`;
    default:
      return `${event.kind}(${event.offset}+${event.length})`;
  }
}

/** What the next mount finds. */
export interface Recovered {
  readonly content: Buffer;
  readonly sizeBytes: number;
}

/** What `cowfs check` says of a file that a crash left, but for what is to be expected. */
export function checkCrashed(path: string): string | undefined {
  const opened = openOverlay(path, 'overlay', 'read');
  try {
    const { headers, header } = opened;
    const unexpected = checkOverlay(opened).problems.filter(({ kind, offset }) => {
      // One slot is torn, and the other says that all was well: it cannot be told from damage to one of two copies.
      const isTornHeader =
        offset < MAP_OFFSET && header.clean && headers.slots.some((slot) => typeof slot === 'string');
      return kind === 'damage' || (kind === 'copy' && !isTornHeader);
    });
    return unexpected.length === 0
      ? undefined
      : unexpected.map(({ kind, offset, what }) => `${kind} at ${offset}: ${what}`).join('; ');
  } finally {
    closeSync(opened.fd);
  }
}

/**
 * Opens a file as the next mount would, writable.
 *
 * @param isTwice whether to sync and open it again: it must be the same
 * @returns what it holds, read after the disk was made larger
 * @throws Error that says what is wrong with it, but for the content
 */
export function recover(path: string, base: BaseDescriptor, isTwice: boolean): Recovered {
  const mount = openKept(path, 'write', base);
  let recovered: Recovered;
  try {
    recovered = lookAt(mount);
    if (isTwice) {
      const errno = mount.sessions.kept.finish();
      if (errno !== OK) throw new Error(`sync after the crash: ${errnoName(errno)}`);
    }
  } finally {
    mount.close();
  }
  if (!isTwice) return recovered;
  const again = openKept(path, 'read', base);
  try {
    const { content } = lookAt(again);
    if (!content.equals(recovered.content)) throw new Error('another content after a sync and another open');
  } finally {
    again.close();
  }
  const opened = openOverlay(path, 'overlay', 'read');
  try {
    const { problems } = checkOverlay(opened);
    if (problems.length > 0) throw new Error(`after a clean end: ${JSON.stringify(problems)}`);
  } finally {
    closeSync(opened.fd);
  }
  return recovered;
}

function lookAt({ disk }: KeptMount): Recovered {
  const { sizeBytes } = disk;
  const { map } = disk.layer;
  for (let block = 0; block < map.blocks; ) {
    const run = map.runAt(block, map.blocks - block);
    if (map.runState === STORE && !isInWindow(block * BLOCK, (block + run) * BLOCK)) {
      throw new Error(`blocks ${block} to ${block + run - 1} were never written`);
    }
    block += run;
  }
  if (sizeBytes < MOST_BYTES) disk.truncate(MOST_BYTES);
  return { sizeBytes, content: windowsOf(disk) };
}

/** Zeros past its end. */
export function windowsOf(disk: Disk): Buffer {
  return readWindows((offset, length) => {
    const inside = Math.max(0, Math.min(length, disk.sizeBytes - offset));
    return Buffer.concat([inside > 0 ? readDisk(disk, offset, inside) : Buffer.alloc(0)], length);
  });
}
