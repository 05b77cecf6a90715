import { describe, expect, test } from 'vitest';
import { toStat, toStatvfs, toTime } from '../../../src/transport/fuse-native/structures.ts';
import { ATTRIBUTES } from '../../fuse/fake-ops.ts';

const UINT32_MAX = 2 ** 32 - 1;
const BLOCK = 4096;
const TIB = 2 ** 40;

describe('stat', () => {
  test('every field has its place; sizes above 2^32 are whole', () => {
    expect(
      toStat({ ...ATTRIBUTES, sizeBytes: 2 ** 52, blocks: 2 ** 43, mtimeSeconds: 5, mtimeNanoseconds: 0 }),
    ).toEqual({
      mode: 0o100640,
      uid: 1000,
      gid: 1001,
      size: 2 ** 52,
      nlink: 1,
      ino: 2,
      blksize: 4096,
      blocks: 2 ** 43,
      atime: 1_700_000_001_000,
      mtime: 5000,
      ctime: (2 ** 33 + 3) * 1000,
    });
  });

  test.each([
    [1_700_000_001, 0, 1_700_000_001_000],
    [1_700_000_001, 999_999, 1_700_000_001_000],
    [1_700_000_001, 1_000_000, 1_700_000_001_001],
    [1_700_000_001, 999_999_999, 1_700_000_001_999],
    [0, 0, 0],
    [253_402_300_799, 999_000_000, 253_402_300_799_999],
  ])('%i s and %i ns are %i ms: cut, never rounded up into the future', (seconds, nanoseconds, milliseconds) => {
    const { atime, mtime, ctime } = toStat({
      ...ATTRIBUTES,
      ...{ atimeSeconds: seconds, mtimeSeconds: seconds, ctimeSeconds: seconds },
      ...{ atimeNanoseconds: nanoseconds, mtimeNanoseconds: nanoseconds, ctimeNanoseconds: nanoseconds },
    });
    expect({ atime, mtime, ctime }).toEqual({ atime: milliseconds, mtime: milliseconds, ctime: milliseconds });
  });

  test.each([
    [-1, 999_999_999],
    [-1, 0],
    [-(2 ** 31), 5],
  ])('before 1970 (%i s, %i ns) is 0: the addon would make it an age far ahead', (seconds, nanoseconds) => {
    const stat = toStat({ ...ATTRIBUTES, mtimeSeconds: seconds, mtimeNanoseconds: nanoseconds });
    expect(stat.mtime).toBe(0);
    expect(stat.atime).toBe(1_700_000_001_000);
  });
});

describe('statvfs', () => {
  const statistics = { blockBytes: BLOCK, files: 2, nameMax: 255 };

  test('below 16 TiB the blocks are ours', () => {
    expect(toStatvfs({ ...statistics, blocks: UINT32_MAX, freeBlocks: 12_345 })).toEqual({
      bsize: BLOCK,
      frsize: BLOCK,
      blocks: UINT32_MAX,
      bfree: 12_345,
      bavail: 12_345,
      files: 2,
      ffree: 0,
      favail: 0,
      namemax: 255,
    });
    expect(toStatvfs({ ...statistics, blocks: 0, freeBlocks: 0 })).toMatchObject({ blocks: 0, bfree: 0, bsize: BLOCK });
  });

  test.each([
    ['16 TiB', (16 * TIB) / BLOCK, 8192],
    ['16 TiB and a block', (16 * TIB) / BLOCK + 1, 8192],
    ['32 TiB', (32 * TIB) / BLOCK, 16_384],
    ['the largest disk', 2 ** 52 / BLOCK, 2 ** 21],
  ])('%s comes in larger blocks; every field fits and the bytes are right within a block', (_, blocks, bsize) => {
    const freeBlocks = blocks - 3;
    const statvfs = toStatvfs({ ...statistics, blocks, freeBlocks });
    expect(statvfs.bsize).toBe(bsize);
    expect(statvfs.frsize).toBe(bsize);
    for (const [field, value] of Object.entries(statvfs)) {
      expect({ field, fits: Number.isInteger(value) && value >= 0 && value <= UINT32_MAX }).toEqual({
        field,
        fits: true,
      });
    }
    for (const [told, real] of [
      [statvfs.blocks, blocks],
      [statvfs.bfree, freeBlocks],
      [statvfs.bavail, freeBlocks],
    ] as const) {
      const lostBytes = real * BLOCK - told * statvfs.frsize;
      expect(lostBytes).toBeGreaterThanOrEqual(0);
      expect(lostBytes).toBeLessThan(statvfs.frsize);
    }
  });
});

test.each([
  [0, [0, 0]],
  [1, [0, 1_000_000]],
  [1_700_000_000_250, [1_700_000_000, 250_000_000]],
  [253_402_300_799_999, [253_402_300_799, 999_000_000]],
  [-1, [-1, 999_000_000]],
  [-2000, [-2, 0]],
])('%i ms is the time %j: nanoseconds are never negative', (milliseconds, time) => {
  expect(toTime(milliseconds)).toEqual(time);
});
