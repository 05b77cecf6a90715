/** Mounts of an ordinary user through libfuse 2 and its set-uid helper: root runs these as nobody, others as themselves. */
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { mountAt } from '../../src/sys/mountinfo.ts';
import {
  COWFS,
  cowfs,
  isRoot,
  listMounts,
  makeBase,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  poll,
  run,
  statusOf,
} from '../harness.ts';
import { FUSE_NATIVE, mountAnywhere, needsFuseNative } from './fuse-native-support.ts';
import { needs, needsRoot, type Ordinary, ordinaryUser, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive } from './nothing-left-support.ts';

const BASE_BYTES = 1_000_001;
const HELPER = 'fusermount';
/** Where the libfuse that the package brings looks before the PATH. */
const FIRST_HELPER = `/usr/local/bin/${HELPER}`;

beforeEach((context) => {
  needsFuseNative(context);
  needs(context, HELPER, 'fusermount3', 'runuser');
  const isForAll = (statSync('/dev/fuse').mode & 0o006) === 0o006;
  skipUnless(context, isForAll, '/dev/fuse is not for all (chmod 0666 /dev/fuse)');
  if (!isRoot()) return;
  const { status } = cowfs(['--version'], { user: 'nobody' });
  skipUnless(context, status === 0, `the user nobody cannot read ${COWFS}`);
});

function mounted(options: readonly string[] = []): Ordinary & { disk: string; base: string; pid: number } {
  const user = ordinaryUser();
  const base = makeBase(user.directory, BASE_BYTES);
  const { disk } = mountDisk(base, user.mountpoint, [...FUSE_NATIVE, ...options], user.as);
  return { ...user, base, disk, pid: statusOf(user.mountpoint, user.as).pid };
}

test('mount, use, status, unmount', async () => {
  const { mountpoint, runtime, disk, base, pid, as } = mounted();
  must('cmp', [base, disk], as);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=5000', 'count=100', 'seek=3', 'conv=notrunc', 'status=none'], as);
  must('truncate', ['-s', '2000000', disk], as);
  must('touch', ['-d', '2001-02-03 04:05:06.789 UTC', disk], as);
  expect(must('stat', ['-c', '%s %U %Y', disk], as)).toBe(`2000000 ${must('id', ['-un'], as).trim()} 981173106\n`);
  const status = statusOf(mountpoint, as);
  expect(status).toMatchObject({ transport: 'fuse-native', threads: 1 });
  expect(status.disks[0]?.writtenBytes).toBeGreaterThan(400_000);
  expect(statSync(`/proc/${pid}`).uid).toBe(Number(must('id', ['-u'], as)));
  expect(listMounts(as).map((mount) => mount.mountpoint)).toEqual([mountpoint]);
  mustCowfs(['unmount', mountpoint], as);
  expect(isAlive(pid)).toBe(false);
  await expectNothingLeft(mountpoint, runtime);
});

test('nobody else sees the disk, not even root', (context) => {
  needsRoot(context);
  const { mountpoint, disk } = mounted();
  for (const options of [{ user: 'daemon' }, {}]) {
    for (const [program, path] of [
      ['cat', disk],
      ['ls', mountpoint],
      ['stat', disk],
    ] as const) {
      const { status, stderr } = run(program, [path], { ...options, env: { LC_ALL: 'C' } });
      expect(status).not.toBe(0);
      expect(stderr).toContain('Permission denied');
    }
  }
});

test('plain fusermount3 -u ends the daemon', async () => {
  const { mountpoint, runtime, pid, as } = mounted();
  must('fusermount3', ['-u', mountpoint], as);
  await poll('the daemon is gone', () => !isAlive(pid), 2000);
  await expectNothingLeft(mountpoint, runtime);
});

test('kill -9: the mountpoint is free within 2 s, by the watcher alone', async () => {
  const { mountpoint, runtime, pid, base, as } = mounted();
  process.kill(pid, 'SIGKILL');
  const freeMs = await expectNothingLeft(mountpoint, runtime);
  console.log(`kill -9 without root: mountpoint free after ${freeMs.toFixed(0)} ms`);
  mountDisk(base, mountpoint, FUSE_NATIVE, as);
});

test('run: exit code, and nothing is left', async () => {
  const { directory, runtime, as } = ordinaryUser();
  const base = makeBase(directory, BASE_BYTES);
  const script = 'echo x | dd of="$0" conv=notrunc status=none; head -n1 "$0"; echo "$0"; exit 9';
  const { stdout, stderr, status } = cowfs(['run', ...FUSE_NATIVE, base, '--', 'sh', '-c', script, '{}'], as);
  expect({ status, stderr }).toEqual({ status: 9, stderr: '' });
  const [written, disk = ''] = stdout.split('\n');
  expect(written).toBe('x');
  expect(existsSync(disk)).toBe(false);
  await expectNothingLeft(join(disk, '..'), runtime);
});

test.each([
  ['a,b', 'x,allow_other,y.img'],
  ["it's $(touch $CANARY) \\040", 'back\\slash, and "quotes".img'],
  ['größer\nzwei', 'größer.img'],
])('a mountpoint %j with a base %j go through the helper as they are', async (place, image) => {
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const inner = join(mountpoint, place);
  must('mkdir', ['--', inner], as);
  const base = makeBase(directory, 5000, image);
  const canary = join(directory, 'canary');
  const user = { ...as, env: { ...as.env, CANARY: canary } };
  const disk = mountAnywhere(base, inner, [], user);
  expect(mountAt(inner)).toMatchObject({ type: 'fuse.cowfs', source: base });
  expect(readFileSync('/proc/self/mounts', 'utf8')).not.toMatch(new RegExp(`${mountpoint}.*allow_other`, 'm'));
  must('cmp', [base, disk], user);
  expect(cowfs(['unmount', '--', inner], user)).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(existsSync(canary)).toBe(false);
  await expectNothingLeft(directory, runtime);
});

test('--allow-other without leave in /etc/fuse.conf is refused, with what root has to put there', async (context) => {
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const allowed = run('grep', ['-qE', '^ *user_allow_other', '/etc/fuse.conf']).status === 0;
  skipUnless(context, !allowed, '/etc/fuse.conf has user_allow_other');
  const base = makeBase(directory, BASE_BYTES);
  const result = cowfs(['mount', ...FUSE_NATIVE, '--allow-other', base, mountpoint], as);
  expectRefusal(result, 4, '--allow-other', 'user_allow_other', '/etc/fuse.conf');
  await expectNothingLeft(mountpoint, runtime);
});

test('a mountpoint without write access is refused in one line that names it', async (context) => {
  needsRoot(context);
  const { directory, runtime, as } = ordinaryUser();
  const base = makeBase(directory, BASE_BYTES);
  const mountpoint = join(directory, 'roots');
  mkdirSync(mountpoint, { mode: 0o755 });
  expectRefusal(cowfs(['mount', ...FUSE_NATIVE, base, mountpoint], as), 4, mountpoint, /write|permission/i);
  expect(mountsBelow(mountpoint)).toEqual([]);
  chmodSync(mountpoint, 0o777);
  const { disk } = mountDisk(base, mountpoint, FUSE_NATIVE, as);
  must('cmp', [base, disk], as);
  mustCowfs(['unmount', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
});

test('without libfuse 2’s helper on the PATH: one line that says so, nothing mounted; the kernel transport works', async (context) => {
  skipUnless(context, !existsSync(FIRST_HELPER), `${FIRST_HELPER} is there whatever the PATH`);
  const system = run('/sbin/ldconfig', ['-p']).stdout.includes('libfuse.so.2 ');
  skipUnless(context, !system, 'the libfuse 2 of this system knows where its helper is');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const base = makeBase(directory, BASE_BYTES);
  const programs = join(directory, 'programs');
  mkdirSync(programs);
  for (const name of ['fusermount3', 'node', 'sh', 'env', 'runuser']) {
    symlinkSync(must('sh', ['-c', `command -v ${name}`]).trim(), join(programs, name));
  }
  const bare = { ...as, env: { ...as.env, PATH: programs } };
  const result = cowfs(['mount', ...FUSE_NATIVE, base, mountpoint], bare);
  expectRefusal(result, 4, mountpoint, 'fusermount', '--transport kernel');
  expect(mountsBelow(mountpoint)).toEqual([]);
  await expectNothingLeft(mountpoint, runtime);
  const { disk } = mountDisk(base, mountpoint, [], bare);
  must('cmp', [base, disk], as);
});
