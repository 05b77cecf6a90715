/** The ends of a mount through fuse-native: asked for, forced, from outside, by murder; then nothing is left. */
import { closeSync, openSync, readdirSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import {
  cowfs,
  listMounts,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  poll,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import { abortFile, FUSE_NATIVE, mounted, needsFuseNative } from './fuse-native-support.ts';
import { freeBytes, needs, needsRoot, tmpfs } from './machine-support.ts';
import {
  expectNothingLeft,
  expectRefusal,
  FREE_WITHIN_MS,
  isAlive,
  leftAt,
  watcherOf,
} from './nothing-left-support.ts';

const MIB = 2 ** 20;

beforeEach(needsFuseNative);

/** Opens the disk until the test ends. */
function opened(disk: string): number {
  const fd = openSync(disk, 'r+');
  onTestFinished(() => {
    try {
      closeSync(fd);
    } catch {
      // The mount is gone, and with it what close(2) flushes.
    }
  });
  return fd;
}

test('unmount refuses while a process has the disk open, by name and pid, and the disk goes on', async () => {
  const { mountpoint, disk, base, pid } = mounted();
  const user = start('sh', ['-c', 'exec sleep 600 <"$0"', disk]);
  await poll('it is a sleep', () => readFileSync(`/proc/${user.pid}/comm`, 'utf8') === 'sleep\n');
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, 'sleep', `pid ${user.pid}`, '--force');
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(statusOf(mountpoint).disks[0]?.openHandles).toBe(1);
  user.kill();
  await poll('the user is gone', () => !isAlive(user.pid ?? 0));
  mustCowfs(['unmount', mountpoint]);
  expect(isAlive(pid)).toBe(false);
  await expectNothingLeft(mountpoint);
});

test('unmount --force takes the disk away over the heads of its users, who get errors', async () => {
  const { mountpoint, disk, pid } = mounted();
  const fd = opened(disk);
  writeSync(fd, Buffer.from('x'), 0, 1, 0);
  mustCowfs(['unmount', '--force', mountpoint]);
  expect(isAlive(pid)).toBe(false);
  expect(readdirSync(mountpoint)).toEqual([]);
  expect(() => readSync(fd, Buffer.alloc(1), 0, 1, 500_000)).toThrow(/ENOTCONN|EIO|ECONNABORTED/);
  await expectNothingLeft(mountpoint);
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
  '%s ends the daemon cleanly, although files are open',
  async (signal) => {
    const directory = scratch();
    const log = join(directory, 'log');
    const base = makeBase(directory, MIB);
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), [...FUSE_NATIVE, '--log-file', log]);
    const { pid } = statusOf(mountpoint);
    opened(disk);
    process.kill(pid, signal);
    await poll('the daemon is gone', () => !isAlive(pid), FREE_WITHIN_MS);
    await expectNothingLeft(mountpoint);
    expect(readFileSync(log, 'utf8').trimEnd().split('\n').at(-1)).toContain('unmounted');
  },
);

test.for(['idle', 'open'])(
  'kill -9 of a daemon that is %s: place and space are free within 2 s',
  async (how, context) => {
    needsRoot(context);
    const directory = scratch();
    const store = tmpfs(directory, '64M');
    const before = freeBytes(store);
    const base = makeBase(directory, 32 * MIB);
    const options = [...FUSE_NATIVE, '--store', store];
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
    must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=1M', 'count=16', 'conv=notrunc', 'status=none']);
    expect(freeBytes(store)).toBeLessThan(before - 15 * MIB);
    const fd = how === 'open' ? opened(disk) : undefined;
    process.kill(statusOf(mountpoint).pid, 'SIGKILL');
    const usableMs = await expectNothingLeft(mountpoint);
    console.log(`kill -9, ${how}: mountpoint free after ${usableMs.toFixed(0)} ms`);
    await poll('the space is back', () => freeBytes(store) === before, FREE_WITHIN_MS);
    expect(listMounts().filter((mount) => mount.mountpoint === mountpoint)).toEqual([]);
    if (fd !== undefined)
      expect(() => readSync(fd, Buffer.alloc(1), 0, 1, 24 * MIB)).toThrow(/ENOTCONN|ECONNABORTED|EIO/);
    const again = mountDisk(base, mountpoint, options);
    expect(readFileSync(again.disk).equals(readFileSync(base))).toBe(true);
  },
);

test('kill -9 amid writes', async () => {
  const { mountpoint, disk, pid } = mounted([], 8 * MIB);
  const writer = start('sh', [
    '-c',
    'while dd if=/dev/zero of="$0" bs=128k conv=notrunc status=none; do :; done',
    disk,
  ]);
  await poll('it writes', () => statusOf(mountpoint).io.writes > 200);
  process.kill(pid, 'SIGKILL');
  await poll('the writer has its error', () => writer.exitCode !== null || writer.signalCode !== null);
  await expectNothingLeft(mountpoint);
});

test('daemon and watcher both killed: the next mount of the place takes the dead one away', async () => {
  const { mountpoint, base, pid } = mounted();
  const watcher = watcherOf(mountpoint);
  process.kill(watcher, 'SIGKILL');
  process.kill(pid, 'SIGKILL');
  await poll('both are gone', () => !isAlive(pid) && !isAlive(watcher));
  expect(mountsBelow(mountpoint)).toEqual([mountpoint]);
  const { disk } = mountDisk(base, mountpoint, FUSE_NATIVE);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test.for(['idle', 'open'])('a connection that is aborted ends the daemon: %s', async (how, context) => {
  needsRoot(context);
  const { mountpoint, disk, pid } = mounted();
  const fd = how === 'open' ? opened(disk) : undefined;
  writeFileSync(abortFile(mountpoint), '1');
  await poll('the daemon is gone', () => !isAlive(pid), 2000);
  await expectNothingLeft(mountpoint);
  if (fd !== undefined) expect(() => readSync(fd, Buffer.alloc(1), 0, 1, 500_000)).toThrow(/ENOTCONN|ECONNABORTED|EIO/);
});

test('one place again and again, kernel and fuse-native in turn', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  for (let round = 0; round < 6; round++) {
    const transport = round % 2 === 0 ? 'fuse-native' : 'kernel';
    const { disk } = mountDisk(base, mountpoint, ['--transport', transport]);
    expect(statusOf(mountpoint).transport).toBe(transport);
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    writeFileSync(disk, `round ${round}`);
    mustCowfs(['unmount', mountpoint]);
  }
  await expectNothingLeft(mountpoint);
});

test('a place that is mounted already is refused, and that mount goes on', async (context) => {
  needs(context, 'cmp');
  const { mountpoint, base, disk, pid } = mounted();
  for (const transport of ['fuse-native', 'kernel']) {
    const result = cowfs(['mount', '--transport', transport, base, mountpoint]);
    expectRefusal(result, 3, mountpoint, `pid ${pid}`, 'cowfs unmount');
  }
  must('cmp', [base, disk]);
  expect(leftAt(mountpoint)).toHaveLength(4); // mount, entry, daemon, watcher
});
