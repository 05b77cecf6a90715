/**
 * Disks over real files, for tests: a base of given bytes (holes where asked for), real stores in a real directory.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { BaseDescriptor } from '../../src/base/base.ts';
import { OK } from '../../src/lib/errno.ts';
import { CowfsError } from '../../src/lib/error.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import { Sessions } from '../../src/overlay/sessions.ts';
import type { Store } from '../../src/overlay/store.ts';
import { StoreDirectory } from '../../src/overlay/store-directory.ts';
import { type DiskTask, type OverlayTask, openSessions } from './thread-jobs.ts';

export interface OverlayFixture {
  readonly sessions: Sessions;
  /** Open for reading and writing, so that a test can change the base behind the disks. */
  readonly baseFd: number;
  readonly basePath: string;
  /** What another thread gets: each call is for one more of them. */
  task(): OverlayTask;
  /** The sessions have been discarded. */
  close(): void;
}

export interface DiskFixture extends Omit<OverlayFixture, 'task'> {
  readonly disk: Disk;
  readonly session: number;
  readonly store: Store;
  task(): DiskTask;
  /** Another view of the same disk, as another thread has it. */
  second(): Disk;
}

export interface FixtureOptions {
  readonly directory: string;
  readonly content: Buffer;
  /** Whole blocks of the base that are not written at all; the content there is zeros. */
  readonly holes?: readonly number[];
  readonly sizeBytes?: number;
  readonly maxStoreBytes?: number;
  readonly maxSessionStoreBytes?: number;
  /** In place of a store that is made at the first write. */
  readonly storeFd?: number;
  readonly hasHoles?: boolean;
}

/** More than any test has. */
const THREADS = 16;

let bases = 0;

export function openOverlay(options: FixtureOptions): OverlayFixture {
  const { directory, content, holes = [], maxStoreBytes, maxSessionStoreBytes } = options;
  const basePath = join(directory, `base-${bases++}.img`);
  const baseFd = openSync(basePath, 'w+');
  ftruncateSync(baseFd, content.length);
  for (let at = 0; at < content.length; at += 4096) {
    if (!holes.includes(at / 4096)) writeSync(baseFd, content, at, Math.min(4096, content.length - at), at);
  }
  const base: BaseDescriptor = { fd: baseFd, sizeBytes: content.length, hasHoles: options.hasHoles ?? true };
  const storeDirectoryFd = StoreDirectory.open(directory);
  const memory = Sessions.create(THREADS);
  let threads = 0;
  const task = (): OverlayTask => ({
    base,
    storeDirectoryFd,
    memory,
    thread: threads++,
    quotas: { maxStoreBytes, maxSessionStoreBytes },
  });
  return {
    sessions: openSessions(task()),
    baseFd,
    basePath,
    task,
    close: () => {
      closeSync(baseFd);
      StoreDirectory.close(storeDirectoryFd);
    },
  };
}

/** A disk of the sizes that are asked for, in an overlay of its own. */
export function openDisk(options: FixtureOptions): DiskFixture {
  const overlay = openOverlay(options);
  const { sessions } = overlay;
  const session = sessions.create(options.sizeBytes ?? options.content.length);
  if (options.storeFd !== undefined) sessions.giveStore(session, options.storeFd);
  const disk = sessions.open(session);
  const task = (): DiskTask => ({ ...overlay.task(), session });
  return {
    ...overlay,
    disk,
    session,
    store: disk.layer.store,
    task,
    second: () => openSessions(task()).open(session),
    close: () => {
      closeStores(sessions.discard(session));
      overlay.close();
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

/** Kind and message of the error that something ends with. */
export function errorOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof CowfsError) return `${error.kind}: ${error.message}`;
    throw error;
  }
  return 'no error';
}
