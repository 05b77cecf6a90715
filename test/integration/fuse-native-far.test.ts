/** Sizes and offsets past 4 GiB and past 16 TiB, which fuse-native carries in halves of 32 bits. */
import { closeSync, openSync, readSync, statfsSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, type TestContext, test } from 'vitest';
import { type Mount, makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, statusOf } from '../harness.ts';
import { FUSE_NATIVE, mounted, needsFuseNative } from './fuse-native-support.ts';
import { needsRoot, skipUnless, tmpfs } from './machine-support.ts';
import { expectNothingLeft } from './nothing-left-support.ts';

const [GIB, TIB, PIB] = [2 ** 30, 2 ** 40, 2 ** 50];
const BASE_BYTES = 12 * TIB + 5;
/** Where bytes would be mistaken for others if the upper half or a sign were lost. */
const PLACES = [2 * GIB - 8, 4 * GIB - 8, 4 * GIB + 4096, 5 * GIB + 1, 8 * TIB + 12_345, 12 * TIB - 70];

beforeEach(needsFuseNative);

function markOf(at: number, sign: string): Buffer {
  return Buffer.from(`${sign}${at.toString(36)}`.padEnd(16, sign));
}

function readAt(fd: number, at: number): Buffer {
  const into = Buffer.alloc(16);
  return into.subarray(0, readSync(fd, into, 0, 16, at));
}

/** Opens a file until the test ends. */
function opened(path: string): number {
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** A disk over a sparse base of 12 TiB with marks in it. */
function mountFar(context: TestContext, options: readonly string[]): Mount {
  const directory = scratch();
  const base = join(directory, 'far.img');
  writeFileSync(base, 'start');
  let fits = true;
  try {
    truncateSync(base, BASE_BYTES);
  } catch {
    fits = false;
  }
  skipUnless(context, fits, 'the file system of the tests has no files of 12 TiB');
  const fd = openSync(base, 'r+');
  for (const at of PLACES) writeSync(fd, markOf(at, '+'), 0, 16, at);
  closeSync(fd);
  return mountDisk(base, makeMountpoint(directory), [...FUSE_NATIVE, ...options]);
}

test.for([[[]], [['--cache', 'none']]] as const)(
  'what the base has and what is written is where it belongs, to a byte (%j)',
  ([options], context) => {
    const { mountpoint, disk } = mountFar(context, options);
    expect(statSync(disk).size).toBe(BASE_BYTES);
    const fd = opened(disk);
    for (const at of PLACES) expect(readAt(fd, at)).toEqual(markOf(at, '+'));
    for (const at of PLACES) expect(writeSync(fd, markOf(at, '-'), 3, 10, at + 3)).toBe(10);
    for (const at of PLACES) {
      const mixed = markOf(at, '+');
      markOf(at, '-').copy(mixed, 3, 3, 13);
      expect(readAt(fd, at)).toEqual(mixed);
      // Where the same lower 32 bits lie nothing has come.
      expect(readAt(fd, (at % (4 * GIB)) + 256 * GIB)).toEqual(Buffer.alloc(16));
    }
    expect(readAt(fd, BASE_BYTES - 2)).toEqual(Buffer.alloc(2));
    expect(readAt(fd, BASE_BYTES)).toEqual(Buffer.alloc(0));
    // A write of ten bytes costs a block or, across a boundary, two.
    expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBeLessThanOrEqual(2 * 4096 * PLACES.length);
  },
);

/** A store of memory: most file systems have no files past 16 TiB. */
function mountedInMemory(options: readonly string[]): Mount {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const store = tmpfs(directory, '64M');
  return mountDisk(base, makeMountpoint(directory), [...FUSE_NATIVE, '--store', store, ...options]);
}

test('a disk past 16 TiB: its size, what is written at its far end, and truncate', (context) => {
  needsRoot(context);
  const { disk } = mountedInMemory(['--size', '3072T']);
  expect(statSync(disk).size).toBe(3 * PIB);
  const fd = opened(disk);
  const places = [16 * TIB - 5, 17 * TIB + 7, 3 * PIB - 16];
  for (const at of places) writeSync(fd, markOf(at, '-'), 0, 16, at);
  for (const at of places) expect(readAt(fd, at)).toEqual(markOf(at, '-'));
  for (const size of [3 * PIB - 7, 20 * TIB + 1, 16 * TIB, 5 * GIB + 3, 4 * GIB, 1, 0, 2 * PIB + 1]) {
    truncateSync(disk, size);
    expect(statSync(disk).size).toBe(size);
    must('truncate', ['-s', '+1', disk]);
    expect(statSync(disk).size).toBe(size + 1);
  }
  expect(readAt(fd, 17 * TIB + 7)).toEqual(Buffer.alloc(16));
});

test('a write at the end makes the disk grow past 4 GiB and past 16 TiB', async (context) => {
  needsRoot(context);
  const { mountpoint, disk } = mountedInMemory([]);
  const fd = openSync(disk, 'r+');
  for (const at of [5 * GIB + 1, 16 * TIB + 3]) {
    writeSync(fd, markOf(at, '-'), 0, 16, at);
    expect(statSync(disk).size).toBe(at + 16);
    expect(readAt(fd, at)).toEqual(markOf(at, '-'));
  }
  closeSync(fd);
  expect(statusOf(mountpoint).disks[0]?.size).toBe(16 * TIB + 19);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('beyond the largest disk is EFBIG', () => {
  const { disk } = mounted([], 5000);
  expect(() => truncateSync(disk, 4 * PIB + 1)).toThrow('EFBIG');
  expect(statSync(disk).size).toBe(5000);
});

test('statfs is that of the store, also where the store has more than 16 TiB', (context) => {
  needsRoot(context);
  const directory = scratch();
  const store = makeMountpoint(directory, 'store');
  // Sparse: a file system of memory says what room it would give.
  must('mount', ['-t', 'tmpfs', '-o', `size=${40 * TIB + 4096},mode=1777`, 'cowfs-test', store]);
  const room = statfsSync(store);
  skipUnless(context, room.blocks * room.bsize === 40 * TIB + 4096, 'a tmpfs of 40 TiB is not to be had');
  const base = makeBase(directory, 5000);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), [...FUSE_NATIVE, '--store', store]);
  for (const path of [mountpoint, disk]) {
    const { bsize, blocks, bfree, bavail } = statfsSync(path);
    // Within one of the blocks that it is told in.
    for (const count of [blocks, bfree, bavail]) {
      expect(count * bsize).toBeLessThanOrEqual(40 * TIB + 4096);
      expect(count * bsize).toBeGreaterThan(40 * TIB - bsize - 2 ** 20);
    }
    expect(bsize).toBeLessThanOrEqual(2 ** 16);
  }
  expect(must('df', ['--output=size', '-B1T', mountpoint])).toMatch(/\b4[01]\n/);
});
