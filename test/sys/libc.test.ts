import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  blockDeviceSize,
  copyFileRange,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  lockExclusive,
  lockHeldByOther,
  lockShared,
  lseek,
  lseekResult,
  SEEK_DATA,
  SEEK_HOLE,
  unlockRange,
} from '../../src/sys/libc.ts';
import { scratch } from '../harness.ts';

const { EAGAIN, EBADF, EINVAL, ENOTTY, ENXIO } = constants.errno;
const MIB = 2 ** 20;

function openFile(directory = scratch(), flags = 'w+'): number {
  const fd = openSync(join(directory, 'file'), flags);
  onTestFinished(() => closeSync(fd));
  return fd;
}

describe('lseek', () => {
  test('finds data and holes, also far beyond 4 GiB', () => {
    const fd = openFile();
    const far = 2 ** 41 + MIB;
    writeSync(fd, Buffer.alloc(65_536, 1), 0, 65_536, far);
    expect([lseek(fd, 0, SEEK_DATA), lseekResult()]).toEqual([0, far]);
    expect([lseek(fd, far + 5, SEEK_DATA), lseekResult()]).toEqual([0, far + 5]);
    expect([lseek(fd, far, SEEK_HOLE), lseekResult()]).toEqual([0, far + 65_536]);
    expect([lseek(fd, 7, SEEK_HOLE), lseekResult()]).toEqual([0, 7]);
    expect(lseek(fd, far + 65_536, SEEK_DATA)).toBe(ENXIO);
  });

  test('says what is wrong', () => {
    expect(lseek(openFile(), 0, 99)).toBe(EINVAL);
    expect(lseek(1_000_000, 0, SEEK_DATA)).toBe(EBADF);
  });
});

describe('fallocate', () => {
  test('sets space aside and punches holes', () => {
    const fd = openFile();
    expect(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, MIB)).toBe(0);
    expect(fstatSync(fd).size).toBe(0);
    expect(fstatSync(fd).blocks * 512).toBeGreaterThanOrEqual(MIB);
    writeSync(fd, Buffer.alloc(12_288, 7), 0, 12_288, 0);
    expect(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5, 8192)).toBe(0);
    const bytes = Buffer.alloc(12_288);
    readSync(fd, bytes, 0, 12_288, 0);
    expect(bytes.equals(Buffer.alloc(12_288, 7).fill(0, 5, 8197))).toBe(true);
  });

  test('says what is wrong', () => {
    expect(fallocate(openFile(), 0, 0, 0)).toBe(EINVAL);
    expect(fallocate(1_000_000, 0, 0, 1)).toBe(EBADF);
  });
});

test('only a block device has a size of one', () => {
  expect(blockDeviceSize(openFile())).toBe(-ENOTTY);
});

describe('locks of open file descriptions', () => {
  test('are seen by another description of the file, not by their own, and go with it', () => {
    const directory = scratch();
    const one = openFile(directory);
    ftruncateSync(one, 1000);
    const two = openFile(directory, 'r');
    const three = openSync(join(directory, 'file'), 'r');
    expect(lockShared(three, 100, 2)).toBe(0);
    expect(lockHeldByOther(three, 0, 1000)).toBe(0);
    expect(lockHeldByOther(two, 101, 1)).toBe(1);
    expect(lockHeldByOther(two, 99, 1)).toBe(0);
    expect(lockHeldByOther(two, 102, 1)).toBe(0);
    // Shared: more than one may have it.
    expect(lockShared(two, 100, 1)).toBe(0);
    closeSync(three);
    expect(lockHeldByOther(two, 100, 2)).toBe(0);
    expect(lockHeldByOther(one, 100, 2)).toBe(1);
  });

  test('say what is wrong', () => {
    expect(lockShared(1_000_000, 0, 1)).toBe(EBADF);
    expect(lockHeldByOther(1_000_000, 0, 1)).toBe(-EBADF);
  });
});

describe('exclusive locks', () => {
  test('another description gets neither kind, until it is given up', () => {
    const directory = scratch();
    const [first, second] = [openFile(directory), openFile(directory)];
    expect(lockExclusive(first, 0, 1)).toBe(0);
    expect(lockExclusive(second, 0, 1)).toBe(EAGAIN);
    expect(lockShared(second, 0, 1)).toBe(EAGAIN);
    expect(lockExclusive(second, 1, 1)).toBe(0);
    expect(unlockRange(first, 0, 1)).toBe(0);
    expect(lockShared(second, 0, 1)).toBe(0);
    expect(lockExclusive(first, 0, 1)).toBe(EAGAIN);
  });

  test('a descriptor that is not open for writing gets none', () => {
    const directory = scratch();
    openFile(directory);
    expect(lockExclusive(openFile(directory, 'r'), 0, 1)).toBe(EBADF);
  });
});

describe('copyFileRange', () => {
  test('copies within and between files, far out, and says how much', () => {
    const from = openFile();
    const to = openFile();
    const far = 5 * 1024 ** 3 + 4096;
    writeSync(from, Buffer.from('abcdef'), 0, 6, far);
    expect(copyFileRange(from, far, to, far + 10, 6)).toBe(6);
    const read = Buffer.alloc(6);
    expect([readSync(to, read, 0, 6, far + 10), read.toString()]).toEqual([6, 'abcdef']);
  });

  test('is 0 at the end of the file, and an errno negated where it cannot', () => {
    const from = openFile();
    expect(copyFileRange(from, 0, openFile(), 0, 10)).toBe(0);
    expect(copyFileRange(from, 0, openFile(scratch(), 'a+'), 0, 10)).toBe(-EBADF);
  });
});
