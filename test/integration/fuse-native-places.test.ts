/**
 * Through fuse-native, mountpoints and bases with names that shells, options or tables would take apart: mounted as they
 * are, and gone by each way of unmounting.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { mountAt } from '../../src/sys/mountinfo.ts';
import { cowfs, makeBase, makeMountpoint, must, poll, run, scratch, statusOf } from '../harness.ts';
import { mountAnywhere, needsFuseNative } from './fuse-native-support.ts';
import { needs, needsRoot } from './machine-support.ts';
import { expectNothingLeft, isAlive } from './nothing-left-support.ts';

beforeEach(needsFuseNative);

const NAMES = [
  'with blanks  two',
  "it's",
  'say "hello"',
  '$HOME',
  '$(touch $CANARY)',
  '`touch $CANARY`',
  '"; touch $CANARY; "',
  "'; touch $CANARY; '",
  'back\\slash\\',
  '\\040\\134',
  'a,b,allow_other',
  'tab\tand\nnewline',
  '-o',
  '日本 größer',
  '%s{}*?~#!&|<>',
];

test('a shell that read such a name would be noticed', () => {
  const canary = join(scratch(), 'canary');
  for (const name of NAMES.filter((text) => text.includes('$CANARY'))) {
    const quote = name.startsWith("'") ? "'" : '"';
    run('sh', ['-c', `: ${quote}${name}${quote}`], { env: { CANARY: canary } });
    expect(existsSync(canary), name).toBe(true);
    rmSync(canary);
  }
});

const WAYS: readonly (readonly [program: string, ...args: string[]])[] = [
  ['cowfs', 'unmount', '--'],
  ['umount', '--'],
  ['fusermount3', '-u', '--'],
];

test.for(NAMES.map((name) => [name] as const))('a mountpoint %j, unmounted in every way', async ([name], context) => {
  needsRoot(context);
  needs(context, 'umount', 'fusermount3');
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory, name);
  const canary = join(directory, 'canary');
  const as = { env: { CANARY: canary } };
  for (const [program, ...args] of WAYS) {
    expect(mountAnywhere(base, mountpoint, [], as)).toBe(join(mountpoint, 'disk.raw'));
    expect(mountAt(mountpoint)).toMatchObject({ type: 'fuse.cowfs', source: base });
    const disk = join(mountpoint, 'disk.raw');
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    writeFileSync(disk, 'written', { flag: 'r+' });
    expect(readFileSync(disk).subarray(0, 7).toString()).toBe('written');
    const { pid } = statusOf(mountpoint);
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toContain(`CANARY=${canary}\0`);
    if (program === 'cowfs') expect(cowfs([...args, mountpoint], as)).toEqual({ status: 0, stdout: '', stderr: '' });
    else must(program, [...args, mountpoint], as);
    await poll(`the daemon is gone after ${program}`, () => !isAlive(pid), 2000);
    expect(mountAt(mountpoint)).toBe(undefined);
    await expectNothingLeft(directory);
    // No shell has read the name: the touch in it would have left this.
    expect(existsSync(canary)).toBe(false);
  }
});

test.each(['a,b.img', 'back\\slash.img', ',ro,x=\\,\\\\', 'blanks and "quotes" \'.img', '-oallow_other', 'größer.img'])(
  'a base %j: is the mount’s source as it is, and adds no option',
  async (name) => {
    const directory = scratch();
    const place = join(directory, 'in, a \\ place');
    mkdirSync(place);
    const base = makeBase(place, 5000, name);
    const mountpoint = makeMountpoint(directory);
    mountAnywhere(base, mountpoint, []);
    expect(mountAt(mountpoint)).toMatchObject({ type: 'fuse.cowfs', source: base });
    const [, options = ''] =
      new RegExp(` ${mountpoint} fuse\\.cowfs (\\S+)`).exec(readFileSync('/proc/self/mounts', 'utf8')) ?? [];
    expect(options).toMatch(/^rw,nosuid,nodev,/);
    expect(options).not.toContain('allow_other');
    expect(statusOf(mountpoint).base).toBe(base);
    const disk = join(mountpoint, 'disk.raw');
    writeFileSync(disk, 'x', { flag: 'r+' });
    expect(readFileSync(disk).subarray(1).equals(readFileSync(base).subarray(1))).toBe(true);
    expect(cowfs(['unmount', mountpoint]).status).toBe(0);
    await expectNothingLeft(directory);
  },
);

test('a mountpoint of any length that a path can have is mounted or refused in one line', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  let mountpoint = directory;
  while (mountpoint.length < 1024) {
    mountpoint = join(mountpoint, 'x'.repeat(Math.min(200, Math.max(1, 1022 - mountpoint.length))));
    mkdirSync(mountpoint);
    if (mountpoint.length > 1023) break;
    mountAnywhere(base, mountpoint, []);
    expect(readFileSync(join(mountpoint, 'disk.raw')).equals(readFileSync(base))).toBe(true);
    expect(cowfs(['unmount', mountpoint]).status).toBe(0);
  }
  const { status, stderr, stdout } = cowfs(['mount', '--transport', 'fuse-native', base, mountpoint]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^cowfs: mountpoint [^\n]*at most 1023 bytes[^\n]*\n$/);
  await expectNothingLeft(directory);
});
