/** A store that runs full under the write-back cache: what the kernel took already waits for room and is not lost. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, makeMountpoint, mountDisk, must, mustCowfs, poll, run, start, statusOf } from '../harness.ts';
import { finish, freeBytes, needsRoot, said } from './machine-support.ts';
import { expectNothingLeft } from './nothing-left-support.ts';
import {
  FSYNC,
  MIB,
  pattern,
  type SmallStore,
  STAY,
  smallStore,
  startWriter,
  untilHeld,
} from './store-full-support.ts';

/**
 * Reads 4 KiB past the page cache through a handle of its own; the milliseconds until the data was there. The process
 * hangs afterwards, at close(2), where the kernel waits for all that is dirty.
 */
async function directRead({ disk, original }: SmallStore, offset: number): Promise<number> {
  const program = `
    const fs = require('node:fs');
    const fd = fs.openSync(${JSON.stringify(disk)}, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
    const into = Buffer.alloc(4096);
    fs.readSync(fd, into, 0, 4096, ${offset});
    console.log('read ' + into.toString('hex'));
    ${STAY}`;
  const startMs = performance.now();
  const text = await said(start(process.execPath, ['-e', program]), /read .*\n/);
  expect(text).toContain(original.subarray(offset, offset + 4096).toString('hex'));
  return performance.now() - startMs;
}

test('held data is in place when room comes; the status warns until then, and others go on', async (context) => {
  needsRoot(context);
  const full = smallStore(['--enospc-timeout', '40s']);
  const { mountpoint, store, disk, original } = full;
  const writer = startWriter(disk, 0, 8 * MIB, 3, FSYNC);
  const result = finish(writer);
  await untilHeld(mountpoint);
  const status = statusOf(mountpoint);
  expect(status.warnings.join()).toContain('the store is full');
  expect(status.store.freeBytes).toBeLessThan(MIB);
  expect(cowfs(['status', mountpoint]).stdout).toMatch(/waiting +.*iB for room/);
  for (const offset of [9, 12, 15]) expect(await directRead(full, offset * MIB)).toBeLessThan(2000);
  expect(mustCowfs(['list'])).toContain(disk);
  expect(run('df', [mountpoint]).status).toBe(0);
  expect(writer.exitCode).toBeNull();

  must('mount', ['-o', 'remount,size=32M', store]);
  expect((await result).stdout).toContain('fsync OK');
  const expected = Buffer.concat([pattern(3, 8 * MIB), original.subarray(8 * MIB)]);
  expect(readFileSync(disk).equals(expected)).toBe(true);
  expect(statusOf(mountpoint).store.heldBytes).toBe(0);
  expect(statusOf(mountpoint).warnings.join()).toContain('room again');
});

test('after --enospc-timeout fsync fails with ENOSPC; what was synced stays, and the disk goes on', async (context) => {
  needsRoot(context);
  const { mountpoint, disk, original } = smallStore(['--enospc-timeout', '1s']);
  expect((await finish(startWriter(disk, 0, 2 * MIB, 1, FSYNC))).stdout).toContain('fsync OK');
  const startMs = performance.now();
  const { stdout } = await finish(startWriter(disk, 8 * MIB, 6 * MIB, 2, FSYNC));
  const elapsedMs = performance.now() - startMs;
  expect(stdout).toContain('fsync ENOSPC');
  expect(elapsedMs).toBeGreaterThan(900);
  expect(elapsedMs).toBeLessThan(15_000);
  expect(statusOf(mountpoint).warnings.join()).toMatch(/lost/);
  const now = readFileSync(disk);
  expect(now.subarray(0, 2 * MIB).equals(pattern(1, 2 * MIB))).toBe(true);
  expect(now.subarray(2 * MIB, 8 * MIB).equals(original.subarray(2 * MIB, 8 * MIB))).toBe(true);
  must('fallocate', ['-p', '-o', '0', '-l', String(16 * MIB), disk]);
  expect((await finish(startWriter(disk, 0, 2 * MIB, 4, FSYNC))).stdout).toContain('fsync OK');
});

test('a trim of another disk makes the room that held data waits for', async (context) => {
  needsRoot(context);
  // On the disk itself the kernel lets no trim through before all that is dirty is written (fuse_writeback_range).
  const { directory, store, mountpoint, disk, original } = smallStore(['--enospc-timeout', '40s']);
  const other = mountDisk(join(directory, 'base.img'), makeMountpoint(directory, 'other'), ['--store', store]);
  expect((await finish(startWriter(other.disk, 0, 3 * MIB, 1, FSYNC))).stdout).toContain('fsync OK');
  const writer = finish(startWriter(disk, 8 * MIB, 2 * MIB, 2, FSYNC));
  await untilHeld(mountpoint);
  must('fallocate', ['-p', '-o', '0', '-l', String(3 * MIB), other.disk]);
  expect((await writer).stdout).toContain('fsync OK');
  expect(
    readFileSync(disk)
      .subarray(8 * MIB, 10 * MIB)
      .equals(pattern(2, 2 * MIB)),
  ).toBe(true);
  expect(
    readFileSync(disk)
      .subarray(0, 8 * MIB)
      .equals(original.subarray(0, 8 * MIB)),
  ).toBe(true);
});

test('`status` and `list` answer at once though dirty data would find no room', async (context) => {
  needsRoot(context);
  const { mountpoint, disk } = smallStore(['--enospc-timeout', '15s']);
  await said(startWriter(disk, 0, 8 * MIB, 3, STAY), `written ${8 * MIB}`);
  const startMs = performance.now();
  expect(statusOf(mountpoint).mountpoint).toBe(mountpoint);
  expect(mustCowfs(['list'])).toContain(disk);
  expect(performance.now() - startMs).toBeLessThan(8000);
});

test.for(['unmount --force', 'kill -9'])(
  '%s while data is held leaves nothing; its writer gets an error',
  async (how, context) => {
    needsRoot(context);
    const { mountpoint, store, disk } = smallStore(['--enospc-timeout', '40s']);
    const writer = finish(startWriter(disk, 0, 8 * MIB, 3, FSYNC));
    await untilHeld(mountpoint);
    if (how === 'kill -9') process.kill(statusOf(mountpoint).pid, 'SIGKILL');
    else mustCowfs(['unmount', '--force', mountpoint]);
    expect((await writer).stdout).toMatch(/fsync E/);
    await expectNothingLeft(mountpoint);
    await poll('space is back', () => freeBytes(store) === 4 * MIB, 2000);
  },
);
