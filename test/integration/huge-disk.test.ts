/** A sparse base of 8 TiB: as quick and as small as one of 1 GiB; its far end works, and so does discarding all of it. */
import { closeSync, openSync, readSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Mount, makeMountpoint, mountDisk, must, mustCowfs, scratch, statusOf } from '../harness.ts';
import { skipUnless } from './machine-support.ts';

const GIB = 2 ** 30;
const TIB = 2 ** 40;

function makeSparse(directory: string, name: string, bytes: number): string | undefined {
  const path = join(directory, name);
  writeFileSync(path, 'start');
  try {
    truncateSync(path, bytes);
    return path;
  } catch {
    return undefined;
  }
}

const NO_ROOM = 'the file system of the tests has no files of 8 TiB';

test('an 8 TiB base takes the time and the memory of a 1 GiB one', (context) => {
  const directory = scratch();
  const small = makeSparse(directory, 'small', GIB) ?? '';
  const huge = makeSparse(directory, 'huge', 8 * TIB);
  skipUnless(context, huge !== undefined, NO_ROOM);
  const measured = {
    small: { rss: [] as number[], ms: [] as number[] },
    huge: { rss: [] as number[], ms: [] as number[] },
  };
  for (let round = 0; round < 4; round++) {
    for (const [kind, base] of [
      ['small', small],
      ['huge', huge ?? ''],
    ] as const) {
      const startMs = performance.now();
      const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
      measured[kind].ms.push(performance.now() - startMs);
      expect(statSync(disk).size).toBe(kind === 'small' ? GIB : 8 * TIB);
      measured[kind].rss.push(statusOf(mountpoint).memory.rssBytes);
      mustCowfs(['unmount', mountpoint]);
    }
  }
  // The least of each: what else runs on the machine only adds.
  const ratio = (of: 'rss' | 'ms'): number => Math.min(...measured.huge[of]) / Math.min(...measured.small[of]);
  console.log(`8 TiB against 1 GiB: memory ${ratio('rss').toFixed(2)}, time to mount ${ratio('ms').toFixed(2)}`);
  expect(ratio('rss')).toBeLessThan(1.2);
  expect(ratio('ms')).toBeLessThan(1.5);
});

function mountHuge(options: readonly string[] = []): Mount | undefined {
  const directory = scratch();
  const base = makeSparse(directory, 'huge', 8 * TIB);
  return base === undefined ? undefined : mountDisk(base, makeMountpoint(directory), options);
}

test('the far end of 8 TiB can be written and read, and costs one block', (context) => {
  const mount = mountHuge();
  skipUnless(context, mount !== undefined, NO_ROOM);
  const { mountpoint, disk } = mount as Mount;
  const fd = openSync(disk, 'r+');
  for (const at of [8 * TIB - 100, 5 * TIB + 12_345, 4 * TIB - 50]) {
    writeSync(fd, Buffer.alloc(100, 7), 0, 100, at);
    const into = Buffer.alloc(100);
    expect(readSync(fd, into, 0, 100, at)).toBe(100);
    expect(into.equals(Buffer.alloc(100, 7))).toBe(true);
  }
  closeSync(fd);
  const status = statusOf(mountpoint);
  expect(status.disks[0]?.writtenBytes).toBe(4 * 4096);
  expect(status.memory.mapBytes).toBeLessThan(2 ** 20);
});

test('discarding all of 8 TiB is quick and keeps the map small; writes after it show', (context) => {
  const mount = mountHuge();
  skipUnless(context, mount !== undefined, NO_ROOM);
  const { mountpoint, disk } = mount as Mount;
  must('dd', [
    'if=/dev/urandom',
    `of=${disk}`,
    'bs=1M',
    'count=4',
    'seek=1000000',
    'conv=notrunc,fsync',
    'status=none',
  ]);
  const startMs = performance.now();
  must('fallocate', ['-p', '-o', '0', '-l', String(8 * TIB), disk]);
  const elapsedMs = performance.now() - startMs;
  console.log(`discard of 8 TiB: ${elapsedMs.toFixed(0)} ms`);
  expect(elapsedMs).toBeLessThan(3000);
  const status = statusOf(mountpoint);
  expect(status.memory.mapBytes).toBeLessThan(2 ** 20);
  expect(status.disks[0]).toMatchObject({ writtenBytes: 0 });
  const fd = openSync(disk, 'r+');
  const into = Buffer.alloc(5, 1);
  readSync(fd, into, 0, 5, 0);
  expect(into.equals(Buffer.alloc(5))).toBe(true);
  writeSync(fd, Buffer.from('again'), 0, 5, 1_000_000 * 2 ** 20);
  readSync(fd, into, 0, 5, 1_000_000 * 2 ** 20);
  expect(into.toString()).toBe('again');
  closeSync(fd);
});

test('a small base made 8 TiB by --size does the same, and shrinks back', (context) => {
  const directory = scratch();
  const base = makeSparse(directory, 'small', 1_000_001) ?? '';
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--size', '8T']);
  skipUnless(context, statSync(disk).size === 8 * TIB, 'no such size');
  must('fallocate', ['-p', '-o', '0', '-l', String(8 * TIB), disk]);
  expect(statusOf(mountpoint).memory.mapBytes).toBeLessThan(2 ** 20);
  truncateSync(disk, 5);
  truncateSync(disk, 8 * TIB);
  expect(statusOf(mountpoint).memory.mapBytes).toBeLessThan(2 ** 20);
});
