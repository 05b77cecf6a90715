/** The base: never changed, not even its access time; told apart from other formats; missed when it goes. */
import {
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, onTestFinished, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, sha256, statusOf } from '../harness.ts';
import { needs } from './machine-support.ts';

const KIB = 1024;

test('heavy use leaves bytes, size, times and inode of the base as they were', async () => {
  const directory = scratch();
  const base = makeBase(directory, 8 * 1024 * KIB + 123);
  const before = await sha256(base);
  chmodSync(base, 0o644);
  // Old enough for any reader that does not ask otherwise to set it anew (relatime).
  utimesSync(base, 1_000_000_000, 1_000_000_001);
  const stats = statSync(base);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  readFileSync(disk);
  must('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=1M', 'count=10', 'conv=notrunc,fsync', 'status=none']);
  must('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=4k', 'count=100', 'oflag=direct', 'conv=notrunc', 'status=none']);
  must('fallocate', ['-p', '-o', '4096', '-l', '1000000', disk]);
  truncateSync(disk, 5000);
  truncateSync(disk, 9_000_000);
  chmodSync(disk, 0o600);
  utimesSync(disk, 5, 5);
  must('cp', [disk, join(directory, 'copy')]);
  mustCowfs(['unmount', mountpoint]);
  const { ctimeMs, mtimeMs, atimeMs, size, ino, mode } = statSync(base);
  expect({ ctimeMs, mtimeMs, atimeMs, size, ino, mode }).toEqual({
    ctimeMs: stats.ctimeMs,
    mtimeMs: stats.mtimeMs,
    atimeMs: stats.atimeMs,
    size: stats.size,
    ino: stats.ino,
    mode: stats.mode,
  });
  expect(await sha256(base)).toBe(before);
});

test('a base without write permission, on a read-only place or not, gives a disk to write to', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  chmodSync(base, 0o400);
  const { disk } = mountDisk(base, makeMountpoint(directory));
  writeFileSync(disk, 'written', { flag: 'r+' });
  expect(readFileSync(disk, 'utf8').slice(0, 7)).toBe('written');
});

const FORMATS = ['qcow2', 'qed', 'vmdk', 'vdi', 'vhdx'];

test.for(FORMATS)('a %s image is shown as it is, with one line of warning', (format, context) => {
  needs(context, 'qemu-img');
  const directory = scratch();
  const base = join(directory, `image.${format}`);
  must('qemu-img', ['create', '-q', '-f', format, base, '1M']);
  const mountpoint = makeMountpoint(directory);
  const { stderr, stdout } = mountWarned(base, mountpoint);
  expect(stderr).toMatch(/^cowfs: warning: [^\n]+\n$/);
  expect(stderr.toLowerCase()).toContain(`is ${format}`);
  expect(stderr).toContain(`format=${format}`);
  expect(stderr).toContain(`--name disk.${format}`);
  expect(stdout).toBe(`${mountpoint}/disk.raw\n`);
  expect(readFileSync(`${mountpoint}/disk.raw`).equals(readFileSync(base))).toBe(true);
  expect(statusOf(mountpoint).warnings.join()).toContain(base);
});

test('qemu boots from the disk of a qcow2 image as it would from the image', (context) => {
  needs(context, 'qemu-img', 'qemu-io');
  const directory = scratch();
  const base = join(directory, 'image.qcow2');
  must('qemu-img', ['create', '-q', '-f', 'qcow2', base, '8M']);
  must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 0 64k', base]);
  const mountpoint = makeMountpoint(directory);
  mountWarned(base, mountpoint, ['--name', 'disk.qcow2']);
  const disk = join(mountpoint, 'disk.qcow2');
  must('qemu-io', ['-f', 'qcow2', '-c', 'read -P 5 0 64k', '-c', 'write -P 6 1M 1M', disk]);
  expect(must('qemu-io', ['-f', 'qcow2', '-c', 'read -P 6 1M 1M', disk])).not.toContain('failed');
  must('qemu-img', ['check', '-q', disk]);
});

test.each([
  ['gzip', gzipSync(Buffer.alloc(10_000, 7))],
  ['xz', Buffer.from('fd377a585a000004e6d6b4460000000000000000', 'hex')],
  ['zstd', Buffer.from('28b52ffd2400010000000000', 'hex')],
])('a %s file is shown as it is, with one line that says to unpack it', (format, content) => {
  const directory = scratch();
  const base = join(directory, 'image');
  writeFileSync(base, content);
  const mountpoint = makeMountpoint(directory);
  const { stderr } = mountWarned(base, mountpoint);
  expect(stderr).toMatch(/^cowfs: warning: [^\n]+\n$/);
  expect(stderr).toContain(format);
  expect(stderr).toContain('unpack');
  expect(readFileSync(`${mountpoint}/disk.raw`).equals(content)).toBe(true);
});

test.each([1, 2, 63, 511, 4097, 130_000])('a base of %i bytes is shown byte for byte, without a warning', (bytes) => {
  const directory = scratch();
  const base = makeBase(directory, bytes);
  writeFileSync(base, Buffer.alloc(Math.min(bytes, 4), 0), { flag: 'r+' });
  const mountpoint = makeMountpoint(directory);
  expect(mountWarned(base, mountpoint).stderr).toBe('');
  expect(readFileSync(`${mountpoint}/disk.raw`).equals(readFileSync(base))).toBe(true);
});

test('a base that shrinks under the mount: EIO for what is gone, all else goes on, and it is said once', async () => {
  const directory = scratch();
  const base = makeBase(directory, 1024 * KIB);
  const original = readFileSync(base);
  const log = join(directory, 'log');
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--log-file', log]);
  const fd = openSync(disk, 'r+');
  onTestFinished(() => closeSync(fd));
  writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 900 * KIB);
  expect(statusOf(mountpoint).baseChanged).toBeNull();
  truncateSync(base, 512 * KIB);
  const into = Buffer.alloc(64 * KIB);
  expect(() => readSync(fd, into, 0, 4096, 700 * KIB)).toThrow('EIO');
  // Right up to the new end, over read-ahead that reaches beyond it.
  for (let at = 0; at < 512 * KIB; at += into.length) {
    expect(readSync(fd, into, 0, into.length, at)).toBe(into.length);
    expect(into.equals(original.subarray(at, at + into.length))).toBe(true);
  }
  expect(readSync(fd, into, 0, 4096, 900 * KIB)).toBe(4096);
  expect(into.subarray(0, 4096).equals(Buffer.alloc(4096, 1))).toBe(true);
  writeSync(fd, Buffer.alloc(8192, 2), 0, 8192, 700 * KIB);
  expect(readSync(fd, into, 0, 8192, 700 * KIB)).toBe(8192);
  expect(into.subarray(0, 8192).equals(Buffer.alloc(8192, 2))).toBe(true);

  expect(statusOf(mountpoint).baseChanged).toContain(String(512 * KIB));
  expect(cowfs(['status', mountpoint]).stdout).toMatch(/base changed +size/);
  statusOf(mountpoint);
  const lines = readFileSync(log, 'utf8').split('\n');
  expect(lines.filter((line) => line.includes('changed under this mount'))).toHaveLength(1);
});

test.each([
  ['written to', (base: string) => writeFileSync(base, 'x', { flag: 'r+' })],
  ['deleted', (base: string) => unlinkSync(base)],
  ['another file', (base: string) => replace(base)],
])('a base that was changed behind our back is reported: %s', (words, change) => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  utimesSync(base, 5, 5);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  const original = readFileSync(disk);
  change(base);
  expect(statusOf(mountpoint).baseChanged).toContain(words);
  expect(statusOf(mountpoint).warnings.join()).toContain(base);
  expect(readFileSync(disk).subarray(1).equals(original.subarray(1))).toBe(true);
});

function replace(base: string): void {
  renameSync(base, `${base}.old`);
  writeFileSync(base, 'new content');
}

/** Mounts and gives what was said besides. */
function mountWarned(base: string, mountpoint: string, options: readonly string[] = []): ReturnType<typeof cowfs> {
  const result = cowfs(['mount', base, mountpoint, ...options]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(result.status).toBe(0);
  return result;
}
