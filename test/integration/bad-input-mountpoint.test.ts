/** Places that cannot be mounted on, or look so: refused in one line, or cleaned up and mounted. */
import { chownSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { COWFS, cowfs, makeBase, makeMountpoint, mountDisk, mustCowfs, scratch, start, statusOf } from '../harness.ts';
import { finish, NOBODY, needsRoot, ordinaryUser, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, leftAt } from './nothing-left-support.ts';

test('a mountpoint that is missing is refused', async () => {
  const directory = scratch();
  const mountpoint = join(directory, 'missing');
  expectRefusal(cowfs(['mount', makeBase(directory, 4096), mountpoint]), 2, mountpoint, 'mkdir -p');
  await expectNothingLeft(mountpoint);
});

test('a mountpoint below a missing directory is refused', async () => {
  const directory = scratch();
  const mountpoint = join(directory, 'missing/mnt');
  expectRefusal(cowfs(['mount', makeBase(directory, 4096), mountpoint]), 2, mountpoint, /mkdir -p|check the path/);
  await expectNothingLeft(mountpoint);
});

test('a mountpoint that is a file is refused', async () => {
  const directory = scratch();
  const mountpoint = join(directory, 'file');
  writeFileSync(mountpoint, 'content');
  expectRefusal(cowfs(['mount', makeBase(directory, 4096), mountpoint]), 2, mountpoint, 'not a directory', /give/);
  expect(readFileSync(mountpoint, 'utf8')).toBe('content');
  await expectNothingLeft(mountpoint);
});

test('a mountpoint that cowfs has already is refused by pid, through a link too, and goes on', async () => {
  const directory = scratch();
  const base = makeBase(directory, 4096);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  const { pid } = statusOf(mountpoint);
  const link = join(directory, 'link');
  symlinkSync(mountpoint, link);
  for (const place of [mountpoint, `${mountpoint}/`, link]) {
    expectRefusal(cowfs(['mount', base, place]), 3, mountpoint, `pid ${pid}`, 'cowfs unmount');
  }
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  expect(statusOf(mountpoint).pid).toBe(pid);
});

test('of many mounts of one place at once exactly one wins, and the others say who has it', async () => {
  const directory = scratch();
  const base = makeBase(directory, 4096);
  const mountpoint = makeMountpoint(directory);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  const results = await Promise.all(Array.from({ length: 6 }, () => finish(start(COWFS, ['mount', base, mountpoint]))));
  const losers = results.filter(({ status }) => status !== 0);
  expect(losers).toHaveLength(5);
  const { pid } = statusOf(mountpoint);
  for (const loser of losers) expectRefusal(loser, 3, mountpoint, `pid ${pid}`);
  expect(leftAt(mountpoint)).toHaveLength(4); // mount, entry, daemon, watcher
});

test('a mountpoint that contains the base is refused', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  mkdirSync(join(mountpoint, 'deeper'));
  const base = makeBase(join(mountpoint, 'deeper'), 4096);
  expectRefusal(cowfs(['mount', base, mountpoint]), 2, mountpoint, base, 'elsewhere');
  await expectNothingLeft(mountpoint);
  expect(readdirSync(mountpoint)).toEqual(['deeper']);
});

test('a mountpoint that contains the base behind a link is refused', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(mountpoint, 4096);
  const link = join(directory, 'link.img');
  symlinkSync(base, link);
  expectRefusal(cowfs(['mount', link, mountpoint]), 2, mountpoint, base);
  await expectNothingLeft(mountpoint);
});

test.each([
  ['store', ['--store']],
  ['log file', ['--log-file']],
])('a mountpoint that contains the %s is refused', async (what, [option = '']) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const inner = join(mountpoint, 'inner');
  if (option === '--store') mkdirSync(inner);
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, option, inner]);
  expectRefusal(result, 2, mountpoint, what, inner, 'elsewhere');
  await expectNothingLeft(mountpoint);
});

test.each([
  ['store', ['--store', 'link']],
  ['log file', ['--log-file', 'link/log']],
])('a %s that a link leads into the mountpoint is refused', async (what, [option = '', path = '']) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  mkdirSync(join(mountpoint, 'inner'));
  symlinkSync(join(mountpoint, 'inner'), join(directory, 'link'));
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, option, join(directory, path)]);
  expectRefusal(result, 2, mountpoint, what);
  await expectNothingLeft(mountpoint);
});

test('a mountpoint that this user may not use is refused', async (context) => {
  needsRoot(context);
  const { directory, runtime, as } = ordinaryUser();
  const mountpoint = scratch();
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint], as);
  expect(result.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(result.stderr).toContain(mountpoint);
  expect([2, 3, 4]).toContain(result.status);
  await expectNothingLeft(mountpoint, runtime);
});

test('something else mounted at the place is no obstacle, and is there again afterwards', (context) => {
  needsRoot(context);
  const directory = scratch();
  const mountpoint = tmpfs(directory, '1M', 'mnt');
  writeFileSync(join(mountpoint, 'below'), '');
  const disk = mustCowfs(['mount', makeBase(directory, 4096), mountpoint]).trim();
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(readFileSync(disk).length).toBe(4096);
  mustCowfs(['unmount', mountpoint]);
  expect(readdirSync(mountpoint)).toEqual(['below']);
});

test.each(['with blanks', 'com,ma', 'back\\slash', 'ümläut', 'new\nline', 'tab\there', '-dash', '%s#'])(
  'a mountpoint and a base called %j work',
  (name) => {
    const { directory, as } = ordinaryUser();
    const mountpoint = makeMountpoint(directory, name);
    const base = makeBase(directory, 5000, `${name}.img`);
    if (as.user !== undefined) chownSync(mountpoint, NOBODY, NOBODY);
    const { disk } = mountDisk(base, mountpoint, [], as);
    expect(disk).toBe(`${mountpoint}/disk.raw`);
    expect(statusOf(mountpoint, as)).toMatchObject({ mountpoint, base });
    mustCowfs(['unmount', mountpoint], as);
    expect(readdirSync(mountpoint)).toEqual([]);
  },
);
