/** A store that runs full under the cache modes that tell at once: ENOSPC at write(2), and what was taken stays. */
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, statusOf } from '../harness.ts';
import { finish, freeBytes, needsRoot } from './machine-support.ts';
import { FSYNC, MIB, pattern, smallStore, startWriter } from './store-full-support.ts';

const TELLING = ['writethrough', 'none'];

test.for(TELLING)('--cache %s: a full store is ENOSPC at write(2), earlier data stays', async (cache, context) => {
  needsRoot(context);
  const { mountpoint, store, disk, original } = smallStore(['--cache', cache]);
  const { stdout } = await finish(startWriter(disk, 0, 8 * MIB, 3, FSYNC));
  const [, taken = '', error = ''] = /^written (\d+) (\w*)$/m.exec(stdout) ?? [];
  expect(error).toBe('ENOSPC');
  expect(stdout).toContain('fsync OK');
  const bytes = Number(taken);
  expect(bytes).toBeGreaterThan(3.5 * MIB);
  expect(bytes).toBeLessThanOrEqual(4 * MIB);
  const now = readFileSync(disk);
  expect(now.subarray(0, bytes).equals(pattern(3, 8 * MIB).subarray(0, bytes))).toBe(true);
  expect(now.subarray(bytes).equals(original.subarray(bytes))).toBe(true);
  expect(statusOf(mountpoint).store.heldBytes).toBe(0);
  // What is there already can be written again; a trim makes room for more.
  const fd = openSync(disk, 'r+');
  expect(writeSync(fd, Buffer.alloc(MIB, 9), 0, MIB, MIB)).toBe(MIB);
  must('fallocate', ['-p', '-o', '0', '-l', String(2 * MIB), disk]);
  expect(writeSync(fd, Buffer.alloc(MIB, 8), 0, MIB, 10 * MIB)).toBe(MIB);
  closeSync(fd);
  expect(
    readFileSync(disk)
      .subarray(10 * MIB, 11 * MIB)
      .equals(Buffer.alloc(MIB, 8)),
  ).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  expect(freeBytes(store)).toBe(4 * MIB);
});

test.for(TELLING)('--cache %s: --max-store is ENOSPC at write(2), up to the last block', async (cache) => {
  const directory = scratch();
  const base = makeBase(directory, 8 * MIB);
  const options = ['--cache', cache, '--max-store', '1M'];
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
  const { stdout } = await finish(startWriter(disk, 0, 4 * MIB, 5));
  expect(stdout).toContain(`written ${MIB} ENOSPC`);
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(MIB);
  expect(readFileSync(disk).subarray(0, MIB).equals(pattern(5, MIB))).toBe(true);
  expect(() => writeFileSync(disk, 'x', { flag: 'a' })).toThrow('ENOSPC');
  must('fallocate', ['-p', '-o', '0', '-l', '4096', disk]);
  writeFileSync(disk, 'x', { flag: 'a' });
});

test('--max-store under the write-back cache: fsync tells after the time limit, what fitted stays', async () => {
  const directory = scratch();
  const base = makeBase(directory, 8 * MIB);
  const options = ['--max-store', '1M', '--enospc-timeout', '500ms'];
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
  const { stdout } = await finish(startWriter(disk, 0, 512 * 1024, 5, FSYNC));
  expect(stdout).toContain('fsync OK');
  const more = await finish(startWriter(disk, 4 * MIB, 2 * MIB, 6, FSYNC));
  expect(more.stdout).toContain('fsync ENOSPC');
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBeLessThanOrEqual(MIB);
  const fd = openSync(disk, 'r');
  const head = Buffer.alloc(512 * 1024);
  readSync(fd, head, 0, head.length, 0);
  closeSync(fd);
  expect(head.equals(pattern(5, head.length))).toBe(true);
});

test('a store that is nearly full is warned of before it hurts', async () => {
  const directory = scratch();
  const base = makeBase(directory, 8 * MIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--max-store', '2M']);
  await finish(startWriter(disk, 0, MIB, 5, FSYNC));
  expect(statusOf(mountpoint).warnings.join()).not.toContain('--max-store');
  await finish(startWriter(disk, MIB, MIB, 5, FSYNC));
  expect(statusOf(mountpoint).warnings.join()).toContain('--max-store');
});
