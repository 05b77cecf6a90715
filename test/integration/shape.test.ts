/** Sizes and holes of a disk: a larger one with --size, O_TRUNC, and the base's own holes. */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lseek, lseekResult, SEEK_DATA, SEEK_HOLE } from '../../src/sys/libc.ts';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, run, scratch } from '../harness.ts';
import { skipUnless } from './machine-support.ts';

const KIB = 1024;

/** A file of 4 MiB with data at 1 MiB (64 KiB) and at 3 MiB (5000 bytes); holes elsewhere, the end included. */
function makeSparseBase(directory: string): string {
  const base = makeBase(directory, 0, 'sparse.img');
  truncateSync(base, 4096 * KIB);
  const fd = openSync(base, 'r+');
  writeSync(fd, Buffer.alloc(64 * KIB, 0xaa), 0, 64 * KIB, 1024 * KIB);
  writeSync(fd, Buffer.alloc(5000, 0xbb), 0, 5000, 3072 * KIB);
  closeSync(fd);
  return base;
}

/** Where data starts and ends, as lseek(2) tells. */
function extents(path: string): [start: number, end: number][] {
  const fd = openSync(path, 'r');
  const found: [number, number][] = [];
  for (let at = 0; lseek(fd, at, SEEK_DATA) === 0; ) {
    const start = lseekResult();
    lseek(fd, start, SEEK_HOLE);
    at = lseekResult();
    found.push([start, at]);
  }
  closeSync(fd);
  return found;
}

test("the base's own holes show, and what is written and punched besides", (context) => {
  const directory = scratch();
  const base = makeSparseBase(directory);
  skipUnless(context, extents(base).length === 2, 'the file system of the tests does not tell holes');
  const { disk } = mountDisk(base, makeMountpoint(directory));
  expect(extents(disk)).toEqual(extents(base));
  writeFileSync(disk, Buffer.alloc(4096, 1), { flag: 'r+' });
  expect(extents(disk)).toEqual([[0, 4096], ...extents(base)]);
  must('fallocate', ['-p', '-o', String(1024 * KIB), '-l', String(32 * KIB), disk]);
  expect(extents(disk)[1]).toEqual([1056 * KIB, 1088 * KIB]);
  const expected = readFileSync(base);
  expected.fill(1, 0, 4096);
  expected.fill(0, 1024 * KIB, 1056 * KIB);
  expect(readFileSync(disk).equals(expected)).toBe(true);
  // cp keeps holes and content by these answers.
  const copy = join(directory, 'copy');
  must('cp', ['--sparse=auto', disk, copy]);
  expect(readFileSync(copy).equals(expected)).toBe(true);
});

test('data that only the kernel has yet is never told as a hole', () => {
  const directory = scratch();
  const { disk } = mountDisk(makeSparseBase(directory), makeMountpoint(directory));
  const fd = openSync(disk, 'r+');
  writeSync(fd, Buffer.from('unsynced'), 0, 8, 2048 * KIB + 100);
  const copy = join(directory, 'copy');
  must('cp', ['--sparse=auto', disk, copy]);
  expect(
    readFileSync(copy)
      .subarray(2048 * KIB + 100, 2048 * KIB + 108)
      .toString(),
  ).toBe('unsynced');
  closeSync(fd);
});

test.each(['1M', '1.5M', '10000000', '2G'])('--size %s makes a larger disk; the rest reads as zeros', (size) => {
  const directory = scratch();
  const base = makeBase(directory, 100_001);
  const { disk } = mountDisk(base, makeMountpoint(directory), ['--size', size]);
  const bytes = { '1M': 1024 * KIB, '1.5M': 1536 * KIB, '10000000': 10_000_000, '2G': 2048 * 1024 * KIB }[size] ?? 0;
  expect(statSync(disk).size).toBe(bytes);
  const fd = openSync(disk, 'r+');
  const head = Buffer.alloc(300_000, 0xff);
  readSync(fd, head, 0, head.length, 0);
  const expected = Buffer.alloc(300_000);
  readFileSync(base).copy(expected);
  expect(head.equals(expected)).toBe(true);
  writeSync(fd, Buffer.from('end'), 0, 3, bytes - 3);
  fsyncSync(fd);
  const tail = Buffer.alloc(1000, 0xff);
  expect(readSync(fd, tail, 0, 1000, bytes - 500)).toBe(500);
  expect(tail.subarray(0, 500).equals(Buffer.concat([Buffer.alloc(497), Buffer.from('end')]))).toBe(true);
  closeSync(fd);
});

test('--size of exactly the base changes nothing', () => {
  const directory = scratch();
  const base = makeBase(directory, 100_001);
  const { disk } = mountDisk(base, makeMountpoint(directory), ['--size', '100001']);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
});

test('O_TRUNC empties the disk for good: what grows back is zeros, not base', () => {
  const directory = scratch();
  const base = makeBase(directory, 100_001);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  writeFileSync(disk, 'new');
  expect(statSync(disk).size).toBe(3);
  truncateSync(disk, 50_000);
  expect(readFileSync(disk).equals(Buffer.concat([Buffer.from('new'), Buffer.alloc(49_997)]))).toBe(true);
  closeSync(openSync(disk, constants.O_RDWR | constants.O_TRUNC));
  expect(statSync(disk).size).toBe(0);
  truncateSync(disk, 100_001);
  expect(readFileSync(disk).equals(Buffer.alloc(100_001))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  expect(readFileSync(mountDisk(base, mountpoint).disk).equals(readFileSync(base))).toBe(true);
});

test('whole-image tools see a regular file of the right size', () => {
  const directory = scratch();
  const base = makeBase(directory, 65_537);
  const { disk } = mountDisk(base, makeMountpoint(directory));
  expect(must('stat', ['-c', '%F %s %h', disk]).trim()).toBe('regular file 65537 1');
  must('cmp', [base, disk]);
  expect(run('sh', ['-c', `dd if=${disk} bs=4k iflag=direct status=none | cmp - ${base}`]).status).toBe(0);
});
