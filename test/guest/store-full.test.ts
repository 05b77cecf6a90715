/**
 * A guest whose disk's store runs full in the middle of its work: QEMU pauses it where the error comes out at write(2),
 * and the guest goes on when there is room; under the write-back cache it never hears of it. Its data is whole both times.
 */
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  exitOf,
  lacks,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  sha256,
  statusOf,
} from '../harness.ts';
import { needsFuseNative } from '../integration/fuse-native-support.ts';
import { needs, needsRoot, said, tmpfs } from '../integration/machine-support.ts';
import { untilHeld } from '../integration/store-full-support.ts';
import { BOOT_MS, guestImage, MACHINE, Monitor, markers } from './qemu.ts';

/** Of the store's file system: the guest writes 4 MB, and what ext4 needs for it. */
const SMALL = '2M';
const LARGE = '64M';

let image: string;

beforeAll(() => {
  if (lacks('qemu-system-x86_64') === undefined) image = guestImage();
}, BOOT_MS);

async function guestOn(cacheOfQemu: 'none' | 'writeback', options: readonly string[]) {
  const directory = scratch();
  const store = tmpfs(directory, SMALL);
  const { mountpoint, disk } = mountDisk(image, makeMountpoint(directory), ['--store', store, ...options]);
  const drive = `file=${disk},format=raw,if=ide,cache=${cacheOfQemu},werror=enospc`;
  const { qemu, monitor } = await Monitor.start(['-drive', drive], join(directory, 'qmp'));
  return {
    mountpoint,
    disk,
    qemu,
    monitor,
    done: said(qemu, 'GUEST done'),
    makeRoom: () => must('mount', ['-o', `remount,size=${LARGE}`, store]),
  };
}

/** Boots once more: the guest verifies what it wrote before. */
function bootAgain(disk: string): Map<string, string> {
  return markers(run('qemu-system-x86_64', [...MACHINE, '-hda', disk], { timeoutMs: BOOT_MS }).stdout);
}

describe.each([
  ['kernel', 'writethrough'],
  ['fuse-native', 'writethrough'],
])('--transport %s --cache %s', (transport, cache) => {
  test('werror=enospc pauses the guest, and it goes on when there is room', { timeout: BOOT_MS }, async (context) => {
    needsRoot(context);
    needs(context, 'qemu-system-x86_64');
    if (transport === 'fuse-native') needsFuseNative(context);
    const before = await sha256(image);
    const { mountpoint, disk, qemu, monitor, done, makeRoom } = await guestOn('none', [
      ...['--transport', transport, '--cache', cache],
    ]);
    await poll('QEMU has paused it', () => monitor.events.some(({ event }) => event === 'STOP'), BOOT_MS);
    const failure = monitor.events.find(({ event }) => event === 'BLOCK_IO_ERROR');
    expect(failure?.data).toMatchObject({ operation: 'write', action: 'stop', nospace: true });
    expect(await monitor.execute('query-status')).toMatchObject({ status: 'io-error', running: false });
    expect(statusOf(mountpoint).io.ioErrors).toBeGreaterThan(0);

    makeRoom();
    await monitor.execute('cont');
    const console = await done;
    expect(await exitOf(qemu)).toBe(0);
    expect(markers(console).get('wrote')).toMatch(/^[0-9a-f]{64}$/);
    expect(Object.fromEntries(bootAgain(disk))).toMatchObject({ 'boot-count': '1', verify: 'ok', done: '' });
    mustCowfs(['unmount', mountpoint]);
    expect(await sha256(image)).toBe(before);
  });
});

test('under --cache writeback the guest goes on, and loses nothing when room comes in time', {
  timeout: BOOT_MS,
}, async (context) => {
  needsRoot(context);
  needs(context, 'qemu-system-x86_64');
  const { mountpoint, disk, qemu, monitor, done, makeRoom } = await guestOn('writeback', [
    ...['--cache', 'writeback', '--enospc-timeout', '10m'],
  ]);
  await untilHeld(mountpoint, BOOT_MS);
  makeRoom();
  const console = await done;
  expect(await exitOf(qemu)).toBe(0);
  expect(monitor.events.filter(({ event }) => event === 'BLOCK_IO_ERROR')).toEqual([]);
  expect(markers(console).get('wrote')).toMatch(/^[0-9a-f]{64}$/);
  expect(Object.fromEntries(bootAgain(disk))).toMatchObject({ 'boot-count': '1', verify: 'ok', done: '' });
});
