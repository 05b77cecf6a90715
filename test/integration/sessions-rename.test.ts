/** Renaming disks and directories, as rename(2) and renameat2(2) have it. */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { must, run } from '../harness.ts';
import { inChild } from './fuse-native-support.ts';
import {
  ALL_MODES,
  BLOCK,
  diskStatus,
  expectContent,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  outcome,
  patched,
  put,
  type SessionsMount,
  TRANSPORT_MODES,
  untilOnly,
} from './sessions-support.ts';

/** Disks of those names, each with a block of its own at its start. */
function makeAll(mount: SessionsMount, names: readonly string[]): Map<string, Buffer> {
  return new Map(
    names.map((name, index) => {
      make(mount.at(name));
      put(mount.at(name), 0, filled(index + 1, BLOCK));
      return [name, patched(mount.original, [0, filled(index + 1, BLOCK)])];
    }),
  );
}

test.for(ALL_MODES)(
  '$name: within, into and out of directories, with content, number and open handles',
  async (mode, context) => {
    const mount = mountSessions(mode, context, ['--empty']);
    const { at, mountpoint } = mount;
    for (const name of ['one', 'two']) mkdirSync(at(name));
    const content = makeAll(mount, ['a.raw']).get('a.raw') as Buffer;
    const { ino } = statSync(at('a.raw'));
    const fd = opened(at('a.raw'));
    let changed = content;
    const steps = ['b.raw', 'one/b.raw', 'one/c.raw', 'two/d.raw', 'e.raw', 'a.raw'];
    for (const [index, to] of steps.entries()) {
      const from = index === 0 ? 'a.raw' : (steps[index - 1] as string);
      renameSync(at(from), at(to));
      expect(outcome(() => statSync(at(from)))).toBe('ENOENT');
      expectContent(at(to), changed);
      expect(diskStatus(mountpoint, to)).toMatchObject({ path: at(to), openHandles: 1 });
      if (mode.transport === 'kernel') expect(statSync(at(to))).toMatchObject({ ino, nlink: 1 });
      writeSync(fd, filled(index, 10), 0, 10, 50_000 + index);
      fsyncSync(fd);
      changed = patched(changed, [50_000 + index, filled(index, 10)]);
      expectContent(at(to), changed);
    }
    closeSync(fd);
    expect(readdirSync(at('one'))).toEqual([]);
    await untilOnly(mountpoint, ['a.raw'], 2 * BLOCK);
  },
);

test.for(ALL_MODES)(
  '$name: over a closed disk, which is discarded, and over an open one, which lives on',
  async (mode, context) => {
    const mount = mountSessions(mode, context, ['--empty']);
    const { at, mountpoint } = mount;
    const contents = makeAll(mount, ['a.raw', 'b.raw', 'c.raw']);
    renameSync(at('a.raw'), at('b.raw'));
    expectContent(at('b.raw'), contents.get('a.raw') as Buffer);
    await untilOnly(mountpoint, ['b.raw', 'c.raw'], 2 * BLOCK);

    const fd = opened(at('c.raw'));
    must('mv', [at('b.raw'), at('c.raw')]);
    expectContent(at('c.raw'), contents.get('a.raw') as Buffer);
    const seen = Buffer.alloc(BLOCK);
    readSync(fd, seen, 0, BLOCK, 0);
    expect(seen.equals(filled(3, BLOCK))).toBe(true);
    if (mode.transport === 'kernel') expect(fstatSync(fd).nlink).toBe(0);
    writeSync(fd, filled(7, BLOCK), 0, BLOCK, 10 * BLOCK);
    fsyncSync(fd);
    expectContent(at('c.raw'), contents.get('a.raw') as Buffer);
    closeSync(fd);
    await untilOnly(mountpoint, ['c.raw'], BLOCK);
    unlinkSync(at('c.raw'));
    await untilOnly(mountpoint, [], 0);
  },
);

test.for(TRANSPORT_MODES)('$name: onto itself, directories, and what is refused', async (mode, context) => {
  const mount = mountSessions(mode, context, ['--empty']);
  const { at, mountpoint } = mount;
  for (const name of ['one', 'two', 'empty']) mkdirSync(at(name));
  const contents = makeAll(mount, ['a.raw', 'one/a.raw', 'two/b.raw']);
  renameSync(at('a.raw'), at('a.raw'));
  const rename = (from: string, to: string): string => outcome(() => renameSync(at(from), at(to)));
  const refusals = {
    nothing: rename('none.raw', 'x.raw'),
    'into nowhere': rename('a.raw', 'none/a.raw'),
    'over a full directory': rename('one', 'two'),
    'a disk over a directory': rename('a.raw', 'empty'),
    'a directory over a disk': rename('empty', 'a.raw'),
    'a directory into another': rename('empty', 'one/empty'),
    'a directory into itself': rename('one', 'one/x'),
    'below a disk': rename('empty', 'a.raw/x'),
    'the control directory': rename('.cowfs', 'x'),
    'onto the control directory': rename('one', '.cowfs'),
    'into the control directory': rename('a.raw', '.cowfs/a.raw'),
    'a long name': rename('a.raw', `${'n'.repeat(252)}.raw`),
  };
  expect(refusals).toEqual({
    nothing: 'ENOENT',
    'into nowhere': 'ENOENT',
    'over a full directory': 'ENOTEMPTY',
    'a disk over a directory': 'EISDIR',
    'a directory over a disk': 'ENOTDIR',
    'a directory into another': 'EPERM',
    'a directory into itself': 'EINVAL',
    'below a disk': 'ENOTDIR',
    'the control directory': expect.stringMatching(/^E(PERM|NOENT|ACCES|BUSY)$/),
    'onto the control directory': expect.stringMatching(/^E(PERM|EXIST|ACCES|NOTEMPTY)$/),
    'into the control directory': expect.stringMatching(/^E(PERM|ACCES)$/),
    'a long name': 'ENAMETOOLONG',
  });
  for (const [name, content] of contents) expectContent(at(name), content);
  renameSync(at('one'), at('empty'));
  expect(readdirSync(mountpoint).sort()).toEqual(['a.raw', 'empty', 'two']);
  expectContent(at('empty/a.raw'), contents.get('one/a.raw') as Buffer);
  must('mv', [at('empty'), at('job 17')]);
  expectContent(at('job 17/a.raw'), contents.get('one/a.raw') as Buffer);
  await untilOnly(mountpoint, ['a.raw', 'job 17/a.raw', 'two/b.raw'], 3 * BLOCK);
  must('rm', ['-r', at('job 17'), at('two'), at('a.raw')]);
  await untilOnly(mountpoint, [], 0);
});

/** renameat2(2) in a process of its own; the outcomes. */
function renameWith(flag: string, pairs: readonly (readonly [string, string])[]): string[] {
  return inChild<string[]>(
    `const [pairs] = args.map((arg) => JSON.parse(arg));
     console.log(JSON.stringify(pairs.map(([from, to]) => {
       const result = outcome(() => calls.renameat2(from, to, calls.${flag}));
       return result === 0 ? 'OK' : result;
     })));`,
    JSON.stringify(pairs),
  );
}

test.for(KERNEL_MODES)('$name: RENAME_NOREPLACE and RENAME_EXCHANGE', async (mode, context) => {
  const mount = mountSessions(mode, context, ['--empty']);
  const { at, mountpoint } = mount;
  mkdirSync(at('job'));
  const contents = makeAll(mount, ['a.raw', 'b.raw', 'job/c.raw']);
  const of = (name: string): Buffer => contents.get(name) as Buffer;
  expect(
    renameWith('RENAME_NOREPLACE', [
      [at('a.raw'), at('b.raw')],
      [at('a.raw'), at('job')],
      [at('a.raw'), at('.cowfs')],
      [at('a.raw'), at('new.raw')],
      [at('new.raw'), at('a.raw')],
    ]),
  ).toEqual(['EEXIST', 'EEXIST', 'EEXIST', 'OK', 'OK']);
  expectContent(at('a.raw'), of('a.raw'));
  const fd = opened(at('a.raw'));
  expect(
    renameWith('RENAME_EXCHANGE', [
      [at('a.raw'), at('b.raw')],
      [at('a.raw'), at('none.raw')],
      [at('b.raw'), at('job/c.raw')],
      [at('job'), at('a.raw')],
      [at('a.raw'), at('a.raw/c.raw')],
    ]).slice(0, 4),
  ).toEqual(['OK', 'ENOENT', 'OK', 'OK']);
  // The directory is called a.raw now, and a disk job.
  expect(readdirSync(mountpoint).sort()).toEqual(['a.raw', 'b.raw', 'job']);
  expectContent(at('a.raw/c.raw'), of('a.raw'));
  expectContent(at('b.raw'), of('job/c.raw'));
  expectContent(at('job'), of('b.raw'));
  writeSync(fd, filled(9, 10), 0, 10, 70_000);
  fsyncSync(fd);
  expectContent(at('a.raw/c.raw'), patched(of('a.raw'), [70_000, filled(9, 10)]));
  closeSync(fd);
  await untilOnly(mountpoint, ['a.raw/c.raw', 'b.raw', 'job'], 4 * BLOCK);
  expect(renameWith('RENAME_WHITEOUT', [[at('b.raw'), at('x.raw')]])).toEqual(['EINVAL']);
});

test('fuse-native: flags of renameat2 are refused, and nothing moves', (context) => {
  const mount = mountSessions(TRANSPORT_MODES[1] as (typeof TRANSPORT_MODES)[number], context, ['--empty']);
  const contents = makeAll(mount, ['a.raw', 'b.raw']);
  const { at } = mount;
  expect(renameWith('RENAME_NOREPLACE', [[at('a.raw'), at('new.raw')]])).toEqual(['EINVAL']);
  expect(renameWith('RENAME_EXCHANGE', [[at('a.raw'), at('b.raw')]])).toEqual(['EINVAL']);
  for (const [name, content] of contents) expectContent(at(name), content);
});

test.for(KERNEL_MODES)(
  '$name: what the kernel still caches of a disk goes with it to its new name',
  (mode, context) => {
    const mount = mountSessions(mode, context, ['--empty']);
    const { at, original } = mount;
    makeAll(mount, ['a.raw', 'b.raw']);
    const fd = opened(at('a.raw'));
    writeSync(fd, filled(5, 100_000), 0, 100_000, 100_000);
    renameSync(at('a.raw'), at('b.raw'));
    renameSync(at('b.raw'), at('c.raw'));
    make(at('a.raw'));
    expectContent(at('a.raw'), original);
    closeSync(fd);
    expectContent(at('c.raw'), patched(original, [0, filled(1, BLOCK)], [100_000, filled(5, 100_000)]));
    expect(run('ls', [mount.mountpoint]).stdout).toBe('a.raw\nc.raw\n');
  },
);
