/** Store directories that cannot take a store: refused in one line, before anything is mounted. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, must, run, scratch } from '../harness.ts';
import { freeBytes, needsRoot, ordinaryUser, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

test.each([
  ['--store', 'missing', /no such file/i],
  ['--store', 'file', /not a directory/],
  ['--store', 'file/deeper', /not a directory/],
  ['$TMPDIR', 'missing', /no such file/i],
])('%s with a %s directory is refused', async (how, name, says) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  writeFileSync(join(directory, 'file'), '');
  const store = join(directory, name);
  const args = ['mount', makeBase(directory, 4096), mountpoint];
  const result = how === '--store' ? cowfs([...args, '--store', store]) : cowfs(args, { env: { TMPDIR: store } });
  expectRefusal(result, 2, store, says, '--store');
  await expectNothingLeft(mountpoint);
});

test('a store on a read-only file system is refused', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const store = tmpfs(directory, '1M');
  must('mount', ['-o', 'remount,ro', store]);
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', store]);
  expectRefusal(result, 2, store, /read-only/, '--store');
  await expectNothingLeft(mountpoint);
});

test('a store on a full file system is refused', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const store = tmpfs(directory, '64k');
  run('dd', ['if=/dev/zero', `of=${store}/filler`, 'bs=4k']);
  expect(freeBytes(store)).toBe(0);
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', store]);
  expectRefusal(result, 4, store, 'full', 'make room');
  expect(readdirSync(store)).toEqual(['filler']);
  await expectNothingLeft(mountpoint);
});

test('a store without inodes left is refused', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const store = makeMountpoint(directory, 'store');
  must('mount', ['-t', 'tmpfs', '-o', 'size=1M,nr_inodes=1', 'cowfs-test', store]);
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', store]);
  expectRefusal(result, 4, store, 'full');
  await expectNothingLeft(mountpoint);
});

test('a store that this user may not write to is refused', async (context) => {
  needsRoot(context);
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const store = join(scratch(), 'closed');
  mkdirSync(store, { mode: 0o755 });
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', store], as);
  expectRefusal(result, 2, store, 'permission denied', '--store');
  await expectNothingLeft(mountpoint, runtime);
});
