/** Machines that lack a part: exit code 4, one line that says which and how to get it, and nothing left behind. */
import { chmodSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { COWFS, cowfs, makeBase, makeMountpoint, must, type Result, run } from '../harness.ts';
import { needs, needsRoot, ordinaryUser } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

/** Runs a command line with a /dev of its own, in which is what Node wants and what `line` puts there. */
function withDev(directory: string, line: string, user: string, args: readonly string[]): Result {
  const dev = makeMountpoint(directory, 'dev');
  const script = `
    set -e
    mount -t tmpfs -o mode=755 none "$0"
    cd "$0"
    mknod -m 666 null c 1 3
    mknod -m 666 zero c 1 5
    mknod -m 666 random c 1 8
    mknod -m 666 urandom c 1 9
    ${line}
    mount --bind "$0" /dev
    cd /
    exec "$@"`;
  const command = user === 'root' ? args : ['runuser', '-u', user, '--', ...args];
  return run('unshare', ['--mount', 'sh', '-c', script, dev, ...command]);
}

test.for([
  { what: 'no /dev/fuse', line: '', user: 'root', code: 4, says: ['/dev/fuse', 'modprobe fuse'] },
  { what: 'no /dev/fuse', line: '', user: 'nobody', code: 4, says: ['fuse', 'cowfs doctor'] },
  {
    what: 'a /dev/fuse for root alone',
    line: 'mknod -m 600 fuse c 10 229',
    user: 'nobody',
    code: 4,
    says: ['/dev/fuse', 'chmod 0666'],
  },
  { what: 'a /dev/fuse that is a file', line: '>fuse', user: 'root', code: 1, says: ['cowfs doctor'] },
])('$what is told to $user', async ({ line, user, code, says }, context) => {
  needsRoot(context);
  const { directory, mountpoint, as } = ordinaryUser();
  const xdg = as.env?.['XDG_RUNTIME_DIR'] ?? '';
  const command = ['env', `XDG_RUNTIME_DIR=${xdg}`, COWFS];
  const result = withDev(directory, line, user, [...command, 'mount', makeBase(directory, 4096), mountpoint]);
  expectRefusal(result, code, ...says);
  await expectNothingLeft(mountpoint, user === 'root' ? undefined : join(xdg, 'cowfs'));
  const doctor = withDev(directory, line, user, [...command, 'doctor']);
  expect(doctor.status).toBe(4);
  expect(doctor.stdout).toMatch(/^missing +(\/dev\/fuse|mounting) /m);
});

test('no fusermount3 without root is told', async (context) => {
  needs(context, 'fusermount3');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const base = makeBase(directory, 4096);
  symlinkSync(process.execPath, join(directory, 'node'));
  const env = { ...as.env, PATH: directory };
  const node = (...args: string[]): Result =>
    as.user === undefined ? run(COWFS, args, { env }) : run('env', [`PATH=${directory}`, COWFS, ...args], as);
  expectRefusal(node('mount', base, mountpoint), 4, 'fusermount3', 'apt-get install fuse3');
  await expectNothingLeft(mountpoint, runtime);
  const doctor = node('doctor');
  expect(doctor.status).toBe(4);
  expect(doctor.stdout).toMatch(/^missing .*fusermount3.*apt-get install fuse3/m);
});

test('no place for the daemon to leave word is told', async (context) => {
  needsRoot(context);
  const { directory, mountpoint, as } = ordinaryUser();
  const closed = join(directory, 'closed');
  must('mkdir', ['-m', '755', closed]);
  const env = { XDG_RUNTIME_DIR: closed, TMPDIR: closed };
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', directory], { ...as, env });
  expectRefusal(result, 4, closed, 'XDG_RUNTIME_DIR');
  await expectNothingLeft(mountpoint);
});

test("a runtime directory that is another user's is not taken", async (context) => {
  needsRoot(context);
  const { directory, mountpoint, as } = ordinaryUser();
  const xdg = makeMountpoint(directory, 'foreign');
  must('mkdir', ['-m', '777', join(xdg, 'cowfs')]);
  writeFileSync(join(xdg, 'cowfs', 'planted.json'), '{}');
  chmodSync(xdg, 0o777);
  const env = { XDG_RUNTIME_DIR: xdg, TMPDIR: xdg };
  must('mkdir', ['-m', '777', join(xdg, 'cowfs-65534')]);
  const result = cowfs(['mount', makeBase(directory, 4096), mountpoint, '--store', directory], { ...as, env });
  expectRefusal(result, 4, xdg);
  await expectNothingLeft(mountpoint);
});
