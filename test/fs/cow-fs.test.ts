import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { NodeId } from '../../src/fs/node.ts';
import type { CowFsOptions } from '../../src/fs/options.ts';
import { type FsFixture, useFs } from '../fuse/server-fixture.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk } from '../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const { EFBIG, EINVAL, EIO, EISDIR, ENOENT, ENOSPC, ENOSYS, ENOTDIR, ENXIO, EOPNOTSUPP, EROFS } = constants.errno;
const { O_APPEND, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY } = fsConstants;
const ROOT = 1 as NodeId;
const DISK = 2 as NodeId;
const NOBODY = [0, 3, 99, Number.POSITIVE_INFINITY] as NodeId[];
const BLOCK = 4096;

const [SEEK_DATA, SEEK_HOLE] = [3, 4];
const [KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE] = [1, 2, 8, 16, 32, 64];

const NOW_MS = 1_700_000_000_250;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW_MS });
});

afterEach(() => {
  vi.useRealTimers();
});

function newFs(options: Partial<CowFsOptions> = {}, content = nonZeroBytes(65_519, 1)): FsFixture {
  return useFs({ directory: scratch(), content }, options);
}

function atMost(maxStoreBytes: number): Partial<CowFsOptions> {
  return { quotas: { maxStoreBytes, maxSessionStoreBytes: undefined } };
}

describe('names', () => {
  test('the disk is found in the root, and nothing else anywhere', () => {
    const { fs } = newFs();
    expect([fs.lookup(ROOT, 'disk.raw'), fs.attributes.node]).toEqual([0, DISK]);
    for (const name of ['', '.', '..', 'Disk.raw', 'disk.raw ', 'disk']) expect(fs.lookup(ROOT, name)).toBe(ENOENT);
    expect(fs.lookup(DISK, 'disk.raw')).toBe(ENOTDIR);
    for (const node of NOBODY) expect(fs.lookup(node, 'disk.raw')).toBe(ENOENT);
  });

  test('the root lists it', () => {
    const { fs } = newFs();
    expect(fs.list(ROOT, 0, 100)).toEqual([
      { name: '.', node: 1, type: 4, cookie: 1 },
      { name: '..', node: 1, type: 4, cookie: 2 },
      { name: 'disk.raw', node: 2, type: 8, cookie: 3 },
    ]);
    for (const node of [DISK, ...NOBODY]) expect(fs.list(node, 0, 100)).toBe(undefined);
    expect([fs.nameOf(ROOT), fs.nameOf(DISK), fs.nameOf(99 as NodeId)]).toEqual(['/', 'disk.raw', 'node 99']);
  });
});

describe('attributes', () => {
  test('of the disk: as of a file that was copied from the base', () => {
    const { fs } = newFs();
    expect(fs.getAttributes(DISK)).toBe(0);
    expect(fs.attributes).toEqual({
      node: 2,
      mode: 0o100640,
      nlink: 1,
      uid: 1000,
      gid: 1001,
      sizeBytes: 65_519,
      // The store has none yet, which tar(1) must not take for "all hole".
      blocks: 8,
      atimeSeconds: 1_600_000_000,
      atimeNanoseconds: 500_000_000,
      mtimeSeconds: 1_600_000_000,
      mtimeNanoseconds: 500_000_000,
      ctimeSeconds: 1_600_000_000,
      ctimeNanoseconds: 500_000_000,
    });
  });

  test.each([
    { allowOther: false, mode: 0o040700 },
    { allowOther: true, mode: 0o040755 },
  ])('of the root: allowOther $allowOther', ({ allowOther, mode }) => {
    const { fs } = newFs({ allowOther });
    expect(fs.getAttributes(ROOT)).toBe(0);
    expect(fs.attributes).toMatchObject({ node: 1, mode, nlink: 2, uid: 1000, gid: 1001, mtimeSeconds: 1_700_000_000 });
  });

  test('of nobody: ENOENT', () => {
    const { fs } = newFs();
    for (const node of NOBODY) {
      expect([fs.getAttributes(node), fs.setAttributes(node, { mode: 0 })]).toEqual([ENOENT, ENOENT]);
    }
  });

  test('blocks are what the disk takes in the store, and never 0', () => {
    const { fs, disk } = newFs({}, nonZeroBytes(100_000, 1));
    const blocks = (): number => {
      fs.getAttributes(DISK);
      return fs.attributes.blocks;
    };
    disk.write(0, 3 * BLOCK, nonZeroBytes(3 * BLOCK, 2), 0);
    expect(blocks()).toBe(24);
    disk.write(0, 100_000, nonZeroBytes(100_000, 2), 0);
    expect(blocks()).toBe(25 * 8);
    disk.truncate(1);
    expect(blocks()).toBe(8);
    disk.truncate(0);
    expect(blocks()).toBe(0);
  });
});

describe('changing attributes', () => {
  test('what is given changes, all else stays, and ctime is now', () => {
    const { fs } = newFs();
    expect(fs.setAttributes(DISK, { mode: 0o104755 })).toBe(0);
    expect(fs.attributes).toMatchObject({ mode: 0o104755, uid: 1000, gid: 1001, mtimeSeconds: 1_600_000_000 });
    expect([fs.attributes.ctimeSeconds, fs.attributes.ctimeNanoseconds]).toEqual([1_700_000_000, 250_000_000]);
    fs.setAttributes(DISK, { gid: 5 });
    expect(fs.attributes).toMatchObject({ uid: 1000, gid: 5 });
    fs.setAttributes(DISK, { uid: 6 });
    expect(fs.attributes).toMatchObject({ uid: 6, gid: 5, mode: 0o104755 });
  });

  test('the type of a file cannot be changed', () => {
    const { fs } = newFs();
    fs.setAttributes(DISK, { mode: 0o040755 });
    expect(fs.attributes.mode).toBe(0o100755);
  });

  test('times: given, or now', () => {
    const { fs } = newFs();
    fs.setAttributes(DISK, { atime: [-5, 7], mtime: 'now' });
    expect(fs.attributes).toMatchObject({
      atimeSeconds: -5,
      atimeNanoseconds: 7,
      mtimeSeconds: 1_700_000_000,
      mtimeNanoseconds: 250_000_000,
    });
  });

  test('a size sets mtime, unless that is given, too', () => {
    const { fs, disk } = newFs();
    expect(fs.setAttributes(DISK, { sizeBytes: 130_000 })).toBe(0);
    expect(fs.attributes).toMatchObject({ sizeBytes: 130_000, mtimeSeconds: 1_700_000_000 });
    fs.setAttributes(DISK, { sizeBytes: 4097, mtime: [12, 0] });
    expect(fs.attributes).toMatchObject({ sizeBytes: 4097, mtimeSeconds: 12 });
    expect(disk.sizeBytes).toBe(4097);
  });

  test('a size that cannot be changes nothing else', () => {
    const { fs } = newFs();
    expect(fs.setAttributes(DISK, { sizeBytes: 2 ** 53, mode: 0 })).toBe(EFBIG);
    fs.getAttributes(DISK);
    expect(fs.attributes).toMatchObject({ mode: 0o100640, ctimeSeconds: 1_600_000_000 });
  });

  test('of the root, too, but for its size; and of nothing where it is read-only', () => {
    const { fs: writable } = newFs();
    expect(writable.setAttributes(ROOT, { mode: 0o777, uid: 7 })).toBe(0);
    expect(writable.attributes).toMatchObject({
      node: 1,
      mode: 0o040777,
      uid: 7,
      gid: 1001,
      ctimeSeconds: 1_700_000_000,
    });
    expect(writable.setAttributes(ROOT, { sizeBytes: 0 })).toBe(EISDIR);
    const { fs } = newFs({ readOnly: true });
    expect(fs.setAttributes(DISK, { mode: 0 })).toBe(EROFS);
    expect(fs.setAttributes(ROOT, { mode: 0 })).toBe(EROFS);
    fs.getAttributes(DISK);
    expect(fs.attributes.mode).toBe(0o100640);
  });
});

describe('open', () => {
  test.each<[flags: number, options: Partial<CowFsOptions>, direct: boolean]>([
    [O_RDWR, {}, false],
    [O_RDONLY | O_DIRECT, {}, true],
    [O_RDWR | O_DIRECT | O_APPEND, {}, true],
    // Where the kernel cannot keep both coherent, all go through the cache.
    [O_RDWR | O_DIRECT, { coherentDirect: false }, false],
    [O_RDWR, { cacheMode: 'none' }, true],
    [O_RDWR, { cacheMode: 'none', coherentDirect: false }, true],
    [O_RDWR | O_DIRECT, { cacheMode: 'writethrough' }, true],
    [O_RDWR, { cacheMode: 'writethrough' }, false],
  ])('flags 0%o with %o: direct %s', (flags, options, direct) => {
    const { fs } = newFs(options);
    // The answer before counts for nothing.
    fs.open(DISK, direct ? O_RDONLY : O_RDONLY | O_DIRECT);
    expect([fs.open(DISK, flags), fs.direct]).toEqual([0, direct]);
  });

  test('handles are counted until they are released', () => {
    const { fs, attributes } = newFs();
    fs.open(DISK, O_RDONLY);
    fs.open(DISK, O_WRONLY);
    fs.open(DISK, O_RDWR);
    expect([attributes.openHandles, attributes.writableHandles]).toEqual([3, 2]);
    fs.release(DISK, O_RDWR);
    fs.release(DISK, O_RDONLY);
    expect([attributes.openHandles, attributes.writableHandles]).toEqual([1, 1]);
    // fcntl(2) can set O_DIRECT and O_APPEND on an open handle: it stays the same one.
    fs.release(DISK, O_WRONLY | O_DIRECT | O_APPEND);
    expect([attributes.openHandles, attributes.writableHandles]).toEqual([0, 0]);
  });

  test('refusals', () => {
    const { fs, attributes } = newFs({ readOnly: true });
    expect(fs.open(ROOT, O_RDONLY)).toBe(EISDIR);
    expect(fs.open(DISK, O_RDWR)).toBe(EROFS);
    expect(fs.open(DISK, O_WRONLY)).toBe(EROFS);
    for (const node of NOBODY) expect(fs.open(node, O_RDONLY)).toBe(ENOENT);
    expect(attributes.openHandles).toBe(0);
    expect(fs.open(DISK, O_RDONLY)).toBe(0);
  });
});

describe('reading and writing', () => {
  test('a write sets mtime and ctime; a read sets nothing', () => {
    const { fs } = newFs();
    const bytes = Buffer.alloc(10);
    expect([fs.read(DISK, 65_515, 10, bytes, 0), fs.transferred]).toEqual([0, 4]);
    fs.getAttributes(DISK);
    expect(fs.attributes).toMatchObject({ atimeSeconds: 1_600_000_000, mtimeSeconds: 1_600_000_000 });
    expect([fs.write(DISK, 65_515, 10, bytes, 0), fs.transferred]).toEqual([0, 10]);
    fs.getAttributes(DISK);
    expect(fs.attributes).toMatchObject({
      sizeBytes: 65_525,
      mtimeSeconds: 1_700_000_000,
      mtimeNanoseconds: 250_000_000,
      ctimeSeconds: 1_700_000_000,
    });
  });

  test('of what is no disk is EIO, and has moved nothing', () => {
    const { fs } = newFs();
    const bytes = Buffer.alloc(10);
    for (const node of [ROOT, ...NOBODY]) {
      fs.read(DISK, 0, 10, bytes, 0);
      expect([fs.read(node, 0, 10, bytes, 0), fs.transferred]).toEqual([EIO, 0]);
      fs.write(DISK, 0, 10, bytes, 0);
      expect([fs.write(node, 0, 10, bytes, 0), fs.transferred]).toEqual([EIO, 0]);
      expect([fs.allocate(node, 0, 0, 1), fs.seek(node, 0, SEEK_DATA)]).toEqual([EIO, EIO]);
    }
  });

  test('fsync has nothing to do', () => {
    expect(newFs().fs.sync(DISK)).toBe(ENOSYS);
  });
});

describe('fallocate', () => {
  const content = nonZeroBytes(65_519, 1);

  test('sets space aside, with and without growth', () => {
    const { fs, disk } = newFs();
    expect(fs.allocate(DISK, KEEP_SIZE, 60_000, 20_000)).toBe(0);
    expect(disk.sizeBytes).toBe(65_519);
    expect(disk.account.occupiedBytes).toBe(6 * BLOCK);
    expect(fs.allocate(DISK, 0, 60_000, 20_000)).toBe(0);
    expect(disk.sizeBytes).toBe(80_000);
    expect(difference(readDisk(disk), Buffer.concat([content, Buffer.alloc(80_000 - 65_519)]))).toBe(undefined);
  });

  test('punches holes, which keep the size', () => {
    const { fs, disk } = newFs();
    expect(fs.allocate(DISK, PUNCH_HOLE | KEEP_SIZE, 5000, 100_000)).toBe(0);
    expect(disk.sizeBytes).toBe(65_519);
    expect(difference(readDisk(disk), Buffer.from(content).fill(0, 5000))).toBe(undefined);
  });

  test('zeros ranges, with and without growth', () => {
    const { fs, disk } = newFs();
    expect(fs.allocate(DISK, ZERO_RANGE | KEEP_SIZE, 60_000, 20_000)).toBe(0);
    expect(disk.sizeBytes).toBe(65_519);
    expect(fs.allocate(DISK, ZERO_RANGE, 4097, 3)).toBe(0);
    expect(fs.allocate(DISK, ZERO_RANGE, 70_000, 1)).toBe(0);
    expect(disk.sizeBytes).toBe(70_001);
    const expected = Buffer.alloc(70_001);
    content.copy(expected);
    expected.fill(0, 4097, 4100).fill(0, 60_000);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
  });

  test.each([
    ['a hole that does not keep the size', PUNCH_HOLE],
    ['collapsing', COLLAPSE_RANGE],
    ['inserting', INSERT_RANGE],
    ['unsharing', UNSHARE_RANGE],
    ['two at once', PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE],
    ['a bit that is none', 0x8000_0000],
  ])('%s is not supported, and does nothing', (_, mode) => {
    const { fs, disk } = newFs();
    expect(fs.allocate(DISK, mode, 0, 8192)).toBe(EOPNOTSUPP);
    expect(difference(readDisk(disk), content)).toBe(undefined);
    fs.getAttributes(DISK);
    expect(fs.attributes.mtimeSeconds).toBe(1_600_000_000);
  });

  test('of no bytes is EINVAL', () => {
    expect(newFs().fs.allocate(DISK, 0, 5, 0)).toBe(EINVAL);
  });

  test.each([
    ['space', 0],
    ['a hole', PUNCH_HOLE | KEEP_SIZE],
    ['zeros', ZERO_RANGE | KEEP_SIZE],
    ['zeros with growth', ZERO_RANGE],
  ])('%s sets mtime and ctime, as it does for any file', (_, mode) => {
    const { fs } = newFs();
    expect(fs.allocate(DISK, mode, 0, 5000)).toBe(0);
    fs.getAttributes(DISK);
    expect(fs.attributes).toMatchObject({ mtimeSeconds: 1_700_000_000, ctimeSeconds: 1_700_000_000 });
  });

  test('zeros that would end past the largest disk are EFBIG, and nothing is zeroed', () => {
    const { fs, disk } = newFs();
    expect(fs.allocate(DISK, ZERO_RANGE, 5000, 2 ** 52)).toBe(EFBIG);
    expect(fs.allocate(DISK, ZERO_RANGE, 5000, Number.POSITIVE_INFINITY)).toBe(EFBIG);
    expect(difference(readDisk(disk), content)).toBe(undefined);
  });

  test('more than the store has is ENOSPC', () => {
    const { fs, disk, sessions } = newFs(atMost(2 * BLOCK));
    expect(fs.allocate(DISK, 0, 0, 3 * BLOCK)).toBe(ENOSPC);
    Object.defineProperty(sessions.directory, 'freeBytes', { value: BLOCK });
    expect(fs.allocate(DISK, 0, 0, 2 * BLOCK)).toBe(ENOSPC);
    expect(fs.allocate(DISK, 0, 0, BLOCK)).toBe(0);
    expect(disk.account.occupiedBytes).toBe(BLOCK);
  });
});

describe('data and holes', () => {
  /** 16 blocks of which 4 to 7 and 12 to 15 are trimmed. */
  function withHoles(options: Partial<CowFsOptions> = {}): FsFixture {
    const fixture = newFs(options, nonZeroBytes(16 * BLOCK, 1));
    fixture.disk.discard(4 * BLOCK, 4 * BLOCK);
    fixture.disk.discard(12 * BLOCK, 4 * BLOCK);
    return fixture;
  }

  const seek = ({ fs }: FsFixture, offset: number, whence: number, kernelSize?: number): number[] => {
    const errno = fs.seek(DISK, offset, whence, kernelSize);
    return errno === 0 ? [0, fs.found] : [errno];
  };

  test('are told as they are while nobody has it open for writing', () => {
    const fixture = withHoles();
    fixture.fs.open(DISK, O_RDONLY);
    expect(seek(fixture, 5 * BLOCK, SEEK_DATA)).toEqual([0, 8 * BLOCK]);
    expect(seek(fixture, 1, SEEK_HOLE)).toEqual([0, 4 * BLOCK]);
    expect(seek(fixture, 12 * BLOCK, SEEK_DATA)).toEqual([ENXIO]);
    expect(seek(fixture, 16 * BLOCK, SEEK_HOLE)).toEqual([ENXIO]);
    expect(fixture.fs.seekNeedsKernelSize(DISK, 0, SEEK_HOLE)).toBe(false);
  });

  test.each([O_WRONLY, O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_DIRECT])(
    'are all data while a handle is open with 0%o: the kernel may hold what we have not seen',
    (flags) => {
      const fixture = withHoles();
      fixture.fs.open(DISK, flags);
      expect(seek(fixture, 5 * BLOCK, SEEK_DATA)).toEqual([0, 5 * BLOCK]);
      expect(seek(fixture, 1, SEEK_HOLE)).toEqual([0, 16 * BLOCK]);
      expect(seek(fixture, 16 * BLOCK, SEEK_DATA)).toEqual([ENXIO]);
      expect(seek(fixture, 16 * BLOCK, SEEK_HOLE)).toEqual([ENXIO]);
      fixture.fs.release(DISK, flags);
      expect(seek(fixture, 5 * BLOCK, SEEK_DATA)).toEqual([0, 8 * BLOCK]);
    },
  );

  test('the end is where the kernel says', () => {
    const fixture = withHoles();
    fixture.fs.open(DISK, O_RDWR);
    expect(seek(fixture, 1, SEEK_HOLE, 20 * BLOCK)).toEqual([0, 20 * BLOCK]);
    expect(seek(fixture, 18 * BLOCK, SEEK_DATA, 20 * BLOCK)).toEqual([0, 18 * BLOCK]);
    expect(seek(fixture, 20 * BLOCK, SEEK_DATA, 20 * BLOCK)).toEqual([ENXIO]);
    // Never before what is written already.
    expect(seek(fixture, 1, SEEK_HOLE, 5)).toEqual([0, 16 * BLOCK]);
  });

  test('which is asked for only where it matters', () => {
    const { fs } = withHoles();
    fs.open(DISK, O_RDWR);
    expect(fs.seekNeedsKernelSize(DISK, 0, SEEK_HOLE)).toBe(true);
    expect(fs.seekNeedsKernelSize(DISK, 16 * BLOCK, SEEK_DATA)).toBe(true);
    expect(fs.seekNeedsKernelSize(DISK, 16 * BLOCK - 1, SEEK_DATA)).toBe(false);
    for (const node of [ROOT, ...NOBODY]) expect(fs.seekNeedsKernelSize(node, 0, SEEK_HOLE)).toBe(false);
    expect(fs.readNeedsKernelSize(DISK, 16 * BLOCK + 1, O_RDWR | O_DIRECT)).toBe(true);
    expect(fs.readNeedsKernelSize(DISK, 16 * BLOCK, O_RDWR | O_DIRECT)).toBe(false);
    expect(fs.readNeedsKernelSize(DISK, 16 * BLOCK + 1, O_RDWR)).toBe(false);
    const { fs: prompt } = withHoles({ sizeMayLag: false });
    prompt.open(DISK, O_RDWR);
    expect(prompt.seekNeedsKernelSize(DISK, 0, SEEK_HOLE)).toBe(false);
  });

  test('another whence is EINVAL', () => {
    const { fs } = withHoles();
    for (const whence of [0, 1, 2, 5, 0xffffffff]) expect(fs.seek(DISK, 0, whence)).toBe(EINVAL);
  });
});

describe('statistics', () => {
  test('what is taken and what is free, in blocks', () => {
    const { fs, disk, sessions } = newFs();
    Object.defineProperty(sessions.directory, 'freeBytes', { value: 1000 * BLOCK + 4095 });
    disk.write(0, 3 * BLOCK, nonZeroBytes(3 * BLOCK, 2), 0);
    expect(fs.statistics()).toEqual({ blockBytes: BLOCK, blocks: 1003, freeBlocks: 1000, files: 2, nameMax: 255 });
  });

  test('no more than the quota leaves', () => {
    const { fs, disk, sessions } = newFs(atMost(10 * BLOCK + 5));
    Object.defineProperty(sessions.directory, 'freeBytes', { value: 1000 * BLOCK });
    disk.write(0, 3 * BLOCK, nonZeroBytes(3 * BLOCK, 2), 0);
    expect(fs.statistics()).toMatchObject({ blocks: 10, freeBlocks: 7 });
  });

  test('of the real store', () => {
    const { fs } = newFs();
    expect(fs.statistics().freeBlocks).toBeGreaterThan(0);
  });
});
