/** Times, modes and owners through fuse-native: what is set is what stat(2) says. */
import { chmodSync, chownSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { must, run } from '../harness.ts';
import { inChild, mounted, needsFuseNative } from './fuse-native-support.ts';
import { needs, needsRoot } from './machine-support.ts';

beforeEach(needsFuseNative);

const UTC = { env: { TZ: 'UTC' } };

/** utimensat(2), `[seconds, nanoseconds]` each; what it says. */
function setTimes(disk: string, atime: readonly number[], mtime: readonly number[]): unknown {
  const script = 'console.log(JSON.stringify(outcome(() => calls.setTimes(args[0], ...JSON.parse(args[1])))))';
  return inChild(script, disk, JSON.stringify([atime, mtime]));
}

test('access and modification time are set apart, to the millisecond', () => {
  const { disk } = mounted([], 5000);
  for (const [atime, mtime] of [
    [
      [1_000_000_000, 123_000_000],
      [1_234_567_890, 987_000_000],
    ],
    [
      [1_234_567_890, 987_999_999],
      [1_000_000_000, 123_456_789],
    ],
    [
      [0, 0],
      [2 ** 32 + 5, 1_000_000],
    ],
    [
      [2 ** 33, 999_000_000],
      [0, 1_000_000],
    ],
  ] as const) {
    expect(setTimes(disk, atime, mtime)).toBe(0);
    const { atimeMs, mtimeMs } = statSync(disk);
    const toMs = ([seconds, nanoseconds]: readonly [number, number]): number =>
      seconds * 1000 + Math.floor(nanoseconds / 1e6);
    expect({ atimeMs, mtimeMs }).toEqual({ atimeMs: toMs(atime), mtimeMs: toMs(mtime) });
  }
});

test('utimes of Node, touch and cp -p', () => {
  const { disk, directory } = mounted([], 5000);
  utimesSync(disk, 1_000_000_000.25, 1_234_567_890.5);
  expect(statSync(disk)).toMatchObject({ atimeMs: 1_000_000_000_250, mtimeMs: 1_234_567_890_500 });
  must('touch', ['-d', '2001-02-03 04:05:06.789 UTC', disk]);
  expect(must('stat', ['-c', '%x|%y', disk], UTC)).toMatch(/^2001-02-03 04:05:06\.789.*\|2001-02-03 04:05:06\.789/);
  const source = join(directory, 'source');
  writeFileSync(source, 'copied');
  must('touch', ['-a', '-d', '2010-01-01 00:00:00.111 UTC', source]);
  must('touch', ['-m', '-d', '2011-01-01 00:00:00.222 UTC', source]);
  must('cp', ['--preserve=timestamps', source, disk]);
  expect(must('stat', ['-c', '%y', disk], UTC)).toMatch(/^2011-01-01 00:00:00\.222/);
});

test('`touch` is now', () => {
  const { disk } = mounted([], 5000);
  utimesSync(disk, 1000, 1000);
  const before = Date.now();
  must('touch', [disk]);
  const { atimeMs, mtimeMs } = statSync(disk);
  for (const time of [atimeMs, mtimeMs]) {
    // The kernel's clock for files is a tick behind.
    expect(time).toBeGreaterThan(before - 1000);
    expect(time).toBeLessThanOrEqual(Date.now());
  }
});

test('times before 1970 are shown as 1970, never as something else, and far ones as they are', () => {
  const { disk } = mounted([], 5000);
  for (const [time, shown] of [
    ['1969-12-31 23:59:59.5', '1970-01-01 00:00:00'],
    ['1901-01-01 00:00:00', '1970-01-01 00:00:00'],
    ['1970-01-01 00:00:00', '1970-01-01 00:00:00'],
    ['2106-02-07 06:28:16.001', '2106-02-07 06:28:16.001'],
    ['2262-04-01 12:00:00.25', '2262-04-01 12:00:00.25'],
  ] as const) {
    must('touch', ['-d', `${time} UTC`, disk]);
    const lines = must('stat', ['-c', '%x|%y', disk], UTC).split('|');
    expect(lines.map((line) => line.slice(0, shown.length))).toEqual([shown, shown]);
  }
});

test('one time alone is not passed on by libfuse 2: both stay as they are', () => {
  const { disk } = mounted([], 5000);
  utimesSync(disk, 1_000_000_000, 1_100_000_000);
  for (const which of ['-a', '-m']) {
    must('touch', [which, '-d', '2005-01-01 UTC', disk]);
    expect(statSync(disk)).toMatchObject({ atimeMs: 1_000_000_000_000, mtimeMs: 1_100_000_000_000 });
  }
});

test('a write sets mtime and ctime, a truncate too', () => {
  const { disk } = mounted([], 5000);
  for (const change of [() => writeFileSync(disk, 'x', { flag: 'r+' }), () => must('truncate', ['-s', '4000', disk])]) {
    utimesSync(disk, 1000, 1000);
    change();
    const { mtimeMs, ctimeMs } = statSync(disk);
    expect(Date.now() - mtimeMs).toBeLessThan(60_000);
    expect(Date.now() - ctimeMs).toBeLessThan(60_000);
  }
});

test('chmod', () => {
  const { disk } = mounted([], 5000);
  for (const mode of [0o640, 0o000, 0o777, 0o1644, 0o600]) {
    chmodSync(disk, mode);
    expect(statSync(disk).mode).toBe(0o100000 | mode);
  }
});

test('chown changes what is given and leaves the other', (context) => {
  needsRoot(context);
  const { disk } = mounted([], 5000);
  const owner = (): readonly number[] => [statSync(disk).uid, statSync(disk).gid];
  chownSync(disk, 1234, 4_000_000_000);
  expect(owner()).toEqual([1234, 4_000_000_000]);
  must('chown', ['77', disk]);
  expect(owner()).toEqual([77, 4_000_000_000]);
  must('chown', [':88', disk]);
  expect(owner()).toEqual([77, 88]);
  must('chown', ['0:0', disk]);
  expect(owner()).toEqual([0, 0]);
});

test('the mount shows one file, of the number and the blocks that ours has', () => {
  const { mountpoint, disk } = mounted();
  expect(readdirSync(mountpoint)).toEqual(['disk.raw']);
  expect(statSync(disk)).toMatchObject({
    ino: 2,
    nlink: 1,
    blksize: 4096,
    blocks: 8,
    size: 1_000_001,
  });
  expect(statSync(mountpoint)).toMatchObject({ ino: 1, nlink: 2 });
  expect(must('ls', ['-i', mountpoint]).trim()).toBe('2 disk.raw');
});

test('what is neither a disk nor a directory cannot be made', (context) => {
  needs(context, 'mkfifo', 'ln');
  const { mountpoint, disk } = mounted([], 5000);
  for (const [program, ...args] of [
    ['touch', `${mountpoint}/new`],
    ['mkfifo', `${mountpoint}/new.raw`],
    ['ln', disk, `${mountpoint}/new.raw`],
    ['ln', '-s', disk, `${mountpoint}/new.raw`],
  ] as const) {
    const { status, stderr } = run(program, args, { env: { LC_ALL: 'C' } });
    expect({ program, failed: status !== 0, stderr }).toMatchObject({ failed: true });
    expect(stderr, program).toContain('Operation not permitted');
    expect(readdirSync(mountpoint)).toEqual(['disk.raw']);
  }
});
