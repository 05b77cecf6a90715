/**
 * A guest with many writes under way when the store runs full: a file of 8 MiB in one go on a virtio disk. Where QEMU
 * writes past the page cache, whatever `--cache` says, `werror=enospc` pauses it until there is room; through the
 * write-back cache it runs on. Afterwards the file is whole for the guest and for the host, and so is the file system.
 * (What a boot alone writes, on an IDE disk, is in guest/store-full.test.ts.)
 */
import { join } from 'node:path';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { askDaemon } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import { BOOT_MS, guestImage, Monitor, markers } from '../guest/qemu.ts';
import {
  exitOf,
  lacks,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  scratch,
  sha256,
  statusOf,
} from '../harness.ts';
import { needsFuseNative } from '../integration/fuse-native-support.ts';
import { freeBytes, needs, needsRoot, tmpfs } from '../integration/machine-support.ts';
import { MIB } from '../integration/store-full-support.ts';

/** A boot writes 4 MB, and what ext4 needs for it. */
const SMALL_MIB = 8;
const FILL_MIB = 8;
const LARGE_MIB = 64;
/** Where the root partition starts (guest/build-image.sh), in bytes. */
const ROOT_AT = 25 * MIB;

let image: string;
let before: string;

beforeAll(async () => {
  if (lacks('qemu-system-x86_64') !== undefined) return;
  image = guestImage();
  before = await sha256(image);
}, BOOT_MS);

beforeEach((context) => {
  needsRoot(context);
  needs(context, 'qemu-system-x86_64', 'debugfs', 'e2fsck');
});

async function guestOn(cacheOfQemu: 'none' | 'writeback', options: readonly string[]) {
  const directory = scratch();
  const store = tmpfs(directory, `${SMALL_MIB}M`);
  const { mountpoint, disk } = mountDisk(image, makeMountpoint(directory), ['--store', store, ...options]);
  const drive = `file=${disk},format=raw,if=virtio,cache=${cacheOfQemu},werror=enospc`;
  const args = ['-smbios', `type=1,serial=fill=${FILL_MIB}`, '-drive', drive];
  const { qemu, monitor } = await Monitor.start(args, join(directory, 'qmp'));
  let text = '';
  qemu.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  return {
    directory,
    mountpoint,
    store,
    disk,
    monitor,
    /** What it said so far. */
    console: () => text,
    ended: exitOf(qemu),
    /** Fails where the guest ended before it met what the test waits for. */
    expectAlive: () => expect(qemu.exitCode ?? qemu.signalCode, text).toBeNull(),
    makeRoom: () => must('mount', ['-o', `remount,size=${LARGE_MIB}M`, store]),
    dataOf: (name: string) => monitor.events.filter(({ event }) => event === name).map(({ data }) => data),
  };
}

/** By the guest's own word, by the file as the host reads it, and by the file system as a whole. */
async function expectWhole({ directory, disk, console, ended }: Awaited<ReturnType<typeof guestOn>>): Promise<void> {
  expect(await ended, console()).toBe(0);
  const said = markers(console());
  expect(said.has('done'), console()).toBe(true);
  expect(said.get('fill')).toMatch(/^[0-9a-f]{64}$/);
  const root = `${disk}?offset=${ROOT_AT}`;
  const file = join(directory, 'fill.bin');
  must('debugfs', ['-R', `dump /var/data/fill.bin ${file}`, root]);
  expect(await sha256(file)).toBe(said.get('fill'));
  must('e2fsck', ['-f', '-n', root]);
  expect(await sha256(image)).toBe(before);
}

test.for([
  ['kernel', 'none'],
  ['kernel', 'writeback'],
  ['fuse-native', 'none'],
] as const)(
  '--transport %s --cache %s, QEMU with cache=none: paused by werror=enospc, whole when it has gone on',
  { timeout: BOOT_MS },
  async ([transport, cache], context) => {
    if (transport === 'fuse-native') needsFuseNative(context);
    const guest = await guestOn('none', ['--transport', transport, '--cache', cache]);
    const { monitor, mountpoint, store, console, makeRoom, dataOf, expectAlive } = guest;
    const isPaused = (): boolean => {
      expectAlive();
      return dataOf('STOP').length > 0;
    };
    await poll('QEMU has paused it', isPaused, BOOT_MS);
    const failures = dataOf('BLOCK_IO_ERROR');
    for (const failure of failures)
      expect(failure).toMatchObject({ operation: 'write', action: 'stop', nospace: true });
    expect(await monitor.execute('query-status')).toMatchObject({ status: 'io-error', running: false });
    expect(markers(console()).has('fill')).toBe(false);
    expect(freeBytes(store)).toBeLessThan(MIB);

    makeRoom();
    await monitor.execute('cont');
    await expectWhole(guest);
    expect(dataOf('STOP')).toHaveLength(1);
    mustCowfs(['unmount', mountpoint]);
    expect(freeBytes(store)).toBe(LARGE_MIB * MIB);
  },
);

test('--cache writeback, QEMU with its own: the guest runs on, and is whole when room came in time', {
  timeout: BOOT_MS,
}, async () => {
  const guest = await guestOn('writeback', ['--cache', 'writeback', '--enospc-timeout', `${BOOT_MS}ms`]);
  const { monitor, mountpoint, console, makeRoom, dataOf, expectAlive } = guest;
  const socket = findEntry(mountpoint)?.socket ?? '';
  const isHeld = async (): Promise<boolean> => {
    expectAlive();
    expect(dataOf('STOP')).toEqual([]);
    // The daemon alone: the command would have the kernel write back.
    return (await askDaemon(socket, { command: 'status' })).store.heldBytes > 0;
  };
  await poll('write-backs are held', isHeld, BOOT_MS);
  expect(await monitor.execute('query-status')).toMatchObject({ status: 'running', running: true });
  expect(markers(console()).has('fill')).toBe(false);

  makeRoom();
  await expectWhole(guest);
  expect([...dataOf('BLOCK_IO_ERROR'), ...dataOf('STOP')]).toEqual([]);
  expect(statusOf(mountpoint).store.heldBytes).toBe(0);
  expect(statusOf(mountpoint).warnings.join()).toContain('room again');
});
