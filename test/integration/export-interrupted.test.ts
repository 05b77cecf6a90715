/**
 * Exports that are caught in the middle: ended, or the daemon under them, or the mount. The base is on a file system that
 * lets nobody read on until the test says so (faulty-base.ts).
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { type FaultyBase, faultyBase, mountOver } from '../fault/faulty-base.ts';
import {
  cowfs,
  exitOf,
  type Mount,
  makeBase,
  makeMountpoint,
  mountDisk,
  mustCowfs,
  poll,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { killedNaming, stoppedNaming } from './commit-support.ts';
import {
  BLOCK,
  contentOf,
  expectDone,
  expectExport,
  expectSame,
  exported,
  type FormatName,
  MIB,
  startExport,
  strangersIn,
  untilThawed,
} from './export-support.ts';
import { finish, needs, needsRoot, said } from './machine-support.ts';
import { expectNothingLeft, leftAt } from './nothing-left-support.ts';
import { filled, make, mountSessions, patched, put, WRITEBACK } from './sessions-support.ts';

const SIZE = 8 * MIB + 5;
/** From here on the base keeps readers waiting. */
const GATED = 5 * MIB;

interface Held extends Mount {
  readonly faulty: FaultyBase;
  /** What the disk contains when the export begins. */
  readonly content: Buffer;
  readonly pid: number;
  /** Where exports go; nothing else is there. */
  readonly target: string;
}

beforeEach((context) => {
  needsRoot(context);
  needs(context, 'qemu-img', 'cmp');
});

async function held(): Promise<Held> {
  const faulty = await faultyBase(SIZE);
  const mount = mountOver(faulty, []);
  const writes = [
    [1000, filled(1, MIB)],
    [7 * MIB + 100, filled(2, 100_000)],
  ] as const;
  for (const [offset, bytes] of writes) put(mount.disk, offset, bytes);
  const content = patched(faulty.original, ...writes);
  const { pid } = statusOf(mount.mountpoint);
  return { ...mount, faulty, content, pid, target: makeMountpoint(faulty.directory, 'target') };
}

/** Starts an export and waits until it is in the middle of the disk. */
async function midway({ disk, faulty, target }: Held, format: FormatName, ...options: string[]): Promise<ChildProcess> {
  faulty.setPlan({ gate: { from: GATED, to: SIZE } });
  const child = startExport(disk, join(target, 'image'), format, options);
  await faulty.untilGated(1);
  expect([child.exitCode, child.signalCode]).toEqual([null, null]);
  return child;
}

const WAYS = [
  ['raw', 'SIGKILL'],
  ['raw', 'SIGINT'],
  ['raw', 'SIGTERM'],
  ['flat', 'SIGKILL'],
  ['flat', 'SIGINT'],
] as const;

test.each(WAYS)('%s, %s in the middle: no file, and the disk goes on and thaws', async (format, signal) => {
  const disk = await held();
  const { content, faulty, mountpoint, target } = disk;
  const child = await midway(disk, format);
  expect(strangersIn(target)).toEqual([]);
  put(disk.disk, 2 * MIB, filled(3, 5000));
  expect(statusOf(mountpoint).disks[0]?.layers).toBe(2);
  child.kill(signal);
  faulty.setPlan({});
  expect(await exitOf(child)).toBe(signal);
  expect(strangersIn(target)).toEqual([]);
  await untilThawed(mountpoint);
  put(disk.disk, 3 * MIB, filled(4, 5000));
  const now = patched(content, [2 * MIB, filled(3, 5000)], [3 * MIB, filled(4, 5000)]);
  expect(readFileSync(disk.disk).equals(now)).toBe(true);
  expectExport(exported(disk.disk, join(target, 'image'), format), disk.disk, format);
});

test('SIGKILL in the middle of one that replaces a file: the old one stays', async () => {
  const disk = await held();
  const { faulty, target } = disk;
  writeFileSync(join(target, 'image'), 'old');
  const child = await midway(disk, 'raw', '--force');
  child.kill('SIGKILL');
  faulty.setPlan({});
  expect(await exitOf(child)).toBe('SIGKILL');
  expect(readFileSync(join(target, 'image'), 'utf8')).toBe('old');
  expect(strangersIn(target, 'image')).toEqual([]);
});

test('--force: the old file is there until the new one is whole, and readers of the old one keep it', async () => {
  const disk = await held();
  const { content, faulty, target } = disk;
  const image = join(target, 'image');
  writeFileSync(image, 'the old content');
  const reader = openSync(image, 'r');
  const { ino } = statSync(image);
  const child = await midway(disk, 'raw', '--force');
  expect(readFileSync(image, 'utf8')).toBe('the old content');
  expect(statSync(image).ino).toBe(ino);
  faulty.setPlan({});
  await expectDone(child);
  expect(readFileSync(image).equals(content)).toBe(true);
  const old = Buffer.alloc(100);
  expect(old.toString('utf8', 0, readSync(reader, old, 0, 100, 0))).toBe('the old content');
  closeSync(reader);
  expect(strangersIn(target, 'image')).toEqual([]);
});

test('--force: one that is killed when its file takes the place of another leaves a name that the next sweeps', async () => {
  const { disk, directory, mountpoint } = mountSessions(WRITEBACK, undefined, [], MIB);
  const target = makeMountpoint(directory, 'target');
  const image = join(target, 'image');
  writeFileSync(image, 'old');
  await killedNaming(image, 'export', disk, image, '--force');
  expect(readFileSync(image, 'utf8')).toBe('old');
  expect(strangersIn(target, 'image')).toHaveLength(1);
  await untilThawed(mountpoint);
  // The next may be a commit, too.
  mustCowfs(['commit', mountpoint, '--to', image, '--force']);
  expectSame(image, disk);
  expect(strangersIn(target, 'image')).toEqual([]);
});

test('--force: two to the same file at once both come to their end', async () => {
  const { disk, directory } = mountSessions(WRITEBACK, undefined, [], MIB);
  const target = makeMountpoint(directory, 'target');
  const image = join(target, 'image');
  writeFileSync(image, 'old');
  const first = await stoppedNaming(image, 'export', disk, image, '--force');
  put(disk, 5000, filled(1, 10_000));
  exported(disk, image, 'raw', ['--force']);
  expectSame(image, disk);
  const { ino } = statSync(image);
  first.kill('SIGCONT');
  expect(await exitOf(first)).toBe(0);
  expect(statSync(image).ino).not.toBe(ino);
  expect(strangersIn(target, 'image')).toEqual([]);
});

test('a file that appears meanwhile is not overwritten', async () => {
  const disk = await held();
  const { faulty, target } = disk;
  const child = await midway(disk, 'raw');
  writeFileSync(join(target, 'image'), 'somebody else’s');
  faulty.setPlan({});
  const { status, stderr } = await finish(child);
  expect(stderr).toMatch(/^cowfs: [^\n]*image[^\n]*EEXIST[^\n]*\n$/);
  expect(status).toBeGreaterThan(0);
  expect(readFileSync(join(target, 'image'), 'utf8')).toBe('somebody else’s');
  expect(strangersIn(target, 'image')).toEqual([]);
});

describe.each(['raw', 'flat', 'backed'] as const)('%s', (format) => {
  test('the disk is written meanwhile: the image is of the moment before', async () => {
    const disk = await held();
    const { content, faulty, mountpoint, target } = disk;
    // Backed, nothing of the base is read but what is cut at its end.
    if (format === 'backed') put(disk.disk, SIZE - 3, Buffer.from('x'));
    const before = readFileSync(disk.disk);
    const child =
      format === 'backed' ? startExport(disk.disk, join(target, 'image'), format) : await midway(disk, format);
    if (format === 'backed') await expectDone(child);
    for (const at of [0, 4 * MIB, 6 * MIB, SIZE - 3000]) put(disk.disk, at, filled(9, 2000));
    faulty.setPlan({});
    if (format !== 'backed') await expectDone(child);
    const image = contentOf(join(target, 'image'), format, faulty.directory);
    expect(image.subarray(0, before.length).equals(before)).toBe(true);
    if (format !== 'backed') expect(before.equals(content)).toBe(true);
    await untilThawed(mountpoint);
    for (const at of [0, 4 * MIB, 6 * MIB, SIZE - 3000]) {
      expect(
        readFileSync(disk.disk)
          .subarray(at, at + 2000)
          .equals(filled(9, 2000)),
      ).toBe(true);
    }
  });
});

test.each(['raw', 'flat'] as const)(
  '%s, the daemon is killed in the middle: the image is whole all the same',
  async (format) => {
    const disk = await held();
    const { content, faulty, mountpoint, pid, target } = disk;
    const child = await midway(disk, format);
    process.kill(pid, 'SIGKILL');
    await expectNothingLeftButExports(mountpoint);
    faulty.setPlan({});
    await expectDone(child);
    const image = contentOf(join(target, 'image'), format, faulty.directory);
    expect(image.subarray(0, SIZE).equals(content)).toBe(true);
    expect(strangersIn(target, 'image')).toEqual([]);
    await expectNothingLeft(mountpoint);
  },
);

/** The export itself has the mountpoint in its command line. */
async function expectNothingLeftButExports(mountpoint: string): Promise<void> {
  await poll('only the export is left', () =>
    leftAt(mountpoint).every((what) => what.startsWith('process') && what.includes(' export ')),
  );
}

test.each([[''], ['--force']])('unmount %s in the middle: the image is whole, and nothing is left', async (option) => {
  const disk = await held();
  const { content, faulty, mountpoint, target } = disk;
  const child = await midway(disk, 'raw');
  mustCowfs(['unmount', ...(option === '' ? [] : [option]), mountpoint]);
  await expectNothingLeftButExports(mountpoint);
  faulty.setPlan({});
  await expectDone(child);
  expect(readFileSync(join(target, 'image')).equals(content)).toBe(true);
  await expectNothingLeft(mountpoint);
});

test('after an unmount in the middle nobody may write to the base yet', async (context) => {
  needs(context, 'qemu-io');
  // QEMU needs a base that can be written to; a stopped export stands for a slow one.
  const directory = scratch();
  const base = makeBase(directory, 256 * MIB);
  const mount = mountDisk(base, makeMountpoint(directory));
  const child = startExport(mount.disk, join(directory, 'image'), 'raw', ['--json']);
  await said(child, 'progress');
  child.kill('SIGSTOP');
  mustCowfs(['unmount', mount.mountpoint]);
  const writing = run('qemu-io', ['-f', 'raw', '-c', 'write -P 1 255M 512', base]);
  child.kill('SIGCONT');
  expect(await exitOf(child)).toBe(0);
  expect([writing.status, writing.stderr]).toEqual([1, expect.stringContaining('lock')]);
});

test('what happens to the disk meanwhile does not matter: reset, rollback, removal, another in its place', async () => {
  const disk = await held();
  const { content, faulty, mountpoint, target } = disk;
  mustCowfs(['snapshot', disk.disk, 's']);
  const child = await midway(disk, 'raw');
  mustCowfs(['rollback', disk.disk, 's']);
  mustCowfs(['reset', disk.disk]);
  rmSync(disk.disk);
  make(disk.disk);
  put(disk.disk, 0, filled(5, 3 * MIB));
  faulty.setPlan({});
  await expectDone(child);
  expect(readFileSync(join(target, 'image')).equals(content)).toBe(true);
  await untilThawed(mountpoint);
  expect(statusOf(mountpoint).store.occupiedBytes).toBe(3 * MIB);
});

test('a base that fails: no file, and a line that says where', async () => {
  const disk = await held();
  const { faulty, mountpoint, target } = disk;
  faulty.setPlan({ bad: { from: 4 * MIB, to: 4 * MIB + BLOCK, errno: 'EIO' } });
  for (const format of ['raw', 'flat'] as const) {
    const { status, stdout, stderr } = await finish(startExport(disk.disk, join(target, 'image'), format));
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(/^cowfs: reading the disk at offset \d+ failed \(EIO\)[^\n]+\n$/);
    const at = Number(/offset (\d+)/.exec(stderr)?.[1]);
    expect(at).toBeGreaterThan(3 * MIB - 1);
    expect(at).toBeLessThanOrEqual(4 * MIB);
  }
  expect(strangersIn(target)).toEqual([]);
  // A backed one does not need it, nor does one whose store covers it.
  exported(disk.disk, join(target, 'backed'), 'backed');
  put(disk.disk, 4 * MIB, filled(1, BLOCK));
  exported(disk.disk, join(target, 'raw'), 'raw');
  faulty.setPlan({});
  expectSame(join(target, 'raw'), disk.disk);
  await untilThawed(mountpoint);
  expect(cowfs(['diff', disk.disk]).status).toBe(0);
});
