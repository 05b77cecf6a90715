/** Programs that take a disk, on one through fuse-native: a loop device with a file system, a base that stands still. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
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
import { FUSE_NATIVE, mounted, needsFuseNative } from './fuse-native-support.ts';
import { finish, loopDevice, needs, needsRoot } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive } from './nothing-left-support.ts';

const MIB = 2 ** 20;

beforeEach(needsFuseNative);

test('a file system on a loop device: made, filled with more than is written back at once, sound', async (context) => {
  needsRoot(context);
  needs(context, 'losetup', 'mkfs.ext4', 'fsck.ext4', 'cmp');
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, 256 * MIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), FUSE_NATIVE);
  const device = loopDevice(disk);
  must('mkfs.ext4', ['-qF', device]);
  const inside = makeMountpoint(directory, 'inside');
  must('mount', ['-t', 'ext4', device, inside]);
  onTestFinished(() => {
    if (mountsBelow(inside).length > 0) run('umount', ['-l', inside]);
  });
  makeBase(inside, 48 * MIB, 'first');
  must('cp', [join(inside, 'first'), join(inside, 'second')]);
  must('sync', ['-f', inside]);
  must('umount', [inside]);
  expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, device.replace('/dev/', ''), '--force');
  must('fsck.ext4', ['-fn', device]);
  must('mount', ['-t', 'ext4', '-o', 'ro', device, inside]);
  must('cmp', [join(inside, 'first'), join(inside, 'second')]);
  must('umount', [inside]);
  must('losetup', ['--detach', device]);
  expect(readFileSync(base).equals(Buffer.alloc(256 * MIB))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('a disk over a disk, each through its own transport', () => {
  const { disk: lower, base, directory } = mounted();
  writeFileSync(lower, 'lower', { flag: 'r+' });
  const upper = mountDisk(lower, makeMountpoint(directory, 'upper'), ['--transport', 'kernel']);
  const third = mountDisk(upper.disk, makeMountpoint(directory, 'third'), FUSE_NATIVE);
  writeFileSync(third.disk, 'third', { flag: 'r+' });
  expect(readFileSync(lower).subarray(0, 5).toString()).toBe('lower');
  expect(readFileSync(third.disk).subarray(0, 5).toString()).toBe('third');
  expect(readFileSync(third.disk).subarray(5).equals(readFileSync(base).subarray(5))).toBe(true);
});

test('a base that does not answer keeps the one thread waiting; unmount --force takes the mount away all the same', async () => {
  const { disk: lower, directory, mountpoint: below } = mounted(['--cache', 'none']);
  const { mountpoint, disk } = mountDisk(lower, makeMountpoint(directory, 'upper'), FUSE_NATIVE);
  const [{ pid: stopped }, { pid }] = [statusOf(below), statusOf(mountpoint)];
  process.kill(stopped, 'SIGSTOP');
  onTestFinished(() => {
    if (isAlive(stopped)) process.kill(stopped, 'SIGCONT');
  });
  const reader = start('dd', [`if=${disk}`, 'of=/dev/null', 'bs=4k', 'count=1', 'skip=100']);
  const read = finish(reader);
  const stateOf = (of: number): string => readFileSync(`/proc/${of}/wchan`, 'utf8');
  await poll('the daemon waits for the base', () => /fuse|request_wait/.test(stateOf(pid)));
  const command = start(COWFS, ['unmount', '--force', mountpoint]);
  expect(await exitOf(command)).toBe(0);
  expect(isAlive(pid)).toBe(false);
  expect((await read).status).not.toBe(0);
  await expectNothingLeft(mountpoint);
  process.kill(stopped, 'SIGCONT');
  expect(readFileSync(lower).length).toBe(1_000_001);
});

test('root’s --allow-other lets others read and write, within the modes that chmod sets', (context) => {
  needsRoot(context);
  needs(context, 'runuser', 'cmp');
  const { disk, base } = mounted(['--allow-other']);
  const others = { user: 'nobody', env: { LC_ALL: 'C' } };
  must('cmp', [base, disk], others);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=1k', 'count=3', 'conv=notrunc', 'status=none'], others);
  expect(readFileSync(disk).subarray(0, 3072).equals(Buffer.alloc(3072))).toBe(true);
  must('chmod', ['644', disk]);
  expect(run('dd', ['if=/dev/zero', `of=${disk}`, 'count=1', 'conv=notrunc'], others).stderr).toContain('denied');
  must('chmod', ['640', disk]);
  expect(run('cat', [disk], others).stderr).toContain('Permission denied');
});
