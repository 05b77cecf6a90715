/**
 * Disks that are clones of the base (`--store-strategy reflink`), on file systems that share blocks: served by the kernel
 * itself where it can, and all that other disks can do.
 */
import { closeSync, existsSync, readFileSync, readSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, type TestContext, test } from 'vitest';
import {
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  scratch,
  sha256,
  statusOf,
} from '../harness.ts';
import { exported } from './export-support.ts';
import { formatted, freeBytes, loopDevice, needsRoot, ordinaryUser, tmpfs } from './machine-support.ts';
import { DISK_BYTES, expectOneMoment, Writer } from './moment-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { BLOCK, expectContent, filled, MIB, make, opened, patched, put } from './sessions-support.ts';

const REFLINK = ['--store-strategy', 'reflink'];
const AUTO = ['--store-strategy', 'auto'];
const BASE_BYTES = 8 * MIB + 12_345;

interface Place {
  readonly directory: string;
  /** On a file system that shares blocks. */
  readonly place: string;
  readonly base: string;
  readonly original: Buffer;
  readonly mountpoint: string;
}

function sharing(type: 'xfs' | 'btrfs', context: TestContext): Place {
  needsRoot(context);
  const directory = scratch();
  const place = formatted(directory, type, context);
  const base = makeBase(place, BASE_BYTES);
  return { directory, place, base, original: readFileSync(base), mountpoint: makeMountpoint(directory) };
}

describe.each(['xfs', 'btrfs'] as const)('%s', (type) => {
  test('the kernel serves the disk, the base stays, and the space comes back', async (context) => {
    const { base, original, place, mountpoint } = sharing(type, context);
    const before = await sha256(base);
    must('sync', ['-f', place]);
    const free = freeBytes(place);
    const { disk } = mountDisk(base, mountpoint, ['--store', place, ...AUTO]);
    expectContent(disk, original);
    const written = filled(1, 3 * MIB);
    put(disk, 777, written);
    expectContent(disk, patched(original, [777, written]));
    const { store, io, disks } = statusOf(mountpoint);
    expect(store).toMatchObject({ strategy: 'reflink', passthrough: true });
    expect({ reads: io.reads, writes: io.writes }).toEqual({ reads: 0, writes: 0 });
    expect(disks[0]?.writtenBytes).toBeGreaterThanOrEqual(written.length);
    expect(disks[0]?.writtenBytes).toBeLessThan(2 * written.length);
    expect(await sha256(base)).toBe(before);
    mustCowfs(['unmount', mountpoint]);
    await expectNothingLeft(mountpoint);
    must('sync', ['-f', place]);
    await poll('the space is free', () => freeBytes(place) >= free - MIB, 20_000);
  });

  test.for([
    { name: 'by the kernel', options: AUTO },
    { name: 'by the daemon', options: ['--cache', 'none', ...REFLINK] },
    { name: 'by threads of the daemon', options: ['--cache', 'none', '--aio', 'threads', ...REFLINK] },
  ])('served $name: snapshot, rollback, fork, reset, remove', ({ options }, context) => {
    const { base, original, place, mountpoint } = sharing(type, context);
    const { disk } = mountDisk(base, mountpoint, ['--store', place, ...options]);
    const at = (name: string): string => join(mountpoint, name);
    const [first, second] = [filled(1, 100_000), filled(2, 50_000)];
    put(disk, 5000, first);
    mustCowfs(['snapshot', disk, 'one']);
    put(disk, 6000, second);
    truncateSync(disk, BASE_BYTES + 99_999);
    mustCowfs(['fork', disk, at('b.raw')]);
    put(at('b.raw'), 0, second);
    const grown = Buffer.concat([patched(original, [5000, first], [6000, second]), Buffer.alloc(99_999)]);
    expectContent(disk, grown);
    expectContent(at('b.raw'), patched(grown, [0, second]));
    mustCowfs(['rollback', disk, 'one']);
    expectContent(disk, patched(original, [5000, first]));
    mustCowfs(['reset', disk]);
    expectContent(disk, original);
    expectContent(at('b.raw'), patched(grown, [0, second]));
    rmSync(at('b.raw'));
    make(at('c.raw'));
    expectContent(at('c.raw'), original);
    expect(
      statusOf(mountpoint)
        .disks.map(({ name }) => name)
        .sort(),
    ).toEqual(['c.raw', 'disk.raw']);
  });

  test('diff, export and commit know what was written', (context) => {
    const { base, directory, original, place, mountpoint } = sharing(type, context);
    const { disk } = mountDisk(base, mountpoint, ['--store', place, ...AUTO]);
    const written = filled(3, 2 * BLOCK);
    put(disk, 10 * BLOCK, written);
    must('fallocate', ['--punch-hole', '--offset', String(40 * BLOCK), '--length', String(4 * BLOCK), disk]);
    const content = patched(original, [10 * BLOCK, written], [40 * BLOCK, Buffer.alloc(4 * BLOCK)]);
    const { ranges } = JSON.parse(mustCowfs(['diff', disk, '--json'])) as {
      ranges: { offset: number; length: number }[];
    };
    expect(ranges.map(({ offset, length }) => [offset, length])).toEqual([
      [10 * BLOCK, 2 * BLOCK],
      [40 * BLOCK, 4 * BLOCK],
    ]);
    const image = join(directory, 'x.qcow2');
    mustCowfs(['export', disk, image, '--backing']);
    expect(statSync(image).size).toBeLessThan(2 * MIB);
    must('qemu-img', ['check', '-q', image]);
    must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', disk, image]);
    mustCowfs(['commit', disk]);
    expectContent(base, content);
    expectContent(disk, content);
    put(disk, 0, written);
    expectContent(base, content);
    mustCowfs(['commit', disk]);
    expectContent(base, patched(content, [0, written]));
  });

  test('a full file system is told to the writer, and what was there stays', (context) => {
    const { base, original, place, mountpoint } = sharing(type, context);
    const { disk } = mountDisk(base, mountpoint, ['--store', place, '--size', '1G', ...AUTO]);
    const filler = join(place, 'filler');
    must('fallocate', ['-l', String(Math.max(MIB, freeBytes(place) - 16 * MIB)), filler]);
    const dd = ['if=/dev/urandom', `of=${disk}`, 'bs=1M', 'count=64', 'seek=32', 'conv=notrunc,fsync'];
    expect(() => must('dd', dd)).toThrow(/No space left|ended with 1/);
    expectContent(base, original);
    rmSync(filler);
    must('dd', dd);
  });
});

test('kill -9 while a program has the disk open: nothing is left, and the space comes back with its last close', async (context) => {
  const { base, original, mountpoint, place } = sharing('xfs', context);
  must('sync', ['-f', place]);
  const free = freeBytes(place);
  const { disk } = mountDisk(base, mountpoint, ['--store', place, ...AUTO]);
  const fd = opened(disk);
  put(disk, 0, filled(1, 4 * MIB));
  process.kill(statusOf(mountpoint).pid, 'SIGKILL');
  await expectNothingLeft(mountpoint);
  // The kernel serves the handle as before, as that of a file that was removed.
  const bytes = Buffer.alloc(BLOCK);
  expect(readSync(fd, bytes, 0, BLOCK, 0)).toBe(BLOCK);
  expect(bytes.equals(filled(1, BLOCK))).toBe(true);
  must('sync', ['-f', place]);
  expect(freeBytes(place)).toBeLessThan(free - 3 * MIB);
  closeSync(fd);
  must('sync', ['-f', place]);
  await poll('the space is free', () => freeBytes(place) >= free - MIB, 20_000);
  expectContent(base, original);
});

test('forks, snapshots and exports of a disk that is written to are of one moment', {
  timeout: 120_000,
}, async (context) => {
  const { directory, mountpoint, place } = sharing('xfs', context);
  const zeros = join(place, 'zeros.img');
  writeFileSync(zeros, '');
  truncateSync(zeros, DISK_BYTES);
  const { disk } = mountDisk(zeros, mountpoint, ['--store', place, ...AUTO]);
  const writer = new Writer(disk);
  const seen: number[] = [];
  const look = async (content: () => Buffer): Promise<void> => {
    await writer.goesOn();
    const atLeast = writer.number;
    const number = expectOneMoment(content());
    expect(number).toBeGreaterThanOrEqual(atLeast);
    seen.push(number);
  };
  for (let round = 0; round < 4; round++) {
    const fork = join(mountpoint, `${round}.raw`);
    await look(() => {
      mustCowfs(['fork', disk, fork]);
      return readFileSync(fork);
    });
    await look(() => readFileSync(exported(disk, join(directory, `${round}.img`), 'raw')));
    mustCowfs(['snapshot', disk, `s${round}`]);
  }
  const last = await writer.stop();
  expect(statusOf(mountpoint).io.writes).toBe(0);
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(expectOneMoment(readFileSync(disk))).toBe(last);
  mustCowfs(['rollback', disk, 's0']);
  const then = expectOneMoment(readFileSync(disk));
  expect(then).toBeGreaterThanOrEqual(seen[1] ?? 0);
  expect(then).toBeLessThanOrEqual(seen[2] ?? 0);
});

test('a loop device on it, with a file system that is written, trimmed and checked', (context) => {
  const { directory, place, base, original, mountpoint } = sharing('xfs', context);
  const { disk } = mountDisk(base, mountpoint, ['--store', place, '--size', '64M', ...AUTO]);
  const device = loopDevice(disk);
  must('mkfs.ext4', ['-q', '-F', device]);
  const inside = makeMountpoint(directory, 'inside');
  must('mount', [device, inside]);
  const written = filled(5, 5 * MIB);
  writeFileSync(join(inside, 'file'), written);
  rmSync(join(inside, 'lost+found'), { recursive: true });
  must('fstrim', [inside]);
  must('umount', [inside]);
  must('e2fsck', ['-f', '-n', device]);
  must('mount', [device, inside]);
  expectContent(join(inside, 'file'), written);
  must('umount', [inside]);
  must('losetup', ['--detach', device]);
  const { io, store } = statusOf(mountpoint);
  expect({ writes: io.writes, passthrough: store.passthrough }).toEqual({ writes: 0, passthrough: true });
  expectContent(base, original);
});

test('without root, or where a part is missing, it is sparse, and the status says why', async (context) => {
  const { base, directory, place, mountpoint } = sharing('xfs', context);
  const elsewhere = tmpfs(directory, '20M', 'elsewhere');
  const device = loopDevice(base, '--read-only');
  for (const { from = base, options, reason } of [
    { options: ['--store', elsewhere, ...AUTO], reason: 'another file system' },
    { options: ['--store', place, '--max-store', '1G', ...AUTO], reason: 'quota' },
    { options: ['--store', place, '--read-only', ...AUTO], reason: 'read-only' },
    { options: ['--store', place, '--cache', 'none', ...AUTO], reason: '--cache none' },
    { options: ['--store', place, '--overlay', join(place, 'vm.cow'), ...AUTO], reason: 'overlay' },
    { options: ['--store', place], reason: 'the default' },
    { from: device, options: ['--store', place, '--force', ...AUTO], reason: 'block device' },
  ]) {
    mountDisk(from, mountpoint, options);
    const { store } = statusOf(mountpoint);
    expect(store).toMatchObject({ strategy: 'sparse', passthrough: false });
    expect(store.strategyReason).toContain(reason);
    expect(mustCowfs(['status', mountpoint])).toContain(`sparse (${store.strategyReason})`);
    mustCowfs(['unmount', mountpoint]);
    await expectNothingLeft(mountpoint);
  }
  const refused = cowfs(['mount', base, mountpoint, '--store', elsewhere, ...REFLINK]);
  expectRefusal(refused, 4, 'reflink', 'another file system', '--store-strategy sparse');
  const overlay = ['--store', place, '--overlay', join(place, 'vm.cow')];
  const contradictory = cowfs(['mount', base, mountpoint, ...overlay, ...REFLINK]);
  expectRefusal(contradictory, 2, 'reflink', 'overlay', '--store-strategy sparse');
  await expectNothingLeft(mountpoint);
});

test('an ordinary user has clones, which the daemon serves', (context) => {
  const { place, base } = sharing('xfs', context);
  const { mountpoint, as } = ordinaryUser();
  const store = makeMountpoint(place, 'theirs');
  must('chown', ['nobody', store]);
  const { disk } = mountDisk(base, mountpoint, ['--store', store, ...REFLINK], as);
  expect(statusOf(mountpoint, as).store).toMatchObject({ strategy: 'reflink', passthrough: false });
  must('cmp', [base, disk], as);
  expect(existsSync(base)).toBe(true);
});
