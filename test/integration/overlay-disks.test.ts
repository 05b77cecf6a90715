/** A kept disk among others: its name, its reset, its quota; those beside it stay temporary. */
import { closeSync, openSync, readdirSync, renameSync, truncateSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, must, mustCowfs, statusOf } from '../harness.ts';
import { inChild, needsFuseNative } from './fuse-native-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { BLOCK, infoOf, keptDisk, killed, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import {
  ALL_MODES,
  expectContent,
  filled,
  make,
  opened,
  outcome,
  patched,
  put,
  TRANSPORT_MODES,
} from './sessions-support.ts';

function names(directory: string): string[] {
  return readdirSync(directory).sort();
}

test.for(TRANSPORT_MODES)('$name: other disks beside it stay temporary', async (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  const options = ['--transport', mode.transport, '--session', 'other.raw'];
  let kept = keptDisk(options);
  const other = join(kept.mountpoint, 'other.raw');
  const touched = join(kept.mountpoint, 'touched.raw');
  make(touched);
  for (const [index, path] of [kept.disk, other, touched].entries()) put(path, 100, filled(index, 50_000));
  expect(
    statusOf(kept.mountpoint)
      .disks.map(({ name, overlay }) => [name, overlay])
      .sort(),
  ).toEqual([
    ['disk.raw', kept.overlay],
    ['other.raw', null],
    ['touched.raw', null],
  ]);
  await unmounted(kept);
  kept = remounted(kept, options);
  expectContent(kept.disk, patched(kept.original, [100, filled(0, 50_000)]));
  expectContent(other, kept.original);
  expect(names(kept.mountpoint)).toEqual(['disk.raw', 'other.raw']);
});

test.for(TRANSPORT_MODES)('$name: the kept disk cannot be removed or replaced, but renamed', async (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  let kept = keptDisk(['--transport', mode.transport]);
  const { disk, mountpoint } = kept;
  put(disk, 0, Buffer.from('kept'));
  const x = join(mountpoint, 'x.raw');
  make(x);
  expect(outcome(() => unlinkSync(disk))).toBe('EPERM');
  expect(outcome(() => renameSync(x, disk))).toBe('EPERM');
  const fd = opened(disk);
  expect(outcome(() => unlinkSync(disk))).toBe('EPERM');
  closeSync(fd);
  expect(names(mountpoint)).toEqual(['disk.raw', 'x.raw']);
  const renamed = join(mountpoint, 'renamed.raw');
  renameSync(disk, renamed);
  expect(outcome(() => unlinkSync(renamed))).toBe('EPERM');
  unlinkSync(x);
  put(renamed, 10, Buffer.from('renamed'));
  expect(statusOf(mountpoint).disks).toMatchObject([{ name: 'renamed.raw', overlay: kept.overlay }]);
  await unmounted(kept);
  kept = remounted(kept);
  expectContent(disk, patched(kept.original, [0, Buffer.from('kept')], [10, Buffer.from('renamed')]));
});

test('a kept disk may change places with another, and stays the kept one', async () => {
  let kept = keptDisk();
  const x = join(kept.mountpoint, 'x.raw');
  make(x);
  put(kept.disk, 0, Buffer.from('kept'));
  put(x, 0, Buffer.from('gone'));
  const exchange =
    'console.log(JSON.stringify(outcome(() => calls.renameat2(args[0], args[1], calls.RENAME_EXCHANGE))))';
  expect(inChild(exchange, x, kept.disk)).toBe(0);
  expectContent(x, patched(kept.original, [0, Buffer.from('kept')]));
  expect(outcome(() => unlinkSync(x))).toBe('EPERM');
  unlinkSync(kept.disk);
  await unmounted(kept);
  kept = remounted(kept);
  expectContent(kept.disk, patched(kept.original, [0, Buffer.from('kept')]));
});

test('fork, snapshot and rollback of the kept disk are refused; those of others are not', async () => {
  const kept = keptDisk();
  const { disk, mountpoint, overlay } = kept;
  put(disk, 0, Buffer.from('kept'));
  const fork = join(mountpoint, 'fork.raw');
  expectRefusal(cowfs(['fork', disk, fork]), 3, disk, overlay);
  expectRefusal(cowfs(['snapshot', disk, 'one']), 3, disk, overlay);
  const rolled = cowfs(['rollback', disk, 'one']);
  expect(rolled.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect([2, 3]).toContain(rolled.status);
  expect(names(mountpoint)).toEqual(['disk.raw']);
  make(fork);
  mustCowfs(['snapshot', fork, 'one']);
  mustCowfs(['fork', fork, join(mountpoint, 'second.raw')]);
  expectRefusal(cowfs(['fork', fork, disk]), 3, disk);
  mustCowfs(['rollback', fork, 'one']);
  expectContent(disk, patched(kept.original, [0, Buffer.from('kept')]));
  await unmounted(kept);
});

test.for(ALL_MODES)('$name: reset is durable at once', async (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  const options = ['--transport', mode.transport, '--cache', mode.cache];
  let kept = keptDisk(options, 3_000_001);
  put(kept.disk, 4000, filled(1, 2 * MIB));
  truncateSync(kept.disk, 2_500_000);
  put(kept.disk, 4 * MIB, filled(1, 9000));
  mustCowfs(['reset', kept.disk]);
  await killed(kept);
  expect(lookInto(kept.overlay)).toMatchObject({ writtenBytes: 0 });
  expect(infoOf(kept.overlay).storeBytes).toBeLessThan(256 * 1024);
  kept = remounted(kept, options);
  expectContent(kept.disk, kept.original);
  put(kept.disk, 1, Buffer.from('again'));
  await unmounted(kept);
  kept = remounted(kept, options);
  expectContent(kept.disk, patched(kept.original, [1, Buffer.from('again')]));
  mustCowfs(['reset', kept.mountpoint]);
  await unmounted(kept);
  kept = remounted(kept, options);
  expectContent(kept.disk, kept.original);
});

test('reset of an open kept disk is refused, and --force does it durably', async () => {
  let kept = keptDisk();
  put(kept.disk, 0, filled(1, 100_000));
  const fd = opened(kept.disk);
  expectRefusal(cowfs(['reset', kept.disk]), 3, kept.disk, '--force');
  mustCowfs(['reset', '--force', kept.disk]);
  expectContent(fd, kept.original);
  await killed(kept);
  kept = remounted(kept);
  expectContent(kept.disk, kept.original);
});

test('the quota counts what the overlay has already', async () => {
  let kept = keptDisk([], 4 * MIB);
  put(kept.disk, 0, filled(1, MIB));
  await unmounted(kept);
  for (const option of ['--max-store', '--max-session-store']) {
    kept = remounted(kept, [option, '2M', '--cache', 'none']);
    expect(statusOf(kept.mountpoint).store.occupiedBytes).toBe(MIB);
    expect(written(kept.disk, 0, filled(2, MIB))).toBe('OK');
    expect(written(kept.disk, 2 * MIB, filled(3, MIB))).toBe('OK');
    expect(written(kept.disk, 3 * MIB, filled(4, BLOCK))).toBe('ENOSPC');
    must('fallocate', ['-p', '-o', String(2 * MIB), '-l', String(MIB), kept.disk]);
    expect(written(kept.disk, 3 * MIB, filled(4, BLOCK))).toBe('OK');
    must('fallocate', ['-p', '-o', String(2 * MIB), '-l', String(2 * MIB), kept.disk]);
    await unmounted(kept);
  }
  // Less than it has already: it opens, can be read and overwritten, and takes nothing more.
  kept = remounted(kept, ['--max-store', '64K', '--cache', 'none']);
  expectContent(kept.disk, patched(kept.original, [0, filled(2, MIB)], [2 * MIB, Buffer.alloc(2 * MIB)]));
  expect(written(kept.disk, 0, filled(5, BLOCK))).toBe('OK');
  expect(written(kept.disk, 3 * MIB, filled(4, BLOCK))).toBe('ENOSPC');
});

/** What comes of writing there. */
function written(disk: string, offset: number, bytes: Buffer): string {
  const fd = openSync(disk, 'r+');
  try {
    return outcome(() => writeSync(fd, bytes, 0, bytes.length, offset));
  } finally {
    closeSync(fd);
  }
}
