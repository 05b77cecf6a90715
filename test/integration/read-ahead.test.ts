/** How far the kernel reads ahead on a mount: root's to set, where sysfs lets it. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mountAt } from '../../src/sys/mountinfo.ts';
import { COWFS, makeBase, makeMountpoint, mountDisk, mustCowfs, run, scratch } from '../harness.ts';
import { needsRoot, skipUnless } from './machine-support.ts';

const MIB = 2 ** 20;

test('a reader in sequence makes requests of half a MiB', (context) => {
  needsRoot(context);
  skipUnless(context, run('test', ['-w', '/sys/class/bdi']).status === 0, 'sysfs is read-only here');
  const directory = scratch();
  const log = join(directory, 'trace');
  const { mountpoint, disk } = mountDisk(makeBase(directory, 16 * MIB), makeMountpoint(directory), [
    '--trace',
    '--log-file',
    log,
  ]);
  expect(readFileSync(`/sys/class/bdi/${mountAt(mountpoint)?.device}/read_ahead_kb`, 'utf8')).toBe('512\n');
  const fd = openSync(disk, 'r');
  const chunk = Buffer.alloc(65_536);
  while (readSync(fd, chunk) > 0);
  closeSync(fd);
  mustCowfs(['unmount', mountpoint]);
  expect(readFileSync(log, 'utf8')).toMatch(/ READ disk.raw off=\d+ len=524288"/);
});

test.for([
  { name: 'read-only', hide: 'mount --bind /sys /sys && mount -o remount,bind,ro /sys' },
  { name: 'not there', hide: 'mount -t tmpfs none /sys' },
])('where sysfs is $name the kernel’s own stays', ({ hide }, context) => {
  needsRoot(context);
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const mountpoint = makeMountpoint(directory);
  const script = [
    `mount --make-rprivate / && ${hide} || exit 99`,
    '"$1" mount "$2" "$3" || exit 1',
    'cmp "$2" "$3/disk.raw"',
    '"$1" status "$3" --json',
    '"$1" unmount "$3"',
  ].join('\n');
  const { status, stdout, stderr } = run('unshare', ['--mount', 'sh', '-c', script, 'sh', COWFS, base, mountpoint]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toContain('"warnings": []');
});
