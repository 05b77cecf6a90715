/** The temporary store: no name, nobody else's, where --store or $TMPDIR says, and gone with the daemon. */
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, poll, run, scratch, statusOf } from '../harness.ts';
import { freeBytes, loopDevice, needs, needsRoot, skipUnless } from './machine-support.ts';

/** What the process has open below a directory, as /proc shows it. */
function openBelow(pid: number, directory: string): { link: string; path: string }[] {
  return readdirSync(`/proc/${pid}/fd`)
    .map((fd) => ({ path: `/proc/${pid}/fd/${fd}`, link: readlinkSync(`/proc/${pid}/fd/${fd}`) }))
    .filter(({ link }) => link.startsWith(`${directory}/`));
}

test.each(['--store', '$TMPDIR'])('the store is a nameless file of mode 0600 in %s', (how) => {
  const directory = scratch();
  const store = makeMountpoint(directory, 'store');
  const base = makeBase(directory, 100_000);
  const mountpoint = makeMountpoint(directory);
  const { disk } =
    how === '--store'
      ? mountDisk(base, mountpoint, ['--store', store], { env: { TMPDIR: '/nowhere' } })
      : mountDisk(base, mountpoint, [], { env: { TMPDIR: store } });
  writeFileSync(disk, Buffer.alloc(50_000, 1), { flag: 'r+' });
  const status = statusOf(mountpoint);
  expect(status.store.directory).toBe(store);
  expect(readdirSync(store)).toEqual([]);
  const open = openBelow(status.pid, store);
  expect(open).toHaveLength(1);
  const [file] = open;
  expect(file?.link).toMatch(/ \(deleted\)$/);
  const { nlink, mode, uid, size } = statSync(file?.path ?? '');
  expect({ nlink, mode: mode & 0o7777, uid }).toEqual({ nlink: 0, mode: 0o600, uid: process.geteuid?.() });
  expect(size).toBeGreaterThanOrEqual(50_000);
});

test('a relative --store is taken from where the command runs', () => {
  const directory = scratch();
  makeMountpoint(directory, 'store');
  const base = makeBase(directory, 5000);
  const { disk } = mountDisk('base.img', makeMountpoint(directory), ['--store', 'store'], { cwd: directory });
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(statusOf(`${directory}/mnt`)).toMatchObject({ base, store: { directory: `${directory}/store` } });
});

test('a store directory that is removed under the mount does not matter', () => {
  const directory = scratch();
  const store = makeMountpoint(directory, 'store');
  const { mountpoint, disk } = mountDisk(makeBase(directory, 100_000), makeMountpoint(directory), ['--store', store]);
  must('rmdir', [store]);
  writeFileSync(disk, Buffer.alloc(100_000, 1), { flag: 'r+' });
  expect(readFileSync(disk).equals(Buffer.alloc(100_000, 1))).toBe(true);
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(102_400);
  expect(statusOf(mountpoint).store.freeBytes).toBeGreaterThan(0);
});

test.for(['vfat', 'ext4', 'xfs', 'btrfs'])(
  'a store on %s works, unseen, and its space comes back',
  async (type, context) => {
    needsRoot(context);
    needs(context, `mkfs.${type}`, 'losetup');
    const directory = scratch();
    const image = `${directory}/image`;
    must('truncate', ['-s', type === 'xfs' || type === 'btrfs' ? '320M' : '64M', image]);
    must(`mkfs.${type}`, type === 'vfat' ? [image] : ['-q', image]);
    const store = makeMountpoint(directory, 'store');
    const mount = run('mount', [loopDevice(image), store]);
    skipUnless(context, mount.status === 0, mount.stderr.trim());
    must('sync', ['-f', store]);
    const before = freeBytes(store);
    const names = readdirSync(store);
    const base = makeBase(directory, 8_000_001);
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--store', store]);
    const expected = readFileSync(base);
    expected.fill(1, 1_000_001, 3_000_000);
    expected.fill(0, 1_500_000, 2_500_000);
    must('sh', [
      '-c',
      `head -c 1999999 /dev/zero | tr '\\0' '\\1' | dd of=${disk} bs=1M iflag=fullblock \
    oflag=seek_bytes seek=1000001 conv=notrunc status=none`,
    ]);
    must('fallocate', ['-p', '-o', '1500000', '-l', '1000000', disk]);
    expect(readFileSync(disk).equals(expected)).toBe(true);
    expect(readdirSync(store)).toEqual(names);
    mustCowfs(['unmount', mountpoint]);
    // Some file systems free what was unlinked in their own time.
    await poll('the space is back', () => {
      must('sync', ['-f', store]);
      return before - freeBytes(store) < 256 * 1024;
    });
  },
);
