import { ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { EIO, ENXIO, OK } from '../../src/lib/errno.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, difference, type FixtureOptions, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

const BLOCK = 4096;
const { EBADF } = constants.errno;

function diskOver(content: Buffer, options: Partial<FixtureOptions> = {}): DiskFixture {
  return useDisk({ directory: scratch(), content, ...options });
}

describe('sizes', () => {
  test('larger than the base: the rest is zeros and a hole', () => {
    const content = nonZeroBytes(4097, 1);
    const { disk } = diskOver(content, { sizeBytes: 65_519 });
    expect(difference(readDisk(disk), Buffer.concat([content, Buffer.alloc(65_519 - 4097)]))).toBe(undefined);
    expect([disk.seekHole(0), disk.found]).toEqual([OK, 4097]);
    expect(disk.seekData(4097)).toBe(ENXIO);
  });

  test('smaller than the base: the rest never shows', () => {
    const content = nonZeroBytes(130_000, 1);
    const { disk } = diskOver(content, { sizeBytes: 5000 });
    expect(difference(readDisk(disk), content.subarray(0, 5000))).toBe(undefined);
    disk.truncate(130_000);
    expect(difference(readDisk(disk, 5000), Buffer.alloc(125_000))).toBe(undefined);
  });

  test.each([0, 1, 4095, 4096, 4097, 65_519])('cut to %i bytes and grown again, nothing old comes back', (size) => {
    const content = nonZeroBytes(130_000, 1);
    const { disk } = diskOver(content);
    // Base in block 0, store from 1 on, space set aside further on.
    const written = nonZeroBytes(60_000, 2);
    disk.write(5000, written.length, written, 0);
    disk.allocate(70_000, 30_000, true);
    const before = readDisk(disk);
    expect(disk.truncate(size)).toBe(OK);
    expect(disk.sizeBytes).toBe(size);
    expect(difference(readDisk(disk), before.subarray(0, size))).toBe(undefined);
    expect(disk.truncate(140_001)).toBe(OK);
    const expected = Buffer.alloc(140_001);
    before.copy(expected, 0, 0, size);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
    // Partial writes copy up what shows now, not what lies below.
    for (let at = 4000; at < 140_000; at += 9001) {
      disk.write(at, 3, nonZeroBytes(3, at), 0);
      nonZeroBytes(3, at).copy(expected, at);
    }
    expect(difference(readDisk(disk), expected)).toBe(undefined);
  });

  test('a write past the end leaves zeros in between', () => {
    const content = nonZeroBytes(1, 1);
    const { disk } = diskOver(content);
    disk.write(10_001, 2, Buffer.from([8, 9]), 0);
    const expected = Buffer.alloc(10_003);
    expected.set(content);
    expected.set([8, 9], 10_001);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
  });

  test('nothing to write is nothing, wherever', () => {
    const { disk } = diskOver(nonZeroBytes(10, 1));
    expect(disk.write(500_000, 0, Buffer.alloc(1), 0)).toBe(OK);
    expect(disk.discard(3, 0)).toBe(OK);
    expect([disk.sizeBytes, disk.account.occupiedBytes]).toEqual([10, 0]);
  });
});

test('the base is never written to', () => {
  const content = nonZeroBytes(65_519, 1);
  const { disk, basePath } = diskOver(content);
  disk.write(100, 50_000, nonZeroBytes(50_000, 2), 0);
  disk.discard(3, 40_000);
  disk.truncate(9);
  disk.write(70_000, 5, nonZeroBytes(5, 3), 0);
  expect(difference(readFileSync(basePath), content)).toBe(undefined);
});

test('whole blocks are written without a look at the base, a part of one copies up one block', () => {
  const { disk, baseFd } = diskOver(nonZeroBytes(20 * BLOCK, 1));
  ftruncateSync(baseFd, 0);
  const data = nonZeroBytes(8 * BLOCK, 2);
  expect(disk.write(4 * BLOCK, data.length, data, 0)).toBe(OK);
  expect(difference(readDisk(disk, 4 * BLOCK, data.length), data)).toBe(undefined);
  expect(disk.account.occupiedBytes).toBe(8 * BLOCK);

  const { disk: other } = diskOver(nonZeroBytes(20 * BLOCK, 1));
  other.write(5 * BLOCK + 17, 1, data, 0);
  expect(other.account.occupiedBytes).toBe(BLOCK);
});

describe('data and holes', () => {
  test('those of the base show through, written and trimmed blocks cover them', () => {
    const content = nonZeroBytes(20 * BLOCK, 1);
    const holes = [4, 5, 6, 7, 12, 13, 14, 15];
    for (const block of holes) content.fill(0, block * BLOCK, (block + 1) * BLOCK);
    const { disk } = diskOver(content, { holes });
    disk.write(5 * BLOCK + 1, 10, nonZeroBytes(10, 1), 0);
    disk.discard(9 * BLOCK, 2 * BLOCK);
    // From, then: data begins, hole begins after it (in blocks).
    for (const [from, data, hole] of [
      [0, 0, 4],
      [4, 5, 6],
      [6, 8, 9],
      [9, 11, 12],
      [12, 16, 20],
    ] as const) {
      expect([disk.seekData(from * BLOCK), disk.found / BLOCK]).toEqual([OK, data]);
      expect([disk.seekHole(data * BLOCK), disk.found / BLOCK]).toEqual([OK, hole]);
    }
    expect([disk.seekData(11 * BLOCK + 7), disk.found]).toEqual([OK, 11 * BLOCK + 7]);
    expect([disk.seekHole(9 * BLOCK + 7), disk.found]).toEqual([OK, 9 * BLOCK + 7]);
    expect(disk.seekData(20 * BLOCK)).toBe(ENXIO);
    expect(disk.seekHole(20 * BLOCK)).toBe(ENXIO);
    expect(disk.seekData(Number.POSITIVE_INFINITY)).toBe(ENXIO);
  });

  test('a base that has none to ask for is data', () => {
    const content = Buffer.alloc(10 * BLOCK);
    const { disk } = diskOver(content, { holes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], hasHoles: false });
    expect([disk.seekData(3), disk.found]).toEqual([OK, 3]);
    expect([disk.seekHole(3), disk.found]).toEqual([OK, 10 * BLOCK]);
  });
});

describe('a base that shrank', () => {
  const content = nonZeroBytes(16 * BLOCK, 1);

  test('its missing bytes are EIO, never zeros; the others are fine', () => {
    const { disk, baseFd } = diskOver(content);
    ftruncateSync(baseFd, 4 * BLOCK + 100);
    const into = Buffer.alloc(16 * BLOCK);
    expect(disk.read(0, 4 * BLOCK + 100, into, 0)).toBe(OK);
    expect(difference(into.subarray(0, 4 * BLOCK + 100), content.subarray(0, 4 * BLOCK + 100))).toBe(undefined);
    expect(disk.read(4 * BLOCK + 99, 2, into, 0)).toBe(EIO);
    expect(disk.transferred).toBe(0);
    expect(disk.read(10 * BLOCK, 1, into, 0)).toBe(EIO);
    expect(disk.read(0, 16 * BLOCK, into, 0)).toBe(EIO);
  });

  test('a part of a missing block cannot be written, and the block stays as it is', () => {
    const { disk, baseFd } = diskOver(content);
    ftruncateSync(baseFd, 4 * BLOCK);
    const data = nonZeroBytes(3 * BLOCK, 2);
    expect([disk.write(10 * BLOCK + 5, 10, data, 0), disk.transferred]).toEqual([EIO, 0]);
    expect(disk.discard(10 * BLOCK + 5, 10)).toBe(EIO);
    expect([disk.account.writtenBytes, disk.account.occupiedBytes]).toEqual([0, 0]);
    expect(disk.read(10 * BLOCK, 1, Buffer.alloc(1), 0)).toBe(EIO);
    // Whole blocks first, then the tail that cannot be.
    expect([disk.write(10 * BLOCK, 2 * BLOCK + 10, data, 0), disk.transferred]).toEqual([EIO, 2 * BLOCK]);
    expect(disk.account.occupiedBytes).toBe(2 * BLOCK);
    // It comes back whole, with the base.
    writeSync(baseFd, content, 0, content.length, 0);
    const expected = Buffer.from(content);
    data.copy(expected, 10 * BLOCK, 0, 2 * BLOCK);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
  });

  test('what is in the store, or zeros, needs no base', () => {
    const { disk, baseFd } = diskOver(content);
    const data = nonZeroBytes(BLOCK + 10, 2);
    disk.write(8 * BLOCK, BLOCK + 10, data, 0);
    disk.discard(12 * BLOCK, 2 * BLOCK);
    ftruncateSync(baseFd, 0);
    expect(difference(readDisk(disk, 8 * BLOCK, BLOCK + 10), data)).toBe(undefined);
    expect(difference(readDisk(disk, 12 * BLOCK, 2 * BLOCK), Buffer.alloc(2 * BLOCK))).toBe(undefined);
    expect(disk.write(8 * BLOCK + 3, 5, data, 0)).toBe(OK);
    expect(disk.write(12 * BLOCK + 3, 5, data, 0)).toBe(OK);
  });

  test('missing bytes are no hole: who copies by holes must meet the error', () => {
    const { disk, baseFd } = diskOver(content);
    ftruncateSync(baseFd, 4 * BLOCK);
    // As cp(1) goes: whatever it skips must read as zeros.
    for (let position = 0; position < disk.sizeBytes; ) {
      const errno = disk.seekData(position);
      expect([position, errno, disk.found]).toEqual([position, OK, position]);
      expect(disk.seekHole(position)).toBe(OK);
      expect(disk.found).toBeGreaterThan(position);
      position = disk.found;
    }
    expect([disk.seekData(8 * BLOCK + 1), disk.found]).toEqual([OK, 8 * BLOCK + 1]);
  });
});

describe('a base that grew', () => {
  test('shows no more than before', () => {
    const content = nonZeroBytes(5000, 1);
    const { disk, baseFd } = diskOver(content, { sizeBytes: 9000 });
    writeSync(baseFd, nonZeroBytes(9000, 2), 0, 4000, 5000);
    expect(difference(readDisk(disk), Buffer.concat([content, Buffer.alloc(4000)]))).toBe(undefined);
    expect([disk.seekHole(0), disk.found]).toEqual([OK, 5000]);
  });
});

describe('a store that fails', () => {
  /** Open for reading only: every change of it is refused. */
  function withReadOnlyStore(content: Buffer): DiskFixture {
    const directory = scratch();
    const path = join(directory, 'store');
    writeFileSync(path, Buffer.alloc(10 * BLOCK));
    return useDisk({ directory, content, storeFd: openSync(path, 'r') });
  }

  test('its errno comes out and nothing changes', () => {
    const content = nonZeroBytes(10 * BLOCK, 1);
    const { disk } = withReadOnlyStore(content);
    const data = nonZeroBytes(5 * BLOCK, 2);
    expect([disk.write(BLOCK, 2 * BLOCK, data, 0), disk.transferred]).toEqual([EBADF, 0]);
    expect([disk.write(BLOCK + 5, 10, data, 0), disk.transferred]).toEqual([EBADF, 0]);
    expect([disk.write(5, 3 * BLOCK, data, 0), disk.transferred]).toEqual([EBADF, 0]);
    expect(disk.discard(5, 10)).toBe(EBADF);
    expect(disk.allocate(BLOCK, 3 * BLOCK, false)).toBe(EBADF);
    expect(disk.write(20 * BLOCK, 10, data, 0)).toBe(EBADF);
    expect([disk.account.writtenBytes, disk.account.occupiedBytes, disk.sizeBytes]).toEqual([0, 0, content.length]);
    expect(difference(readDisk(disk), content)).toBe(undefined);
  });

  test('what needs no store goes on', () => {
    const content = nonZeroBytes(10 * BLOCK, 1);
    const { disk } = withReadOnlyStore(content);
    expect(disk.discard(BLOCK, 2 * BLOCK)).toBe(OK);
    expect(disk.truncate(20 * BLOCK)).toBe(OK);
    const expected = Buffer.concat([content, Buffer.alloc(10 * BLOCK)]);
    expected.fill(0, BLOCK, 3 * BLOCK);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
  });

  test('a cut that fails leaves the size', () => {
    const content = nonZeroBytes(10 * BLOCK, 1);
    const { disk } = withReadOnlyStore(content);
    expect(disk.truncate(5000)).not.toBe(OK);
    expect(disk.sizeBytes).toBe(content.length);
    expect(difference(readDisk(disk), content)).toBe(undefined);
  });
});
