/** Space: what statfs says, what the store takes, what trim gives back and fallocate sets aside. */
import { readFileSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  type Mount,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { freeBytes, needsRoot, tmpfs } from './machine-support.ts';

const MIB = 1024 * 1024;
/** What a file system needs besides: inodes, trees of pages. */
const SLACK = 256 * 1024;

function storeBytes(mountpoint: string): number {
  return statusOf(mountpoint).disks[0]?.storeBytes ?? -1;
}

/** Writes random data and waits until the store has it. */
function fill(disk: string, offsetMib: number, mib: number): void {
  const blocks = [`seek=${offsetMib}`, `count=${mib}`, 'bs=1M', 'conv=notrunc,fsync', 'status=none'];
  must('dd', ['if=/dev/urandom', `of=${disk}`, ...blocks]);
}

function mountOnTmpfs(mib: number, options: readonly string[] = []): Mount & { store: string; base: string } {
  const directory = scratch();
  const store = tmpfs(directory, `${mib}M`);
  const base = makeBase(directory, 32 * MIB);
  return { ...mountDisk(base, makeMountpoint(directory), ['--store', store, ...options]), store, base };
}

test('statfs tells the free space of the store, before and after writes', (context) => {
  needsRoot(context);
  const { mountpoint, disk, store } = mountOnTmpfs(64);
  expect(Math.abs(freeBytes(mountpoint) - freeBytes(store))).toBeLessThan(SLACK);
  fill(disk, 0, 10);
  expect(Math.abs(freeBytes(mountpoint) - freeBytes(store))).toBeLessThan(SLACK);
  expect(Math.abs(freeBytes(mountpoint) - 54 * MIB)).toBeLessThan(SLACK);
  expect(Math.abs(statusOf(mountpoint).store.freeBytes - freeBytes(store))).toBeLessThan(SLACK);
  const { blocks, bfree, bsize } = statfsSync(mountpoint);
  expect(Math.abs((blocks - bfree) * bsize - 10 * MIB)).toBeLessThan(SLACK);
  expect(must('df', ['-h', mountpoint])).toContain('54M');
});

test('statfs tells what --max-store leaves', () => {
  const directory = scratch();
  const base = makeBase(directory, 8 * MIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--max-store', '4M']);
  expect(freeBytes(mountpoint)).toBe(4 * MIB);
  fill(disk, 2, 1);
  expect(freeBytes(mountpoint)).toBe(3 * MIB);
  expect(statusOf(mountpoint).store.maxBytes).toBe(4 * MIB);
  must('fallocate', ['-p', '-o', String(2 * MIB), '-l', String(MIB), disk]);
  expect(freeBytes(mountpoint)).toBe(4 * MIB);
});

test('trim gives space back to the host before it returns', (context) => {
  needsRoot(context);
  const { mountpoint, disk, store } = mountOnTmpfs(64);
  const before = freeBytes(store);
  fill(disk, 0, 24);
  expect(before - freeBytes(store)).toBeGreaterThanOrEqual(24 * MIB);
  expect(storeBytes(mountpoint)).toBeGreaterThanOrEqual(24 * MIB);
  must('fallocate', ['-p', '-o', '0', '-l', String(20 * MIB), disk]);
  expect(before - freeBytes(store)).toBeLessThanOrEqual(4 * MIB + SLACK);
  expect(storeBytes(mountpoint)).toBeLessThanOrEqual(4 * MIB + SLACK);
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(4 * MIB);
  must('fallocate', ['-p', '-o', String(20 * MIB), '-l', String(12 * MIB), disk]);
  expect(before - freeBytes(store)).toBeLessThan(SLACK);
  expect(readFileSync(disk).equals(Buffer.alloc(32 * MIB))).toBe(true);
});

test.each([
  { what: 'zero range', give: (disk: string) => must('fallocate', ['-z', '-o', '0', '-l', String(8 * MIB), disk]) },
  { what: 'truncate', give: (disk: string) => must('truncate', ['-s', '0', disk]) },
  { what: 'an unaligned punch', give: (disk: string) => must('fallocate', ['-p', '-o', '100', '-l', '8388400', disk]) },
])('$what gives space back', ({ give }) => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, 8 * MIB), makeMountpoint(directory));
  fill(disk, 0, 8);
  expect(storeBytes(mountpoint)).toBeGreaterThanOrEqual(8 * MIB);
  give(disk);
  expect(storeBytes(mountpoint)).toBeLessThanOrEqual(16 * 1024);
});

test('a disk that was only read takes nothing, nor does trimming what was never written', () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, 8 * MIB), makeMountpoint(directory));
  readFileSync(disk);
  must('fallocate', ['-p', '-o', '0', '-l', String(4 * MIB), disk]);
  expect(statusOf(mountpoint).disks[0]).toMatchObject({ writtenBytes: 0, storeBytes: 0 });
});

test('fallocate sets space aside, keeps the content, and fails whole when there is not enough', (context) => {
  needsRoot(context);
  const { mountpoint, disk, store, base } = mountOnTmpfs(16);
  const before = freeBytes(store);
  const failed = run('fallocate', ['-l', String(24 * MIB), disk]);
  expect(failed.stderr).toContain('No space left');
  expect(before - freeBytes(store)).toBeLessThan(SLACK);
  must('fallocate', ['-o', String(4 * MIB), '-l', String(8 * MIB), disk]);
  expect(storeBytes(mountpoint)).toBeGreaterThanOrEqual(8 * MIB);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  // What was set aside is there when the rest has gone to somebody else.
  run('dd', ['if=/dev/zero', `of=${store}/filler`, 'bs=64k']);
  expect(freeBytes(store)).toBe(0);
  fill(disk, 4, 8);
  must('fallocate', ['-l', String(33 * MIB), '-n', '-o', String(4 * MIB), '-l', String(4 * MIB), disk]);
  expect(statSync(disk).size).toBe(32 * MIB);
});

test('fallocate past the end grows the disk, with --keep-size it does not', () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, 100_001), makeMountpoint(directory));
  must('fallocate', ['-n', '-o', '100001', '-l', String(MIB), disk]);
  expect(statSync(disk).size).toBe(100_001);
  expect(storeBytes(mountpoint)).toBeGreaterThanOrEqual(MIB);
  must('fallocate', ['-o', '0', '-l', String(2 * MIB), disk]);
  expect(statSync(disk).size).toBe(2 * MIB);
  expect(
    readFileSync(disk)
      .subarray(100_001)
      .equals(Buffer.alloc(2 * MIB - 100_001)),
  ).toBe(true);
});

test('two disks of one base take only what each of them wrote, and give it back each for itself', (context) => {
  needsRoot(context);
  const directory = scratch();
  const store = tmpfs(directory, '64M');
  const base = makeBase(directory, 8 * MIB);
  const before = freeBytes(store);
  const [a, b] = ['a', 'b'].map((name) => mountDisk(base, makeMountpoint(directory, name), ['--store', store]));
  fill(a?.disk ?? '', 0, 8);
  writeFileSync(b?.disk ?? '', 'one block', { flag: 'r+' });
  expect(storeBytes(b?.mountpoint ?? '')).toBeLessThanOrEqual(8192);
  expect(before - freeBytes(store)).toBeGreaterThanOrEqual(8 * MIB);
  mustCowfs(['unmount', a?.mountpoint ?? '']);
  expect(before - freeBytes(store)).toBeLessThan(SLACK);
  expect(
    readFileSync(b?.disk ?? '')
      .subarray(0, 9)
      .toString(),
  ).toBe('one block');
});
