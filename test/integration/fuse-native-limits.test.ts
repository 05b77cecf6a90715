/** What libfuse 2 and the package cannot carry: refused by errno or in one line, never half done. */

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { mount } from '../../src/sys/libc.ts';
import { COWFS, cowfs, makeBase, makeMountpoint, mountsBelow, run, scratch, statusOf } from '../harness.ts';
import { FUSE_NATIVE, inChild, mounted, needsFuseNative } from './fuse-native-support.ts';
import { finish, needsRoot, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

const SIZE = 1_000_001;

beforeEach(needsFuseNative);

test('fallocate(2) is EOPNOTSUPP in every mode and changes nothing', () => {
  const { mountpoint, disk, base } = mounted();
  const modes = {
    allocate: 0,
    'keep size': 0x01,
    'punch hole': 0x03,
    'collapse range': 0x08,
    'zero range': 0x10,
    'zero range, keep size': 0x11,
    'insert range': 0x20,
    'unshare range': 0x40,
  };
  const script = `
    const fd = fs.openSync(args[0], 'r+');
    const told = Object.entries(JSON.parse(args[1])).map(([name, mode]) => [name, [0, 2 ** 33].map((offset) =>
      outcome(() => calls.fallocate(fd, mode, offset, 8192)))]);
    console.log(JSON.stringify(Object.fromEntries(told)))`;
  const refused = ['EOPNOTSUPP', 'EOPNOTSUPP'];
  expect(inChild(script, disk, JSON.stringify(modes))).toEqual(
    Object.fromEntries(Object.keys(modes).map((name) => [name, refused])),
  );
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(statusOf(mountpoint).disks[0]).toMatchObject({ size: SIZE, writtenBytes: 0, storeBytes: 0 });
});

test('lseek(2): all is data, to the end, whatever the base has of holes', () => {
  const directory = scratch();
  const base = join(directory, 'sparse.img');
  run('truncate', ['-s', String(SIZE), base]);
  expect(statSync(base).blocks).toBe(0);
  const mountpoint = makeMountpoint(directory);
  const { stdout } = cowfs(['mount', ...FUSE_NATIVE, base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  const script = `
    const fd = fs.openSync(args[0], 'r');
    console.log(JSON.stringify([0, 5000, ${SIZE - 1}, ${SIZE}, 2 ** 40].map((offset) =>
      [calls.SEEK_DATA, calls.SEEK_HOLE].map((whence) => outcome(() => calls.lseek(fd, offset, whence))))))`;
  expect(inChild(script, stdout.trim())).toEqual([
    [0, SIZE],
    [5000, SIZE],
    [SIZE - 1, SIZE],
    ['ENXIO', 'ENXIO'],
    ['ENXIO', 'ENXIO'],
  ]);
});

test.each([
  [
    ['--cache', 'writeback'],
    ['--cache writeback', 'writethrough'],
  ],
  [['--aio', 'threads'], ['--aio']],
  [['--threads', '1'], ['--threads']],
  [['--threads', '4'], ['--threads']],
  [['--enospc-timeout', '10s'], ['--enospc-timeout']],
])('%j is refused, not left out', async (options, says) => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  expectRefusal(cowfs(['mount', ...FUSE_NATIVE, ...options, base, mountpoint]), 2, 'fuse-native', ...says);
  expect(mountsBelow(directory)).toEqual([]);
  await expectNothingLeft(directory);
});

test('a transport that is none is refused with those that are', () => {
  const directory = scratch();
  const { status, stdout, stderr } = cowfs(['mount', '--transport', 'fuse', makeBase(directory, 5000), directory]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^cowfs: .*--transport.*auto, kernel, fuse-native/);
  expect(mountsBelow(directory)).toEqual([]);
});

test('a mountpoint that is a mount of its own is refused; a directory inside it is not', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const place = tmpfs(directory, '1M', 'mnt');
  expectRefusal(cowfs(['mount', ...FUSE_NATIVE, base, place]), 2, place, 'inside it');
  expect(mountsBelow(place)).toEqual([place]);
  const inside = join(place, 'inside');
  mkdirSync(inside);
  expect(cowfs(['mount', ...FUSE_NATIVE, base, inside])).toEqual({
    status: 0,
    stdout: `${inside}/disk.raw\n`,
    stderr: '',
  });
  onTestFinished(() => {
    if (mountsBelow(inside).length > 0) cowfs(['unmount', '--force', inside]);
  });
  expect(readFileSync(`${inside}/disk.raw`).equals(readFileSync(base))).toBe(true);
  expect(cowfs(['unmount', inside]).status).toBe(0);
  await expectNothingLeft(inside);
});

test('a mount that a parent made and hands over is refused, and left to the parent', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const device = openSync('/dev/fuse', 'r+');
  const options = `fd=${device},rootmode=40000,user_id=0,group_id=0,default_permissions`;
  expect(mount('handed-over', mountpoint, 'fuse.cowfs', 6, options)).toBe(0);
  const child = spawn(COWFS, ['mount', ...FUSE_NATIVE, base, '/dev/fd/3'], {
    stdio: ['ignore', 'pipe', 'pipe', device],
  });
  expectRefusal(await finish(child), 2, '/dev/fd/3', 'fuse-native', 'leave it out');
  expect(mountsBelow(mountpoint)).toEqual([mountpoint]);
  closeSync(device);
  run('umount', ['-l', mountpoint]);
  await expectNothingLeft(directory);
});
