/** Names and attributes: what a mount shows cannot be made, moved or removed; what chmod and the like change sticks. */
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  cowfs,
  isRoot,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  run,
  scratch,
} from '../harness.ts';
import { needsRoot } from './machine-support.ts';

const NAMINGS: Record<string, (mountpoint: string) => unknown> = {
  'creating a file': (at) => writeFileSync(join(at, 'new'), ''),
  'making a directory': (at) => mkdirSync(join(at, 'new')),
  'renaming the disk': (at) => renameSync(join(at, 'disk.raw'), join(at, 'new')),
  'renaming the disk onto itself elsewhere': (at) => renameSync(join(at, 'disk.raw'), join(at, 'disk.raw2')),
  'unlinking the disk': (at) => unlinkSync(join(at, 'disk.raw')),
  'a hard link': (at) => linkSync(join(at, 'disk.raw'), join(at, 'new')),
  'a symbolic link': (at) => symlinkSync('disk.raw', join(at, 'new')),
};

test('in a read-only mount names cannot be made, moved or removed', () => {
  const directory = scratch();
  const { mountpoint } = mountDisk(makeBase(directory, 5000), makeMountpoint(directory), ['--read-only']);
  for (const [what, action] of Object.entries(NAMINGS)) {
    expect.soft(() => action(mountpoint), what).toThrow('EROFS');
    expect.soft(readdirSync(mountpoint), what).toEqual(['disk.raw']);
  }
});

test('special files and removing what is not there fail cleanly', () => {
  const directory = scratch();
  const { mountpoint } = mountDisk(makeBase(directory, 5000), makeMountpoint(directory));
  expect(run('mkfifo', [join(mountpoint, 'fifo')]).stderr).toContain('not permitted');
  expect(() => unlinkSync(join(mountpoint, 'none'))).toThrow('ENOENT');
  expect(() => rmdirSync(join(mountpoint, 'disk.raw'))).toThrow('ENOTDIR');
  expect(() => readFileSync(join(mountpoint, 'disk.raw/x'))).toThrow('ENOTDIR');
  expect(() => statSync(join(mountpoint, 'x'.repeat(256)))).toThrow('ENAMETOOLONG');
});

test('chmod, chown and utimens stick for as long as the mount lives', (context) => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  chmodSync(disk, 0o640);
  expect(statSync(disk).mode).toBe(0o100640);
  utimesSync(disk, 1_000_000_000.25, 1_234_567_890.5);
  expect(statSync(disk).atimeMs).toBe(1_000_000_000_250);
  expect(statSync(disk).mtimeMs).toBe(1_234_567_890_500);
  for (const time of ['1969-12-31 23:59:52.5', '1901-01-01 00:00:00', '2262-04-01 12:00:00.25']) {
    must('touch', ['-d', `${time} UTC`, disk]);
    expect(must('stat', ['-c', '%y', disk], { env: { TZ: 'UTC' } })).toMatch(new RegExp(`^${time}`));
  }
  expect(Date.now() - statSync(disk).ctimeMs).toBeLessThan(60_000);
  if (isRoot()) {
    chownSync(disk, 1234, 4_000_000_000);
    const { uid, gid } = statSync(disk);
    expect({ uid, gid }).toEqual({ uid: 1234, gid: 4_000_000_000 });
    chownSync(disk, 0, 0);
  }
  readFileSync(disk);
  expect(statSync(disk).mode & 0o777).toBe(0o640);
  mustCowfs(['unmount', mountpoint]);
  const again = mountDisk(base, mountpoint);
  expect(statSync(again.disk).mode & 0o777).toBe(0o600);
  needsRoot(context);
});

test('a write sets mtime and drops set-uid bits of others, as on any file system', () => {
  const directory = scratch();
  const { disk } = mountDisk(makeBase(directory, 5000), makeMountpoint(directory));
  utimesSync(disk, 1000, 1000);
  writeFileSync(disk, 'x', { flag: 'r+' });
  expect(Date.now() - statSync(disk).mtimeMs).toBeLessThan(60_000);
});

test('with --read-only reads work, writes and changes are EROFS, and the mount says ro', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--read-only']);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(() => writeFileSync(disk, 'x', { flag: 'r+' })).toThrow('EROFS');
  expect(() => writeFileSync(disk, '')).toThrow('EROFS');
  expect(() => chmodSync(disk, 0o600)).toThrow('EROFS');
  expect(() => utimesSync(disk, 1, 1)).toThrow('EROFS');
  expect(run('truncate', ['-s', '0', disk]).stderr).toContain('Read-only');
  expect(statSync(disk).mode & 0o222).toBe(0);
  const line = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((mount) => mount.includes(mountpoint));
  expect(line).toMatch(/ fuse\.cowfs ro,/);
  expect(cowfs(['status', mountpoint]).stdout).toContain('read-only');
});

test('--name names the disk', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  for (const name of ['disk.qcow2', 'mit Lücke', '.hidden', 'x'.repeat(255)]) {
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--name', name]);
    expect(disk).toBe(join(mountpoint, name));
    expect(readdirSync(mountpoint)).toEqual([name]);
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    mustCowfs(['unmount', mountpoint]);
  }
});

test('the mount is a file system of type fuse.cowfs whose source is the base', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const { mountpoint } = mountDisk(base, makeMountpoint(directory));
  expect(mountsBelow(mountpoint)).toEqual([mountpoint]);
  const mounts = readFileSync('/proc/self/mounts', 'utf8');
  expect(mounts).toContain(`${base} ${mountpoint} fuse.cowfs rw,nosuid,nodev`);
});
