/** Sessions of users without root, and of several users in one mount. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import {
  cowfs,
  isRoot,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { NOBODY, needs, needsRoot, ordinaryUser, skipUnless } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { mountSessions, TRANSPORT_MODES, WRITEBACK } from './sessions-support.ts';

beforeEach((context) => {
  needs(context, 'fusermount3', 'runuser');
  skipUnless(
    context,
    (statSync('/dev/fuse').mode & 0o006) === 0o006,
    '/dev/fuse is not for all (chmod 0666 /dev/fuse)',
  );
  if (!isRoot()) return;
  const { status } = cowfs(['--version'], { user: 'nobody' });
  skipUnless(context, status === 0, 'the user nobody cannot read the project');
});

test.for(TRANSPORT_MODES)(
  '$name: an ordinary user makes, forks, resets, renames and removes disks',
  async ({ transport }, context) => {
    if (transport === 'fuse-native') needs(context, 'fusermount');
    const { directory, mountpoint, as } = ordinaryUser();
    const base = makeBase(directory, 300_001);
    const { disk } = mountDisk(base, mountpoint, ['--transport', transport], as);
    const at = (name: string): string => join(mountpoint, name);
    must('mkdir', [at('job')], as);
    must('touch', [at('a.raw'), at('job/b.raw')], as);
    must('cmp', [base, at('job/b.raw')], as);
    must('dd', ['if=/dev/zero', `of=${at('a.raw')}`, 'bs=5000', 'count=3', 'conv=notrunc', 'status=none'], as);
    mustCowfs(['fork', at('a.raw'), at('job/c.raw')], as);
    must('cmp', [at('a.raw'), at('job/c.raw')], as);
    mustCowfs(['snapshot', at('a.raw'), 'one'], as);
    mustCowfs(['reset', at('a.raw')], as);
    must('cmp', [base, at('a.raw')], as);
    mustCowfs(['rollback', at('a.raw'), 'one'], as);
    must('cmp', [at('a.raw'), at('job/c.raw')], as);
    must('mv', [at('job/c.raw'), at('a.raw')], as);
    const owner = must('id', ['-un'], as).trim();
    expect(must('stat', ['-c', '%U', disk, at('a.raw'), at('job/b.raw'), at('job')], as)).toBe(`${owner}\n`.repeat(4));
    if (transport === 'kernel') expect(must('cat', [at('.cowfs/status.json')], as)).toContain('"job/b.raw"');
    must('rm', ['-r', at('job'), at('a.raw')], as);
    await poll('nothing is left', () => statusOf(mountpoint, as).disks.length === 1);
    expect(statusOf(mountpoint, as).store.occupiedBytes).toBe(0);
    must('cmp', [base, disk], as);
  },
);

test('another user’s mount is not ours to fork or reset, nor to look into', (context) => {
  needsRoot(context);
  const { mountpoint, disk, at } = mountSessions(WRITEBACK, context, ['--allow-other']);
  const other = { user: 'nobody', env: { XDG_RUNTIME_DIR: undefined } };
  for (const args of [
    ['fork', disk, at('b.raw')],
    ['reset', disk],
    ['snapshot', disk, 'one'],
    ['rollback', disk, 'one'],
    ['status', mountpoint],
  ]) {
    expectRefusal(cowfs(args, other), 2, mountpoint);
  }
});

test('--allow-other: others make no disk in the root, but in a directory that is theirs to write; it is theirs', (context) => {
  needsRoot(context);
  const { mountpoint, at, base, disk } = mountSessions(WRITEBACK, context, ['--allow-other']);
  const nobody = { user: 'nobody', env: { LC_ALL: 'C' } };
  for (const [program, ...args] of [
    ['touch', at('x.raw')],
    ['mkdir', at('job')],
    ['rm', '-f', disk],
    ['mv', disk, at('x.raw')],
  ]) {
    expect(run(program ?? '', args, nobody).stderr).toContain('Permission denied');
  }
  must('mkdir', ['-m', '777', at('shared')]);
  must('touch', [at('shared/a.raw')], nobody);
  expect(statSync(at('shared/a.raw'))).toMatchObject({ uid: NOBODY, gid: NOBODY });
  must('cmp', [base, at('shared/a.raw')], nobody);
  must(
    'sh',
    ['-c', 'umask 077; : >> "$0"; echo hello | dd of="$0" conv=notrunc status=none', at('shared/b.raw')],
    nobody,
  );
  expect(statSync(at('shared/b.raw')).mode).toBe(0o100600);
  expect(run('cat', [at('shared/b.raw')], { user: 'daemon', env: { LC_ALL: 'C' } }).stderr).toContain(
    'Permission denied',
  );
  must('chmod', ['1777', at('shared')]);
  expect(run('rm', ['-f', at('shared/b.raw')], { user: 'daemon', env: { LC_ALL: 'C' } }).stderr).toContain(
    'not permitted',
  );
  must('rm', [at('shared/b.raw')], nobody);
  // A fork is made by the mount's owner, and is whose the first one is.
  mustCowfs(['fork', at('shared/a.raw'), at('fork.raw')]);
  expect(statSync(at('fork.raw'))).toMatchObject({ uid: NOBODY, mode: statSync(at('shared/a.raw')).mode });
  expect(must('cat', [at('.cowfs/status.json')], nobody)).toContain(mountpoint);
});

test('without --allow-other nobody else sees .cowfs either', (context) => {
  needsRoot(context);
  const { at } = mountSessions(WRITEBACK, context);
  expect(run('cat', [at('.cowfs/status.json')], { user: 'nobody', env: { LC_ALL: 'C' } }).stderr).toContain(
    'Permission denied',
  );
});

test('a directory with the set-group-id bit hands its group on, as elsewhere', (context) => {
  needsRoot(context);
  const { at } = mountSessions(WRITEBACK, context, ['--allow-other']);
  must('mkdir', [at('team')]);
  must('chgrp', ['1234', at('team')]);
  must('chmod', ['2777', at('team')]);
  must('touch', [at('team/a.raw')], { user: 'nobody' });
  const plain = makeMountpoint(scratch(), 'team');
  must('chgrp', ['1234', plain]);
  must('chmod', ['2777', plain]);
  must('touch', [join(plain, 'a.raw')]);
  expect(statSync(at('team/a.raw')).gid).toBe(statSync(join(plain, 'a.raw')).gid);
});
