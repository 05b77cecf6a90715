import { closeSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  isRoot,
  lacks,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  run,
  scratch,
  sha256,
  statusOf,
} from '../harness.ts';

/** The programs that people point at a disk, as they come; each verifies for itself. */

const noQemu = lacks('qemu-img', 'qemu-io');
const noFio = lacks('fio');
const noLoop = isRoot() ? lacks('losetup', 'mkfs.ext4', 'fsck.ext4') : 'needs root for loop devices';

describe.skipIf(noQemu !== undefined)(`qemu-img and qemu-io${noQemu ? ` (${noQemu})` : ''}`, () => {
  test('qemu-img compare finds disk and base equal, twice at once, and different after a write', async () => {
    const directory = scratch();
    const base = makeBase(directory, 8_130_000);
    const { disk } = mountDisk(base, makeMountpoint(directory));
    const args = ['compare', '-f', 'raw', '-F', 'raw', base, disk];
    expect(must('sh', ['-c', 'qemu-img "$@" & qemu-img "$@" && wait $!', 'sh', ...args])).toContain('identical');
    const fd = openSync(disk, 'r+');
    writeSync(fd, Buffer.from([(readFileSync(base)[4_000_001] ?? 0) ^ 1]), 0, 1, 4_000_001);
    closeSync(fd);
    expect(run('qemu-img', args).status).toBe(1);
  });

  test('qemu-img convert copies the disk as it is, holes and unsynced writes included', async () => {
    const directory = scratch();
    const base = makeBase(directory, 3_000_000);
    truncateSync(base, 40_000_000);
    const { disk } = mountDisk(base, makeMountpoint(directory));
    const fd = openSync(disk, 'r+');
    onTestFinished(() => closeSync(fd));
    writeSync(fd, Buffer.alloc(70_001, 7), 0, 70_001, 20_000_003);
    const copy = join(directory, 'copy.img');
    must('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', disk, copy]);
    expect(await sha256(copy)).toBe(await sha256(disk));
    expect(readFileSync(copy)[20_000_003]).toBe(7);
  });

  test.for([['writeback'], ['writethrough'], ['none']])(
    'qemu-io verifies its patterns, buffered and direct, cache %s',
    ([cache]) => {
      const directory = scratch();
      const base = makeBase(directory, 64 * 1024 * 1024);
      const { disk } = mountDisk(base, makeMountpoint(directory), ['--cache', cache as string]);
      const commands = [
        'write -P 0x11 0 1M',
        'write -P 0x22 1000k 3M',
        'write -P 0x33 4097 511',
        'aio_write -P 0x44 30M 2M',
        'aio_flush',
        'discard 2M 1M',
        'write -z 10M 64k',
        'read -P 0x11 0 4097',
        'read -P 0x33 4097 511',
        'read -P 0x11 4608 1019392',
        'read -P 0x22 1000k 1048k',
        'read -P 0 2M 1M',
        'read -P 0x22 3M 900k',
        'read -P 0 10M 64k',
        'read -P 0x44 30M 2M',
      ].flatMap((command) => ['-c', command]);
      for (const mode of ['writeback', 'none']) {
        const out = must('qemu-io', ['-f', 'raw', '-t', mode, '-d', 'unmap', ...commands, disk]);
        expect(out).not.toMatch(/verification failed|error|failed/i);
        expect(out.match(/^read /gm)?.length).toBe(8);
      }
    },
  );
});

// Mapped by one job: fio 3.33 mixes up the offsets of several mapping jobs, on a plain file as well.
describe.skipIf(noFio !== undefined)(`fio${noFio ? ` (${noFio})` : ''}`, () => {
  test.for([
    ['buffered', 'writeback', ['--direct=0']],
    ['direct', 'writeback', ['--direct=1']],
    ['mapped', 'writeback', ['--ioengine=mmap', '--numjobs=1', '--size=48M']],
    ['buffered', 'writethrough', ['--direct=0']],
    ['direct', 'none', ['--direct=1']],
  ] as const)('verifies what its jobs wrote at random, %s, cache %s', ([, cache, options]) => {
    const directory = scratch();
    const base = makeBase(directory, 48 * 1024 * 1024);
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--cache', cache]);
    const out = must('fio', [
      '--name=verify',
      `--filename=${disk}`,
      '--rw=randwrite',
      '--bsrange=4k-256k',
      '--size=12M',
      '--offset_increment=12M',
      '--numjobs=4',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_backlog=64',
      '--verify_state_save=0',
      '--end_fsync=1',
      '--group_reporting',
      ...options,
    ]);
    expect(out).toMatch(/err= 0/);
    const { disks, io } = statusOf(mountpoint);
    console.log(
      `fio ${options[0]} --cache ${cache}: ${io.writes} writes, ${io.reads} reads, ${disks[0]?.writtenBytes} bytes written`,
    );
    expect(disks[0]?.writtenBytes).toBeGreaterThan(40 * 1024 * 1024);
  });
});

describe.skipIf(noLoop !== undefined)(`a file system on the disk${noLoop ? ` (${noLoop})` : ''}`, () => {
  test('mkfs, mount through a loop device, files, trim, fsck clean; the base unchanged', async () => {
    const directory = scratch();
    const base = makeBase(directory, 96 * 1024 * 1024);
    const before = await sha256(base);
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
    must('mkfs.ext4', ['-q', '-F', disk]);
    const loop = must('losetup', ['--find', '--show', disk]).trim();
    onTestFinished(() => {
      run('umount', [loop]);
      run('losetup', ['-d', loop]);
    });
    const inner = makeMountpoint(directory, 'inner');
    must('mount', [loop, inner]);
    const source = makeBase(directory, 30_000_000, 'source');
    must('cp', [source, join(inner, 'copy')]);
    must('sync', ['-f', inner]);
    expect(await sha256(join(inner, 'copy'))).toBe(await sha256(source));
    const full = statusOf(mountpoint).disks[0]?.storeBytes ?? 0;
    must('rm', [join(inner, 'copy')]);
    // ext4 trims what its journal has let go of.
    must('sync', ['-f', inner]);
    must('fstrim', [inner]);
    const trimmed = statusOf(mountpoint).disks[0]?.storeBytes ?? 0;
    expect(full - trimmed).toBeGreaterThan(25_000_000);
    must('umount', [inner]);
    must('losetup', ['-d', loop]);
    must('fsck.ext4', ['-f', '-n', disk]);
    expect(await sha256(base)).toBe(before);
    console.log(`trim: the store went from ${full} to ${trimmed} bytes`);
  });
});
