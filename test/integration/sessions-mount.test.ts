/** Mounting with other disks than one, and unmounting while any of them is in use. */
import { closeSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import {
  expectContent,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  outcome,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  unchanging,
} from './sessions-support.ts';

test.for(TRANSPORT_MODES)(
  '$name: --session makes disks beside the first; the first one’s path is printed',
  (mode, context) => {
    const options = ['--session', 'alice.raw', '--session', 'bob.img', '--name', 'first.raw', '--session=ü x.raw'];
    const { disk, at, mountpoint, original } = mountSessions(mode, context, options);
    expect(disk).toBe(at('first.raw'));
    const names = ['first.raw', 'alice.raw', 'bob.img', 'ü x.raw'];
    expect(readdirSync(mountpoint).sort()).toEqual([...names].sort());
    expect(statusOf(mountpoint).disks.map(({ name }) => name)).toEqual(names);
    put(at('alice.raw'), 0, filled(1, 5000));
    expectContent(at('alice.raw'), patched(original, [0, filled(1, 5000)]));
    for (const name of ['first.raw', 'bob.img', 'ü x.raw']) expectContent(at(name), original);
  },
);

test.for(TRANSPORT_MODES)('$name: --empty makes none; the mountpoint is printed', (mode, context) => {
  const { disk, at, mountpoint, original } = mountSessions(mode, context, ['--empty']);
  expect(disk).toBe(mountpoint);
  expect(readdirSync(mountpoint)).toEqual([]);
  expect(statusOf(mountpoint).disks).toEqual([]);
  must('touch', [at('a.raw')]);
  expectContent(at('a.raw'), original);
  unlinkSync(at('a.raw'));
});

test('what does not go together, and names that are none: one line, exit 2, nothing mounted', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const refused: [options: string[], says: string][] = [
    [['--empty', '--session', 'a.raw'], '--session'],
    [['--session', 'a.raw', '--session', 'a.raw'], 'a.raw'],
    [['--session', 'disk.raw'], 'disk.raw'],
    [['--name', 'x.raw', '--session', 'x.raw'], 'x.raw'],
    [['--session', ''], '--session'],
    [['--session', '.'], '--session'],
    [['--session', '..'], '--session'],
    [['--session', 'a/b.raw'], 'a/b.raw'],
    [['--session', 'a\nb.raw'], '--session'],
    [['--session', '.cowfs'], '.cowfs'],
    [['--name', '.cowfs'], '.cowfs'],
    [['--session', 'n'.repeat(256)], '--session'],
    [['--session', 'ü'.repeat(128)], '--session'],
  ];
  for (const [options, says] of refused) expectRefusal(cowfs(['mount', base, mountpoint, ...options]), 2, says);
  expect(mountsBelow(directory)).toEqual([]);
  await expectNothingLeft(mountpoint);
});

test.for(KERNEL_MODES)(
  '$name: a mount that is read-only refuses all that would change it, in one line',
  async (mode, context) => {
    const { mountpoint, disk, at, original } = mountSessions(mode, context, ['--read-only', '--session', 'b.raw']);
    const before = await unchanging(mountpoint);
    for (const args of [
      ['fork', disk, at('c.raw')],
      ['reset', disk],
      ['reset', mountpoint],
      ['reset', '--force', disk],
      ['snapshot', disk, 'one'],
      ['rollback', disk, 'one'],
    ]) {
      expectRefusal(cowfs(args), 3, mountpoint, 'read-only');
    }
    expect(outcome(() => make(at('c.raw')))).toBe('EROFS');
    expect(outcome(() => unlinkSync(at('b.raw')))).toBe('EROFS');
    expect(outcome(() => writeFileSync(disk, 'x'))).toBe('EROFS');
    for (const [program, ...args] of [
      ['mkdir', at('job')],
      ['mv', disk, at('c.raw')],
      ['truncate', '-s', '1', disk],
      ['touch', disk],
    ]) {
      expect(run(program ?? '', args, { env: { LC_ALL: 'C' } }).stderr).toContain('Read-only file system');
    }
    expect(await unchanging(mountpoint)).toEqual(before);
    expectContent(disk, original);
    expect(mustCowfs(['snapshot', disk])).toContain('no snapshots');
    expect((JSON.parse(readFileSync(at('.cowfs/status.json'), 'utf8')) as { readOnly: boolean }).readOnly).toBe(true);
  },
);

test.for(TRANSPORT_MODES)(
  '$name: unmount refuses while any disk is open, also one that was removed',
  async (mode, context) => {
    const { mountpoint, at, original } = mountSessions(mode, context);
    must('mkdir', [at('job')]);
    make(at('job/a.raw'));
    const named = opened(at('job/a.raw'));
    expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, `pid ${process.pid}`, '--force');
    unlinkSync(at('job/a.raw'));
    expectRefusal(cowfs(['unmount', mountpoint]), 3, mountpoint, `pid ${process.pid}`, '--force');
    expectContent(at('disk.raw'), original);
    expect((await statusNow(mountpoint)).disks).toHaveLength(2);
    closeSync(named);
    mustCowfs(['unmount', mountpoint]);
    await expectNothingLeft(mountpoint);
  },
);

test('cowfs run has one disk, and no other options than that', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  for (const option of [['--empty'], ['--session', 'a.raw']]) {
    const { status, stderr } = cowfs(['run', base, ...option, '--', 'true']);
    expect(status).not.toBe(0);
    expect(stderr).toContain(option[0]);
  }
  const script = 'cd "$(dirname "$0")" && touch b.raw && cmp -s b.raw "$1" && ls';
  expect(mustCowfs(['run', base, '--', 'sh', '-c', script, '{}', base])).toBe('b.raw\ndisk.raw\n');
});

test('many names on the command line', () => {
  const directory = scratch();
  const names = Array.from({ length: 100 }, (_, index) => `vm-${index}.raw`);
  const { mountpoint } = mountDisk(
    makeBase(directory, 100_000),
    makeMountpoint(directory),
    names.flatMap((name) => ['--session', name]),
  );
  expect(new Set(readdirSync(mountpoint))).toEqual(new Set(['disk.raw', ...names]));
  expectContent(`${mountpoint}/vm-99.raw`, readFileSync(`${mountpoint}/disk.raw`));
});
