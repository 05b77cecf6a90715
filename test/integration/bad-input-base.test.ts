/** Bases that cannot be one: each is refused in one line, and nothing is left behind. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { cowfs, isRoot, makeBase, makeMountpoint, must, mustCowfs, run, scratch, start } from '../harness.ts';
import { loopDevice, needs, needsRoot, ordinaryUser, said, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

interface BadBase {
  readonly make: (path: string) => unknown;
  readonly says: readonly (string | RegExp)[];
}

const BAD_BASES: Record<string, BadBase> = {
  'that is missing': { make: () => {}, says: [/no such file/i, 'check the path'] },
  'that is empty': { make: (path) => writeFileSync(path, ''), says: ['empty', 'truncate -s'] },
  'that is a directory': { make: (path) => mkdirSync(path), says: ['is a directory', /give a/] },
  'that is a FIFO': { make: (path) => must('mkfifo', [path]), says: ['FIFO', /give a/] },
  'that is a character device': { make: (path) => symlinkSync('/dev/zero', path), says: ['/dev/zero', /give a/] },
  'that is a link to nothing': { make: (path) => symlinkSync('/nowhere', path), says: [/no such file/i] },
  'that is below a file': { make: () => {}, says: [/not a directory/i] },
};

test.each(Object.entries(BAD_BASES))('a base %s is refused', async (what, { make, says }) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  let base = join(directory, 'base.img');
  if (what === 'that is below a file') base = join(makeBase(directory, 4096), 'inner.img');
  make(base);
  const startMs = performance.now();
  const result = cowfs(['mount', base, mountpoint]);
  expect(performance.now() - startMs).toBeLessThan(10_000);
  expectRefusal(result, 2, what.includes('character') ? '/dev/zero' : base, ...says);
  await expectNothingLeft(mountpoint);
});

test('a base that is a socket is refused', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = join(directory, 'base.sock');
  const server = createServer();
  await new Promise<void>((listening) => server.listen(base, listening));
  onTestFinished(() => {
    server.close();
  });
  expectRefusal(cowfs(['mount', base, mountpoint]), 2, base, /give a/);
  await expectNothingLeft(mountpoint);
});

test('a base that this user may not read is refused', async (context) => {
  skipUnless(context, isRoot(), 'needs root, to own a base that nobody may not read');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const base = makeBase(directory, 4096);
  chmodSync(base, 0o600);
  const result = cowfs(['mount', base, mountpoint], as);
  expectRefusal(result, 2, base, 'permission denied', 'must be readable');
  await expectNothingLeft(mountpoint, runtime);
});

test('a base in a directory that is closed to this user is refused', async (context) => {
  skipUnless(context, isRoot(), 'needs root, to own the directory');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const closed = join(directory, 'closed');
  mkdirSync(closed, { mode: 0o700 });
  const base = makeBase(closed, 4096);
  expectRefusal(cowfs(['mount', base, mountpoint], as), 2, base, 'permission denied');
  await expectNothingLeft(mountpoint, runtime);
});

test('a base that a running QEMU writes to is refused by name; --force goes on with a warning', async (context) => {
  needs(context, 'qemu-io');
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, 1024 * 1024);
  const qemu = start('qemu-io', ['-f', 'raw', base], { stdio: ['pipe', 'pipe', 'pipe'] });
  qemu.stdin?.write('write -P 7 0 4k\n');
  await said(qemu, 'wrote 4096');
  expectRefusal(cowfs(['mount', base, mountpoint]), 3, base, 'qemu-io', `pid ${qemu.pid}`, '--force');
  await expectNothingLeft(mountpoint);

  const forced = cowfs(['mount', '--force', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(forced.stderr).toMatch(/^cowfs: warning: [^\n]*in use[^\n]*--force[^\n]*\n$/);
  expect(forced.status).toBe(0);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
  qemu.stdin?.end('quit\n');
});

test('a base that a running QEMU only reads is no obstacle', async (context) => {
  needs(context, 'qemu-io');
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, 1024 * 1024);
  const qemu = start('qemu-io', ['-r', '-f', 'raw', base], { stdio: ['pipe', 'pipe', 'pipe'] });
  qemu.stdin?.write('read 0 4k\n');
  await said(qemu, 'read 4096');
  const { status, stderr } = cowfs(['mount', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  mustCowfs(['unmount', mountpoint]);
});

test('a block device that is mounted is refused; --force goes on with a warning', async (context) => {
  needsRoot(context);
  needs(context, 'losetup', 'mkfs.ext4');
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const image = join(directory, 'image');
  must('truncate', ['-s', '8M', image]);
  must('mkfs.ext4', ['-q', image]);
  const device = loopDevice(image);
  const inner = makeMountpoint(directory, 'inner');
  must('mount', [device, inner]);
  onTestFinished(() => {
    run('umount', [inner]);
  });
  expectRefusal(cowfs(['mount', device, mountpoint]), 3, device, 'in use', '--force');
  await expectNothingLeft(mountpoint);
  const forced = cowfs(['mount', '--force', device, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(forced.stderr).toMatch(/^cowfs: warning: [^\n]*in use[^\n]*\n$/);
  expect(forced.status).toBe(0);
});

test('a path with a line break in it still makes one line', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const result = cowfs(['mount', join(directory, 'no\nsuch'), mountpoint]);
  expectRefusal(result, 2, directory, 'such');
  await expectNothingLeft(mountpoint);
});

test('a disk of one mount can be the base of another, which then holds it open', async () => {
  const directory = scratch();
  const lower = makeMountpoint(directory, 'lower');
  const upper = makeMountpoint(directory, 'upper');
  const base = makeBase(directory, 300_000);
  onTestFinished(() => {
    for (const mountpoint of [upper, lower]) cowfs(['unmount', '--force', mountpoint]);
  });
  const lowerDisk = mustCowfs(['mount', base, lower]).trim();
  const upperDisk = mustCowfs(['mount', lowerDisk, upper]).trim();
  must('cmp', [base, upperDisk]);
  expectRefusal(cowfs(['unmount', lower]), 3, lower, /pid \d+/);
  mustCowfs(['unmount', upper]);
  mustCowfs(['unmount', lower]);
});
