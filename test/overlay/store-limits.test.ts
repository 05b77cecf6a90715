/**
 * Stores on file systems that cannot do everything: punch holes or set space aside (FAT, NFS before 4.2), hold a file
 * as large as the disk, or finish what they began. Everything still gives the right bytes; only space may not come
 * back. fallocate(2) is replaced, all else is real.
 */
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { EFBIG, ENOSPC, EOPNOTSUPP, OK } from '../../src/lib/errno.ts';
import type * as libc from '../../src/sys/libc.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

const fallocate = vi.hoisted(() => vi.fn<typeof libc.fallocate>());
vi.mock('../../src/sys/libc.ts', async (original) => ({ ...(await original<typeof libc>()), fallocate }));

const BLOCK = 4096;
/** fallocate(2), FALLOC_FL_PUNCH_HOLE. */
const PUNCH_HOLE = 2;
const content = nonZeroBytes(130_000, 1);

beforeEach(() => {
  fallocate.mockReset().mockReturnValue(EOPNOTSUPP);
});

test('whole blocks are zeros after a discard, and their old bytes never come back', () => {
  const { disk, store } = useDisk({ directory: scratch(), content });
  disk.write(0, 10 * BLOCK, nonZeroBytes(10 * BLOCK, 2), 0);
  expect(disk.discard(0, 10 * BLOCK)).toBe(OK);
  const expected = Buffer.from(content).fill(0, 0, 10 * BLOCK);
  expect(difference(readDisk(disk), expected)).toBe(undefined);
  expect(disk.account.occupiedBytes).toBe(0);
  expect(store.usedBytes).toBeGreaterThan(0);
  // A partial write into such a block, a cut within and growth behind it.
  disk.write(3 * BLOCK + 5, 2, Buffer.from([1, 2]), 0);
  expected.set([1, 2], 3 * BLOCK + 5);
  expect(difference(readDisk(disk), expected)).toBe(undefined);
  disk.truncate(2 * BLOCK + 9);
  disk.truncate(130_000);
  expected.fill(0, 2 * BLOCK + 9);
  disk.write(3 * BLOCK + 5, 2, Buffer.from([3, 4]), 0);
  expected.set([3, 4], 3 * BLOCK + 5);
  expect(difference(readDisk(disk), expected)).toBe(undefined);
});

test('a part of a written block is zeroed by writing zeros', () => {
  const { disk } = useDisk({ directory: scratch(), content });
  const data = nonZeroBytes(40 * BLOCK, 2);
  disk.write(0, data.length, data, 0);
  expect(disk.discard(BLOCK + 7, 25 * BLOCK)).toBe(OK);
  data.fill(0, BLOCK + 7, 26 * BLOCK + 7);
  expect(difference(readDisk(disk), data)).toBe(undefined);
});

test('setting space aside is refused as such a file system refuses it, and nothing is booked', () => {
  const { disk } = useDisk({ directory: scratch(), content });
  expect(disk.allocate(0, 50 * BLOCK, false)).toBe(EOPNOTSUPP);
  expect([disk.account.occupiedBytes, disk.sizeBytes]).toEqual([0, 130_000]);
  expect(difference(readDisk(disk), content)).toBe(undefined);
});

describe('one that can set space aside, but not punch', () => {
  test('old bytes under zeroed blocks do not come to light with the space', async () => {
    const { fallocate: real } = await vi.importActual<typeof libc>('../../src/sys/libc.ts');
    fallocate.mockImplementation((fd, mode, offset, length) =>
      (mode & PUNCH_HOLE) === 0 ? real(fd, mode, offset, length) : EOPNOTSUPP,
    );
    const { disk } = useDisk({ directory: scratch(), content });
    disk.write(0, 10 * BLOCK, nonZeroBytes(10 * BLOCK, 2), 0);
    disk.discard(0, 10 * BLOCK);
    expect(disk.allocate(BLOCK, 5 * BLOCK, true)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(5 * BLOCK);
    expect(difference(readDisk(disk), Buffer.from(content).fill(0, 0, 10 * BLOCK))).toBe(undefined);
  });
});

describe('one that runs full half-way', () => {
  test('what it took for a request that it then refused goes back', async () => {
    const { fallocate: real } = await vi.importActual<typeof libc>('../../src/sys/libc.ts');
    fallocate.mockImplementation((fd, mode, offset, length) => {
      if ((mode & PUNCH_HOLE) !== 0) return real(fd, mode, offset, length);
      real(fd, mode, offset, length / 2);
      return ENOSPC;
    });
    const { disk, store } = useDisk({ directory: scratch(), content, sizeBytes: 2 ** 20 });
    // So that the store's file reaches past what is set aside.
    disk.write(2 ** 20 - 5, 5, nonZeroBytes(5, 2), 0);
    expect(disk.allocate(0, 100 * BLOCK, true)).toBe(ENOSPC);
    expect(disk.account.occupiedBytes).toBe(BLOCK);
    expect(store.usedBytes).toBeLessThanOrEqual(2 * BLOCK);
    expect(difference(readDisk(disk, 0, 130_000), content)).toBe(undefined);
  });
});

describe('one whose files are smaller than the disk', () => {
  const LIMIT = 2 ** 40;

  beforeEach(async () => {
    const { fallocate: real } = await vi.importActual<typeof libc>('../../src/sys/libc.ts');
    fallocate.mockImplementation((fd, mode, offset, length) =>
      offset + length > LIMIT ? EFBIG : real(fd, mode, offset, length),
    );
  });

  test('what exists is punched', () => {
    const { disk, store } = useDisk({ directory: scratch(), content, sizeBytes: 2 ** 45 });
    disk.write(0, 10 * BLOCK, nonZeroBytes(10 * BLOCK, 2), 0);
    expect(disk.discard(BLOCK, 2 ** 45 - BLOCK)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(BLOCK);
    expect(store.usedBytes).toBeLessThanOrEqual(2 * BLOCK);
    expect(readDisk(disk, BLOCK, 100_000).every((byte) => byte === 0)).toBe(true);
  });

  test('past the end of its file there is nothing to punch', () => {
    const { disk, store } = useDisk({ directory: scratch(), content, sizeBytes: 2 ** 45 });
    disk.write(0, 10, nonZeroBytes(10, 2), 0);
    expect([store.discard(2 ** 41, 2 ** 42), store.zero(2 ** 20, 2 ** 42)]).toEqual([OK, OK]);
    expect(store.usedBytes).toBeGreaterThan(0);
  });
});
