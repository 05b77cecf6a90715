/** Unmounting: refused while somebody has the disk open, forced, by the system's own tools; then nothing is left. */
import type { ChildProcess } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { TRANSPORT_NAMES } from '../../src/transport/transport.ts';
import {
  COWFS,
  cowfs,
  type Mount,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { finish, freeBytes, loopDevice, needs, needsRoot, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive, leftAt } from './nothing-left-support.ts';

const MIB = 1024 * 1024;

function mounted(options: readonly string[] = []): Mount & { directory: string; pid: number; base: string } {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const mount = mountDisk(base, makeMountpoint(directory), options);
  return { ...mount, directory, base, pid: statusOf(mount.mountpoint).pid };
}

test.each([
  { what: 'has it open', script: 'exec sleep 600 <"$0/disk.raw"' },
  { what: 'stands in it', script: 'cd "$0" && exec sleep 600' },
])('unmount refuses while a process $what, by name and pid, and the disk goes on', async ({ script }) => {
  const { mountpoint, disk, base } = mounted();
  const user = start('sh', ['-c', script, mountpoint]);
  const { pid = 0 } = user;
  await poll('it is a sleep', () => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n');
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, 'sleep', `pid ${pid}`, '--force');
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  user.kill();
  await poll('the user is gone', () => !isAlive(pid));
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('unmount waits a moment for a sync of somebody else, and names one that does not end', async () => {
  const { mountpoint, disk, directory } = mounted();
  const named = join(directory, 'sync');
  copyFileSync('/bin/sleep', named);
  const holding = async (seconds: string): Promise<ChildProcess> => {
    const user = start('sh', ['-c', 'exec "$0" "$1" <"$2"', named, seconds, disk]);
    await poll('it is a sync', () => readFileSync(`/proc/${user.pid}/comm`, 'utf8') === 'sync\n');
    return user;
  };
  const lasting = await holding('600');
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, 'sync', `pid ${lasting.pid}`, '--force');
  lasting.kill();
  await poll('it is gone', () => !isAlive(lasting.pid ?? 0));
  await holding('0.7');
  expect(cowfs(['unmount', mountpoint])).toEqual({ status: 0, stdout: '', stderr: '' });
  await expectNothingLeft(mountpoint);
});

test('unmount refuses while a program on the disk runs', async () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk('/bin/sleep', makeMountpoint(directory));
  must('chmod', ['700', disk]);
  const user = start(disk, ['600']);
  await poll('it runs', () => run('cat', [`/proc/${user.pid}/comm`]).stdout === 'disk.raw\n');
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, 'disk.raw', `pid ${user.pid}`);
});

test('unmount refuses while a loop device is on the disk, and names it', async (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const { mountpoint, disk } = mounted();
  const device = loopDevice(disk);
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, device.replace('/dev/', ''), '--force');
  must('losetup', ['--detach', device]);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('unmount --force takes the disk away over the heads of its users, who get errors', async () => {
  const { mountpoint, disk, pid } = mounted();
  const fd = openSync(disk, 'r+');
  onTestFinished(() => {
    try {
      closeSync(fd);
    } catch {
      // The mount is gone, and with it what close(2) flushes.
    }
  });
  writeSync(fd, Buffer.from('x'), 0, 1, 0);
  mustCowfs(['unmount', '--force', mountpoint]);
  expect(isAlive(pid)).toBe(false);
  expect(leftAt(mountpoint).filter((left) => !left.includes('cowfs-watcher'))).toEqual([]);
  expect(readdirSync(mountpoint)).toEqual([]);
  expect(() => readSync(fd, Buffer.alloc(1), 0, 1, 500_000)).toThrow(/ENOTCONN|EIO|ECONNABORTED/);
  await expectNothingLeft(mountpoint);
});

test('`umount` is the same verb', async () => {
  const { mountpoint } = mounted();
  mustCowfs(['umount', `${mountpoint}/`]);
  await expectNothingLeft(mountpoint);
});

test.for([['umount'], ['fusermount3', '-u']])(
  'plain `%s` ends the daemon',
  async ([program = '', ...args], context) => {
    needs(context, program);
    if (program === 'umount') needsRoot(context);
    const { mountpoint, pid } = mounted();
    must(program, [...args, mountpoint]);
    await poll('the daemon is gone', () => !isAlive(pid), 2000);
    await expectNothingLeft(mountpoint);
  },
);

test.for(TRANSPORT_NAMES)(
  '%s: a lazy umount(8) frees the place; the disk goes on for who has it, and ends with them',
  async (transport, context) => {
    needsRoot(context);
    if (transport === 'fuse-native') needsFuseNative(context);
    const { mountpoint, disk, pid } = mounted(['--transport', transport]);
    const fd = openSync(disk, 'r+');
    must('umount', ['-l', mountpoint]);
    expect(mountsBelow(mountpoint)).toEqual([]);
    writeSync(fd, Buffer.from('still there'), 0, 11, 0);
    const into = Buffer.alloc(11);
    readSync(fd, into, 0, 11, 0);
    expect(into.toString()).toBe('still there');
    expect(isAlive(pid)).toBe(true);
    closeSync(fd);
    await poll('the daemon is gone', () => !isAlive(pid), 2000);
    await expectNothingLeft(mountpoint);
  },
);

test('unmount returns when the daemon is gone and its space is free, not before', (context) => {
  needsRoot(context);
  const directory = scratch();
  const store = tmpfs(directory, '96M');
  const base = makeBase(directory, 64 * MIB);
  const before = freeBytes(store);
  for (const force of [[], ['--force'], []]) {
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--store', store]);
    must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=1M', 'count=64', 'conv=notrunc,fsync', 'status=none']);
    const { pid } = statusOf(mountpoint);
    expect(freeBytes(store)).toBeLessThan(before - 60 * MIB);
    mustCowfs(['unmount', ...force, mountpoint]);
    expect({ free: freeBytes(store), alive: isAlive(pid) }).toEqual({ free: before, alive: false });
  }
});

test('unmount of a disk with unwritten data in the cache does not lose the way', async () => {
  const { mountpoint, disk } = mounted();
  writeFileSync(disk, Buffer.alloc(MIB, 5), { flag: 'r+' });
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('of many unmounts at once one does it, and the others say so', async () => {
  const { mountpoint } = mounted();
  const results = await Promise.all(Array.from({ length: 4 }, () => finish(start(COWFS, ['unmount', mountpoint]))));
  expect(results.some(({ status }) => status === 0)).toBe(true);
  for (const result of results) if (result.status !== 0) expectRefusal(result, 2, mountpoint, 'no cowfs mount');
  await expectNothingLeft(mountpoint);
});

test('one mountpoint can be mounted and unmounted again and again', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  for (let round = 0; round < 5; round++) {
    const { disk } = mountDisk(base, mountpoint);
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    writeFileSync(disk, `round ${round}`);
    mustCowfs(['unmount', mountpoint]);
  }
  await expectNothingLeft(mountpoint);
  expect(readFileSync(base).length).toBe(5000);
});

test("another user's mount is not ours to take away", (context) => {
  needsRoot(context);
  const { mountpoint } = mounted();
  const result = cowfs(['unmount', mountpoint], { user: 'nobody', env: { XDG_RUNTIME_DIR: undefined } });
  expect(result.status).not.toBe(0);
  expect(result.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(mountsBelow(mountpoint)).toEqual([mountpoint]);
});
