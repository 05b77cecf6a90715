/** Mounts of an ordinary user through fusermount3: root runs these as nobody, anybody else as himself. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
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
  sha256,
  start,
  statusOf,
} from '../harness.ts';
import { needs, needsRoot, type Ordinary, ordinaryUser, said, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive } from './nothing-left-support.ts';

const BASE_BYTES = 1_000_001;

beforeEach((context) => {
  needs(context, 'fusermount3', 'runuser');
  skipUnless(
    context,
    (statSync('/dev/fuse').mode & 0o006) === 0o006,
    '/dev/fuse is not for all (chmod 0666 /dev/fuse)',
  );
  if (!isRoot()) return;
  const { status } = cowfs(['--version'], { user: 'nobody' });
  skipUnless(context, status === 0, `the user nobody cannot read ${COWFS}`);
});

function mounted(options: readonly string[] = []): Ordinary & { disk: string; base: string } {
  const user = ordinaryUser();
  const base = makeBase(user.directory, BASE_BYTES);
  return { ...user, base, disk: mountDisk(base, user.mountpoint, options, user.as).disk };
}

test('mount, use, status, unmount', async () => {
  const user = ordinaryUser();
  const base = makeBase(user.directory, BASE_BYTES);
  const before = await sha256(base);
  const { disk } = mountDisk(base, user.mountpoint, [], user.as);
  must('cmp', [base, disk], user.as);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=5000', 'count=100', 'seek=3', 'conv=notrunc', 'status=none'], user.as);
  must('truncate', ['-s', '2000000', disk], user.as);
  must('fallocate', ['-p', '-o', '4096', '-l', '4096', disk], user.as);
  expect(must('stat', ['-c', '%s %U', disk], user.as)).toBe(`2000000 ${must('id', ['-un'], user.as)}`);
  const status = statusOf(user.mountpoint, user.as);
  expect(status.disks[0]?.writtenBytes).toBeGreaterThan(400_000);
  expect(listMounts(user.as).map(({ mountpoint }) => mountpoint)).toEqual([user.mountpoint]);
  mustCowfs(['unmount', user.mountpoint], user.as);
  expect(isAlive(status.pid)).toBe(false);
  await expectNothingLeft(user.mountpoint, user.runtime);
  expect(await sha256(base)).toBe(before);
  expect(listMounts(user.as)).toEqual([]);
});

test('the daemon is the user’s own, and so is its state, for nobody else to see', () => {
  const { mountpoint, runtime, as } = mounted();
  const { pid } = statusOf(mountpoint, as);
  const uid = Number(must('id', ['-u'], as));
  expect(statSync(`/proc/${pid}`).uid).toBe(uid);
  for (const name of ['', ...readdirSync(runtime)]) {
    const { uid: owner, mode } = statSync(join(runtime, name));
    expect({ name, owner, open: mode & 0o077 & (name.endsWith('.sock') ? 0 : 0o077) }).toEqual({
      name,
      owner: uid,
      open: 0,
    });
  }
});

test('unmount refuses while the disk is open, and --force does it', async () => {
  const { mountpoint, runtime, disk, as } = mounted();
  const user = start(
    'sh',
    ['-c', 'echo $$; exec sleep 600 <"$0"', disk],
    as.user === undefined ? {} : { user: as.user },
  );
  const pid = Number(await said(user, '\n'));
  onTestFinished(() => {
    process.kill(pid, 'SIGKILL');
  });
  expectRefusal(cowfs(['unmount', mountpoint], as), 3, mountpoint, `pid ${pid}`, '--force');
  mustCowfs(['unmount', '--force', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
});

test('kill -9: the mountpoint is free within 2 s, by the watcher alone', async () => {
  const { mountpoint, runtime, as, base } = mounted();
  process.kill(statusOf(mountpoint, as).pid, 'SIGKILL');
  const freeMs = await expectNothingLeft(mountpoint, runtime);
  console.log(`kill -9 without root: mountpoint free after ${freeMs.toFixed(0)} ms`);
  mountDisk(base, mountpoint, [], as);
});

test('a dead mount without a watcher is cleaned up by the next mount', async () => {
  const { mountpoint, as, base } = mounted();
  const { pid } = statusOf(mountpoint, as);
  const watcher = Number(must('pgrep', ['-f', `cowfs-watcher .*${mountpoint} `]));
  process.kill(watcher, 'SIGKILL');
  process.kill(pid, 'SIGKILL');
  await poll('both are gone', () => !isAlive(pid) && !isAlive(watcher));
  const { disk } = mountDisk(base, mountpoint, [], as);
  must('cmp', [base, disk], as);
});

test('plain fusermount3 -u ends the daemon', async () => {
  const { mountpoint, runtime, as } = mounted();
  must('fusermount3', ['-u', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
});

test('run: the disk is in a place of the user’s own, and gone afterwards', async () => {
  const { directory, as, runtime } = ordinaryUser();
  const base = makeBase(directory, BASE_BYTES);
  const script = 'echo x | dd of="$0" conv=notrunc status=none; head -n1 "$0"; echo "$0"; exit 9';
  const { stdout, status } = cowfs(['run', base, '--', 'sh', '-c', script, '{}'], as);
  expect(status).toBe(9);
  const [written, disk = ''] = stdout.split('\n');
  expect(written).toBe('x');
  expect(disk.startsWith(`${runtime}/`)).toBe(true);
  await expectNothingLeft(join(disk, '..'), runtime);
});

test('without XDG_RUNTIME_DIR the state is in a directory of the user’s own in the temporary place', async () => {
  const { directory, mountpoint, as } = ordinaryUser();
  const env = { XDG_RUNTIME_DIR: '', TMPDIR: directory };
  const base = makeBase(directory, BASE_BYTES);
  mountDisk(base, mountpoint, [], { ...as, env });
  const [place = ''] = readdirSync(directory).filter((name) => name.startsWith('cowfs-'));
  expect(statSync(join(directory, place)).mode & 0o777).toBe(0o700);
  expect(statusOf(mountpoint, { ...as, env }).mountpoint).toBe(mountpoint);
  mustCowfs(['unmount', mountpoint], { ...as, env });
  await expectNothingLeft(mountpoint, join(directory, place));
});

test('nobody else sees the disk, not even root', (context) => {
  needsRoot(context);
  const { mountpoint, disk } = mounted();
  for (const options of [{ user: 'daemon' }, {}]) {
    for (const [program, ...args] of [
      ['cat', disk],
      ['ls', mountpoint],
      ['stat', disk],
    ]) {
      const { status, stderr } = run(program ?? '', args, { ...options, env: { LC_ALL: 'C' } });
      expect({ status: status !== 0, stderr }).toEqual({
        status: true,
        stderr: expect.stringContaining('Permission denied'),
      });
    }
  }
});

test('a place where another user has a disk is refused, and that disk goes on', (context) => {
  needsRoot(context);
  const { mountpoint, disk, base, as } = mounted();
  const result = cowfs(['mount', base, mountpoint]);
  expectRefusal(result, 3, mountpoint, 'mounted already');
  expect(mountsBelow(mountpoint)).toEqual([mountpoint]);
  must('cmp', [base, disk], as);
});

test('root can take a user’s mount away', async (context) => {
  needsRoot(context);
  const { mountpoint, runtime } = mounted();
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint, runtime);
});

test('--allow-other without leave in /etc/fuse.conf is refused, with what root has to put there', async (context) => {
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const allowed = run('grep', ['-qE', '^ *user_allow_other', '/etc/fuse.conf']).status === 0;
  skipUnless(context, !allowed, '/etc/fuse.conf has user_allow_other');
  const result = cowfs(['mount', '--allow-other', makeBase(directory, BASE_BYTES), mountpoint], as);
  expectRefusal(result, 4, '--allow-other', 'user_allow_other', '/etc/fuse.conf');
  await expectNothingLeft(mountpoint, runtime);
});
