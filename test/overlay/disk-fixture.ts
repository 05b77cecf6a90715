/**
 * Disks over real files, for tests: a base of given bytes (holes where asked for), a real temporary store.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Base, type BaseDescriptor } from '../../src/base/base.ts';
import { OK } from '../../src/lib/errno.ts';
import { Disk } from '../../src/overlay/disk.ts';
import type { OverlayShared } from '../../src/overlay/shared.ts';
import { Store } from '../../src/overlay/store.ts';
import { openTempStore } from '../../src/overlay/temp-store.ts';

export interface DiskFixture {
  readonly disk: Disk;
  readonly store: Store;
  readonly shared: OverlayShared;
  /** Open for reading and writing, so that a test can change the base behind the disk. */
  readonly baseFd: number;
  readonly basePath: string;
  readonly storeFd: number;
  readonly descriptor: BaseDescriptor;
  /** Another view of the same disk, as another thread has it. */
  second(): Disk;
  close(): void;
}

export interface FixtureOptions {
  readonly directory: string;
  readonly content: Buffer;
  /** Whole blocks of the base that are not written at all; the content there is zeros. */
  readonly holes?: readonly number[];
  readonly sizeBytes?: number;
  readonly maxStoreBytes?: number;
  readonly storeFd?: number;
  readonly hasHoles?: boolean;
}

let bases = 0;

export function openDisk(options: FixtureOptions): DiskFixture {
  const { directory, content, holes = [], maxStoreBytes } = options;
  const basePath = join(directory, `base-${bases++}.img`);
  const baseFd = openSync(basePath, 'w+');
  ftruncateSync(baseFd, content.length);
  for (let at = 0; at < content.length; at += 4096) {
    if (!holes.includes(at / 4096)) writeSync(baseFd, content, at, Math.min(4096, content.length - at), at);
  }
  const storeFd = options.storeFd ?? openTempStore(directory);
  const shared = Disk.create(content.length, options.sizeBytes ?? content.length);
  const store = new Store(storeFd);
  const descriptor: BaseDescriptor = { fd: baseFd, sizeBytes: content.length, hasHoles: options.hasHoles ?? true };
  const open = (): Disk => new Disk(new Base(descriptor), new Store(storeFd), shared, maxStoreBytes);
  return {
    disk: new Disk(new Base(descriptor), store, shared, maxStoreBytes),
    store,
    shared,
    baseFd,
    basePath,
    storeFd,
    descriptor,
    second: open,
    close: () => {
      closeSync(baseFd);
      closeSync(storeFd);
    },
  };
}

/** As `openDisk`, closed when the test ends. */
export function useDisk(options: FixtureOptions): DiskFixture {
  const fixture = openDisk(options);
  onTestFinished(() => fixture.close());
  return fixture;
}

/** All bytes of the disk, or of a part; an error is an exception. */
export function readDisk(disk: Disk, offset = 0, length = disk.sizeBytes - offset): Buffer {
  const bytes = Buffer.alloc(length, 0xaa);
  const errno = disk.read(offset, length, bytes, 0);
  if (errno !== OK) throw new Error(`read of ${length} at ${offset}: errno ${errno}`);
  return bytes.subarray(0, disk.transferred);
}

/** Where two buffers differ first, in words: comparing large ones by matchers takes seconds. */
export function difference(actual: Uint8Array, expected: Uint8Array): string | undefined {
  if (actual.length !== expected.length) return `${actual.length} bytes instead of ${expected.length}`;
  if (Buffer.compare(actual, expected) === 0) return undefined;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  return `byte ${at} (block ${Math.floor(at / 4096)}) is ${actual[at]}, not ${expected[at]}`;
}
