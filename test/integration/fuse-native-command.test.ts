/** What the command line promises of a mount and of `run` holds through fuse-native. */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
  listMounts,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  run,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import { FUSE_NATIVE, mounted, needsFuseNative } from './fuse-native-support.ts';
import { needs, said } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

beforeEach(needsFuseNative);

test('status and list tell how it is served', () => {
  const { mountpoint, disk, base, pid } = mounted();
  readFileSync(disk);
  writeFileSync(disk, Buffer.alloc(8192, 1), { flag: 'r+' });
  const status = statusOf(mountpoint);
  expect(status).toMatchObject({
    ...{ mountpoint, base, pid, baseSize: 1_000_001, baseChanged: null, readOnly: false, warnings: [] },
    ...{ transport: 'fuse-native', protocol: '7.19', cache: 'writethrough', aio: 'threads', threads: 1 },
    disks: [{ name: 'disk.raw', path: disk, size: 1_000_001, writtenBytes: 8192, openHandles: 0 }],
    io: { readBytes: 1_000_001, writes: 1, writeBytes: 8192, ioErrors: 0 },
  });
  expect(status.io.reads).toBeGreaterThan(0);
  expect(status.io.otherRequests).toBeGreaterThan(0);
  expect(listMounts().find((mount) => mount.mountpoint === mountpoint)).toMatchObject({
    pid,
    transport: 'fuse-native',
  });
  expect(mustCowfs(['status', mountpoint])).toMatch(
    /fuse-native \(FUSE 7\.19\), cache writethrough, 1 threads?, aio threads\n/,
  );
});

test('--cache none passes the page cache by: reads are asked for again, as they come', () => {
  const { mountpoint, disk, base } = mounted(['--cache', 'none']);
  expect(statusOf(mountpoint).cache).toBe('none');
  const reads = (): number => {
    const before = statusOf(mountpoint).io.readBytes;
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    return statusOf(mountpoint).io.readBytes - before;
  };
  expect([reads(), reads()]).toEqual([1_000_001, 1_000_001]);
});

test('with the page cache what was read is not asked for again, by the next open neither', () => {
  const { mountpoint, disk } = mounted();
  readFileSync(disk);
  const { readBytes } = statusOf(mountpoint).io;
  readFileSync(disk);
  // A busy kernel may have taken a few of the pages back.
  expect(statusOf(mountpoint).io.readBytes - readBytes).toBeLessThan(readBytes / 4);
});

test('--read-only', async () => {
  const { mountpoint, disk, base } = mounted(['--read-only']);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(() => writeFileSync(disk, 'x', { flag: 'r+' })).toThrow('EROFS');
  expect(run('truncate', ['-s', '0', disk]).stderr).toContain('Read-only');
  expect(run('touch', [disk]).stderr).toContain('Read-only');
  expect(statSync(disk).mode & 0o777).toBe(0o400);
  expect(readFileSync('/proc/self/mounts', 'utf8')).toContain(`${mountpoint} fuse.cowfs ro,`);
  expect(statusOf(mountpoint).readOnly).toBe(true);
});

test.each(['disk.qcow2', 'mit Lücke', '.hidden', "it's $HOME", 'x'.repeat(255)])('--name %j', (name) => {
  const { mountpoint, disk, base } = mounted(['--name', name], 5000);
  expect(disk).toBe(join(mountpoint, name));
  expect(readdirSync(mountpoint)).toEqual([name]);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(() => statSync(join(mountpoint, 'disk.raw'))).toThrow('ENOENT');
});

test('--size makes the disk larger; the rest is zeros', () => {
  const { disk, base } = mounted(['--size', '1100000']);
  const content = readFileSync(disk);
  expect(content.length).toBe(1_100_000);
  expect(content.subarray(0, 1_000_001).equals(readFileSync(base))).toBe(true);
  expect(content.subarray(1_000_001).equals(Buffer.alloc(99_999))).toBe(true);
});

test.each(['writethrough', 'none'])('--max-store is ENOSPC at write(2), cache %s; what was written stays', (cache) => {
  const { mountpoint, disk, base } = mounted(['--max-store', '64K', '--cache', cache]);
  const full = run('dd', ['if=/dev/zero', `of=${disk}`, 'bs=4k', 'count=40', 'conv=notrunc'], { env: { LC_ALL: 'C' } });
  expect(full.stderr).toContain('No space left on device');
  expect(full.stderr).toContain('65536 bytes');
  const content = readFileSync(disk);
  expect(content.subarray(0, 65_536).equals(Buffer.alloc(65_536))).toBe(true);
  expect(content.subarray(65_536).equals(readFileSync(base).subarray(65_536))).toBe(true);
  const status = statusOf(mountpoint);
  expect(status.store).toMatchObject({ maxBytes: 65_536, heldBytes: 0 });
  expect(status.io.ioErrors).toBeGreaterThan(0);
  expect(status.warnings.join()).toContain('64.0 KiB of the 64.0 KiB');
});

test('--foreground: the disk on standard output, readable words with --trace on standard error, exit code 0', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const child = start(COWFS, ['mount', ...FUSE_NATIVE, '--foreground', '--trace', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  expect(await said(child, '\n')).toBe(`${mountpoint}/disk.raw\n`);
  expect(statusOf(mountpoint).pid).toBe(child.pid);
  expect(readFileSync(`${mountpoint}/disk.raw`).equals(readFileSync(base))).toBe(true);
  const ended = exitOf(child);
  mustCowfs(['unmount', mountpoint]);
  expect(await ended).toBe(0);
  expect(errors).toMatch(/\d\d:\d\d:\d\d.*rx \d+ READ disk\.raw off=0 len=\d+/);
  await expectNothingLeft(mountpoint);
});

test('SIGTERM ends --foreground with exit code 0', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, 5000);
  const child = start(COWFS, ['mount', ...FUSE_NATIVE, '--foreground', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  await said(child, '\n');
  child.kill('SIGTERM');
  expect(await exitOf(child)).toBe(0);
  await expectNothingLeft(mountpoint);
});

test('run: the command has a disk of its own, its exit code counts, and nothing is left', async () => {
  const base = makeBase(scratch(), 100_001);
  const before = readFileSync(base);
  const script = 'cmp "$1" "$0" && echo x | dd of="$0" conv=notrunc status=none && head -n1 "$0" && echo "$0"; exit 9';
  const { stdout, stderr, status } = cowfs(['run', ...FUSE_NATIVE, base, '--', 'sh', '-c', script, '{}', base]);
  expect({ stderr, status }).toEqual({ stderr: '', status: 9 });
  const [written, disk = ''] = stdout.split('\n');
  expect(written).toBe('x');
  expect(disk).toMatch(/^\/.*\/disk\.raw$/);
  expect(existsSync(dirname(disk))).toBe(false);
  await expectNothingLeft(dirname(disk));
  expect(readFileSync(base).equals(before)).toBe(true);
});

test.each([
  ['exit 0', 0],
  ['exit 127', 127],
  ['kill -TERM $$', 143],
  ['kill -KILL $$', 137],
])('run of `%s` ends with %i', (script, code) => {
  const base = makeBase(scratch(), 5000);
  const result = cowfs(['run', ...FUSE_NATIVE, base, '--', 'sh', '-c', script]);
  expect(result).toEqual({ status: code, stdout: '', stderr: '' });
});

test('run: a command that is not there is 127, a disk that cannot be made 125', () => {
  const base = makeBase(scratch(), 5000);
  expectRefusal(cowfs(['run', ...FUSE_NATIVE, base, '--', 'no-such-command']), 127, 'no-such-command');
  expectRefusal(cowfs(['run', ...FUSE_NATIVE, '--threads', '2', base, '--', 'true']), 125, '--threads');
});

test('a base in use by a guest’s tools: qemu-io writes, discards are zeros, and the base is as it was', (context) => {
  needs(context, 'qemu-io');
  const directory = scratch();
  const base = makeBase(directory, 1_000_448);
  const before = readFileSync(base);
  const { disk } = mountDisk(base, makeMountpoint(directory), FUSE_NATIVE);
  const commands = ['write -P 3 4k 64k', 'discard 4k 4k', 'write -z 12k 4k', 'read -P 3 16k 52k', 'read -P 0 12k 4k'];
  const output = must('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), disk]);
  expect(output).not.toMatch(/failed|error/i);
  expect(readFileSync(base).equals(before)).toBe(true);
});
