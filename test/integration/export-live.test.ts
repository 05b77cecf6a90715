/** `cowfs export` of live disks: the image is the disk, in every format, over every transport, and no larger than need be. */
import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, mountDisk, must, mustCowfs, run, scratch, sha256 } from '../harness.ts';
import {
  allocatedBytes,
  BLOCK,
  expectExport,
  expectImage,
  expectSame,
  exported,
  FORMAT_NAMES,
  infoOf,
  MIB,
  strangersIn,
  untilThawed,
} from './export-support.ts';
import { loopDevice, needs, needsRoot, tmpfs } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  ALL_MODES,
  filled,
  make,
  mountSessions,
  patched,
  put,
  TRANSPORT_MODES,
  WRITEBACK,
} from './sessions-support.ts';

beforeEach((context) => needs(context, 'qemu-img', 'cmp'));

describe.each(ALL_MODES)('$name', (mode) => {
  test('raw, flat and backed are what the disk is', async (context) => {
    const { base, directory, disk, mountpoint, original } = mountSessions(mode, context, [], 3_000_001);
    const before = await sha256(base);
    put(disk, 5000, filled(1, 100_000));
    put(disk, 2_999_990, filled(2, 11));
    truncateSync(disk, 3_500_000);
    put(disk, 3_400_001, filled(3, 10_000));
    if (mode.transport === 'kernel') must('fallocate', ['-p', '-o', '1000000', '-l', '500000', disk]);
    for (const format of FORMAT_NAMES) {
      for (const source of [disk, mountpoint]) {
        const image = exported(source, join(directory, `${format}.img`), format, ['--force']);
        expectExport(image, disk, format);
        expect(statSync(image).mode & 0o777).toBe(0o644);
      }
    }
    const expected = patched(
      original,
      [5000, filled(1, 100_000)],
      [2_999_990, filled(2, 11)],
      [3_400_001, filled(3, 10_000)],
      [3_499_999, Buffer.alloc(1)],
    );
    if (mode.transport === 'kernel') expected.fill(0, 1_000_000, 1_500_000);
    expect(readFileSync(join(directory, 'raw.img')).equals(expected)).toBe(true);
    await untilThawed(mountpoint);
    expect(await sha256(base)).toBe(before);
    expect(strangersIn(directory, 'base.img', 'mnt', 'raw.img', 'flat.img', 'backed.img')).toEqual([]);
  });
});

test('an untouched disk: raw is the base, backed holds nothing', () => {
  const { base, directory, disk } = mountSessions(WRITEBACK, undefined, [], 5 * MIB);
  expectSame(exported(disk, join(directory, 'raw'), 'raw'), base);
  const backed = exported(disk, join(directory, 'backed'), 'backed');
  expectImage(backed, disk);
  expect(statSync(backed).size).toBeLessThanOrEqual(6 * BLOCK);
  expectImage(exported(disk, join(directory, 'flat'), 'flat'), disk);
});

test('the format is what the name says, unless told', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined);
  for (const [name, options, format] of [
    ['a.qcow2', [], 'qcow2'],
    ['b.img', [], 'raw'],
    ['c', [], 'raw'],
    ['d.qcow2', ['--format', 'raw'], 'raw'],
    ['e.img', ['--format', 'qcow2'], 'qcow2'],
    ['f.qcow2', ['--flat'], 'qcow2'],
  ] as const) {
    const path = join(directory, name);
    mustCowfs(['export', disk, path, ...options]);
    expect([name, readFileSync(path).subarray(0, 4).toString('latin1') === 'QFI\xfb']).toEqual([
      name,
      format === 'qcow2',
    ]);
  }
});

/** A base of 64 MiB with 1 MiB of data at either end, and a disk with 1 MiB more, 4 MiB trimmed. */
function sparseDisk(
  options: readonly string[] = [],
): ReturnType<typeof mountDisk> & { directory: string; base: string } {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, filled(1, MIB));
  truncateSync(base, 64 * MIB);
  const fd = openSync(base, 'r+');
  writeSync(fd, filled(2, MIB), 0, MIB, 63 * MIB);
  closeSync(fd);
  return { ...mountDisk(base, makeMountpoint(directory), options), directory, base };
}

test('holes of the base stay holes, and what was trimmed becomes one', () => {
  const { base, directory, disk } = sparseDisk();
  put(disk, 32 * MIB, filled(3, MIB));
  const slack = 64 * 1024;
  const raw = exported(disk, join(directory, 'raw'), 'raw');
  expectSame(raw, disk);
  expect(allocatedBytes(raw)).toBeLessThanOrEqual(allocatedBytes(base) + MIB + slack);
  must('fallocate', ['-p', '-o', '0', '-l', String(MIB / 2), disk]);
  must('fallocate', ['-p', '-o', String(32 * MIB), '-l', String(MIB / 2), disk]);
  const trimmed = exported(disk, join(directory, 'trimmed'), 'raw');
  expectSame(trimmed, disk);
  expect(allocatedBytes(trimmed)).toBeLessThanOrEqual(2 * MIB + slack);
  const flat = exported(disk, join(directory, 'flat'), 'flat');
  expectImage(flat, disk);
  expect(statSync(flat).size).toBeLessThanOrEqual(2 * MIB + 8 * 65536);
  // The holes of cp(1) from the mount are no better.
  must('cp', ['--sparse=auto', disk, join(directory, 'copied')]);
  expect(allocatedBytes(trimmed)).toBeLessThanOrEqual(allocatedBytes(join(directory, 'copied')) + slack);
});

test('a backed image holds what was written, names its base, and needs it', () => {
  const { base, directory, disk } = sparseDisk();
  for (let at = 0; at < 64; at++) put(disk, at * MIB + 4096, filled(at, 4096));
  const image = exported(disk, join(directory, 'delta.qcow2'), 'backed');
  expectImage(image, disk);
  // 64 blocks of data, an L2 table for each 2 MiB, some clusters of metadata.
  expect(statSync(image).size).toBeLessThanOrEqual((64 + 32 + 8) * BLOCK);
  expect(infoOf(image)).toMatchObject({
    format: 'qcow2',
    'virtual-size': 64 * MIB,
    'backing-filename': base,
    'backing-filename-format': 'raw',
  });
  expect(base.startsWith('/')).toBe(true);
  renameSync(base, `${base}.away`);
  expect(run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', disk, image]).status).not.toBe(0);
  renameSync(`${base}.away`, base);
  expectImage(image, disk);
});

test('a flat image stands alone: the base may go', () => {
  const { base, directory, disk, mountpoint } = sparseDisk();
  put(disk, 40 * MIB + 5, filled(9, 100_000));
  const image = exported(disk, join(directory, 'flat.qcow2'), 'flat');
  const copy = exported(disk, join(directory, 'copy.raw'), 'raw');
  mustCowfs(['unmount', mountpoint]);
  renameSync(base, `${base}.away`);
  expect(infoOf(image)).not.toHaveProperty('backing-filename');
  expectImage(image, copy);
});

test('a symlink to the base leads to its real path in the image', () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const link = join(directory, 'link.img');
  must('ln', ['-s', base, link]);
  const { disk } = mountDisk(link, makeMountpoint(directory));
  put(disk, 0, filled(1, 10));
  const image = exported(disk, join(directory, 'x.qcow2'), 'backed');
  expect(infoOf(image)['backing-filename']).toBe(base);
  expectImage(image, disk);
});

test.each([1, 511, 512, 4095, 4097, 130_000])('a disk of %i bytes', (bytes) => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], bytes);
  put(disk, bytes - 1, Buffer.from('!'));
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
});

test('a disk that is cut to nothing', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined);
  truncateSync(disk, 0);
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
});

test('a block device as base', (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const directory = scratch();
  const base = loopDevice(makeBase(directory, 513 * 512 * 16));
  const { disk } = mountDisk(base, makeMountpoint(directory));
  put(disk, 70_000, filled(1, 9000));
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
  expect(infoOf(join(directory, 'backed'))['backing-filename']).toBe(base);
});

test('--size: what was added is zeros', () => {
  const directory = scratch();
  const base = makeBase(directory, 1_000_001);
  const { disk } = mountDisk(base, makeMountpoint(directory), ['--size', '3M']);
  put(disk, 2_500_000, filled(1, 5));
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
});

test('of a read-only mount', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, ['--read-only']);
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
});

describe.each(TRANSPORT_MODES)('many disks, $name', (mode) => {
  test('one of them is named, each has its own image, and the mountpoint alone will not do', (context) => {
    const { at, directory, mountpoint } = mountSessions(mode, context, ['--empty']);
    const none = cowfs(['export', mountpoint, join(directory, 'x.raw')]);
    expectRefusal(none, 2, mountpoint, 'has no disk');
    for (const [index, name] of ['a.raw', 'b.raw'].entries()) {
      make(at(name));
      put(at(name), 1000, filled(index, 50_000));
    }
    mustCowfs(['fork', at('a.raw'), at('c.raw')]);
    put(at('c.raw'), 20_000, filled(7, 3000));
    mustCowfs(['snapshot', at('c.raw'), 'one']);
    put(at('c.raw'), 21_000, filled(8, 300));
    expectRefusal(cowfs(['export', mountpoint, join(directory, 'x.raw')]), 2, mountpoint, '3 disks', 'name one');
    expectRefusal(cowfs(['diff', mountpoint]), 2, mountpoint, '3 disks', 'name one');
    expectRefusal(cowfs(['export', at('d.raw'), join(directory, 'x.raw')]), 2, 'd.raw');
    for (const name of ['a.raw', 'b.raw', 'c.raw']) {
      for (const format of FORMAT_NAMES) {
        expectExport(exported(at(name), join(directory, `${name}.${format}`), format), at(name), format);
      }
    }
    mustCowfs(['rollback', at('c.raw'), 'one']);
    expectSame(exported(at('c.raw'), join(directory, 'back'), 'raw'), at('c.raw'));
  });
});

test('a relative path, and names with spaces, quotes and letters of all kinds', () => {
  const directory = scratch();
  const base = makeBase(directory, 300_000, 'base, "ü" 1.img');
  const { disk } = mountDisk(base, makeMountpoint(directory, 'm n'));
  put(disk, 0, filled(1, 10));
  mustCowfs(['export', disk, 'out ö"\'.qcow2', '--backing'], { cwd: directory });
  expectImage(join(directory, 'out ö"\'.qcow2'), disk);
  mustCowfs(['export', 'm n', './out.raw'], { cwd: directory });
  expectSame(join(directory, 'out.raw'), disk);
});

test('from the file system of the store to another, where the kernel does not copy', (context) => {
  needsRoot(context);
  const directory = scratch();
  const base = makeBase(directory, 3 * MIB + 5);
  const { disk } = mountDisk(base, makeMountpoint(directory), ['--store', tmpfs(directory, '64M')]);
  put(disk, 100_000, filled(1, 2 * MIB));
  for (const format of FORMAT_NAMES) expectExport(exported(disk, join(directory, format), format), disk, format);
});
