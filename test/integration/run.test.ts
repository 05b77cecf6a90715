/** `cowfs run`: what the command gets, what comes of it, and that all it wrote is gone afterwards. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { COWFS, cowfs, makeBase, must, mustCowfs, type Result, scratch, sha256, start } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { finish, needs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, processesNaming } from './nothing-left-support.ts';

/** Runs a shell script on the disk of a fresh base; `$0` in it is the disk. */
function runScript(script: string, options: readonly string[] = []): Result {
  return cowfs(['run', ...options, makeBase(scratch(), 100_001), '--', 'sh', '-c', script, '{}']);
}

/** Whether nothing of the private place of a disk is left. */
async function expectGone(disk: string): Promise<void> {
  expect(disk).toMatch(/^\/.*\/disk\.raw$/);
  expect(existsSync(dirname(disk))).toBe(false);
  await expectNothingLeft(dirname(disk));
}

test('{} in the arguments is the disk, wherever it stands, and COWFS_DISK says the same', async () => {
  const base = makeBase(scratch(), 100_001);
  const script = 'printf "%s\\n" "$COWFS_DISK" "$@"';
  const words = ['{}', 'file={},format=raw', '{}{}', '{ }', 'plain', ''];
  const lines = mustCowfs(['run', base, '--', 'sh', '-c', script, 'name', ...words]).split('\n');
  const disk = lines[0] ?? '';
  expect(lines.slice(1, -1)).toEqual([disk, `file=${disk},format=raw`, disk + disk, '{ }', 'plain', '']);
  await expectGone(disk);
});

test('the command reads the base, writes to the disk, and the base is as before', async () => {
  const base = makeBase(scratch(), 100_001);
  const before = await sha256(base);
  const script = `cmp "$0" ${base} && echo changed | dd of="$0" conv=notrunc status=none && head -c 8 "$0" && echo "$0"`;
  const [changed, disk = ''] = mustCowfs(['run', base, '--', 'sh', '-c', script, '{}']).split('\n');
  expect(changed).toBe('changed');
  expect(await sha256(base)).toBe(before);
  await expectGone(disk);
});

test.each([0, 1, 7, 124, 125, 126, 127, 255])('exit code %i is passed on', (code) => {
  expect(runScript(`exit ${code}`)).toEqual({ status: code, stdout: '', stderr: '' });
});

test.each([
  ['TERM', 143],
  ['KILL', 137],
  ['SEGV', 139],
  ['HUP', 129],
])('a command that SIG%s ends gives %i', async (signal, code) => {
  const { status, stdout, stderr } = runScript(`echo "$0"; kill -${signal} $$`);
  expect({ status, stderr }).toEqual({ status: code, stderr: '' });
  await expectGone(stdout.trim());
});

test.for(['kernel', 'fuse-native'])('over %s the disk itself is no program: 126', (transport, context) => {
  if (transport === 'fuse-native') needsFuseNative(context);
  const directory = scratch();
  const args = ['run', makeBase(directory, 5000), '--transport', transport, '--', '{}'];
  expectRefusal(cowfs(args), 126, 'no program');
  expect(processesNaming(directory)).toEqual([]);
});

test('a command that is not there is 127, one that cannot be run 126, a disk that cannot be made 125', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const plain = join(directory, 'plain');
  writeFileSync(plain, 'no program');
  chmodSync(plain, 0o644);
  // A directory in PATH that this user may not search would make it "permission denied" (execvp(3)).
  const env = { PATH: '/usr/bin:/bin' };
  expectRefusal(cowfs(['run', base, '--', 'no-such-command', '{}'], { env }), 127, 'no-such-command: no such file');
  expectRefusal(cowfs(['run', base, '--', join(directory, 'none')]), 127, join(directory, 'none'));
  expectRefusal(cowfs(['run', base, '--', plain]), 126, plain);
  expectRefusal(cowfs(['run', base, '--', directory]), 126, directory);
  expectRefusal(cowfs(['run', join(directory, 'no.img'), '--', 'true']), 125, join(directory, 'no.img'));
  expectRefusal(cowfs(['run', base, '--size', 'abc', '--', 'true']), 125, '--size');
  expectRefusal(cowfs(['run', base, '--store', join(directory, 'none'), '--', 'true']), 125, 'store');
  expect(processesNaming(directory)).toEqual([]);
});

test('standard input, output and error are the command’s own', () => {
  const base = makeBase(scratch(), 5000);
  const input = Buffer.alloc(300_000, 'some input\n').toString();
  const args = ['run', base, '--', 'sh', '-c', 'cat; echo to stderr >&2'];
  expect(cowfs(args, { input })).toEqual({ status: 0, stdout: input, stderr: 'to stderr\n' });
});

test('directory and environment are the caller’s', () => {
  const directory = scratch();
  makeBase(directory, 5000);
  const script = 'pwd; echo $MINE';
  const { stdout } = cowfs(['run', 'base.img', '--', 'sh', '-c', script], { cwd: directory, env: { MINE: 'yes' } });
  expect(stdout).toBe(`${directory}\nyes\n`);
});

test.each([
  ['before the base', ['--name', 'a.img', 'BASE', '--', 'sh']],
  ['after the base', ['BASE', '--name', 'a.img', '--', 'sh']],
  ['on both sides', ['--cache', 'none', 'BASE', '--name=a.img', '--', 'sh']],
])('options stand %s; those after -- are the command’s', (_where, args) => {
  const base = makeBase(scratch(), 5000);
  const line = args.map((word) => (word === 'BASE' ? base : word));
  const script = 'basename "$0"; printf "%s " "$@"';
  const { stdout, status } = cowfs(['run', ...line, '-c', script, '{}', '--name', 'b', '--', '--help', '-v']);
  expect({ stdout, status }).toEqual({ stdout: 'a.img\n--name b -- --help -v ', status: 0 });
});

test('the options of the disk count', () => {
  expect(runScript('wc -c <"$0"', ['--size', '1M']).stdout.trim()).toBe('1048576');
  expect(runScript('echo x >"$0"', ['--read-only']).stderr).toMatch(/Read-only|ead-only/i);
  const full = runScript('dd if=/dev/zero of="$0" bs=64k count=4', ['--cache', 'none', '--max-store', '64K']);
  expect(full.stderr).toContain('No space left');
  expect(full.status).toBe(1);
});

test('warnings about the base come on standard error, before the command', () => {
  const directory = scratch();
  const base = join(directory, 'image');
  writeFileSync(base, Buffer.from('QFI\xfb with something behind', 'latin1'));
  const { stderr, stdout } = cowfs(['run', base, '--', 'echo', 'done']);
  expect(stderr).toMatch(/^cowfs: warning: [^\n]*qcow2[^\n]*\n$/);
  expect(stdout).toBe('done\n');
});

test('two at once over one base are apart, and one knows nothing of the other’s writes', async () => {
  const base = makeBase(scratch(), 100_000);
  const script = 'echo "$1" | dd of="$0" conv=notrunc status=none; sync; head -c 4 "$0"';
  const results = await Promise.all(
    ['one', 'two', 'six'].map((word) => finish(start(COWFS, ['run', base, '--', 'sh', '-c', script, '{}', word]))),
  );
  expect(results.map(({ stdout }) => stdout)).toEqual(['one\n', 'two\n', 'six\n']);
});

test('a file system made on the disk is sound', (context) => {
  needs(context, 'mkfs.ext4', 'fsck.ext4');
  const base = makeBase(scratch(), 8 * 1024 * 1024);
  const script = 'PATH=$PATH:/sbin:/usr/sbin; mkfs.ext4 -qF "$0" && fsck.ext4 -fn "$0"';
  expect(cowfs(['run', base, '--', 'sh', '-c', script, '{}']).status).toBe(0);
});

test('QEMU’s tools take the disk', (context) => {
  needs(context, 'qemu-io', 'qemu-img');
  const base = makeBase(scratch(), 1_000_448);
  const before = readFileSync(base);
  const script =
    'qemu-io -f raw -c "write -P 3 4k 64k" -c "discard 0 4k" -c "read -P 3 4k 64k" "$0" && qemu-img info "$0"';
  const { stdout, status } = cowfs(['run', base, '--', 'sh', '-c', script, '{}']);
  expect({ status }).toEqual({ status: 0 });
  expect(stdout).toContain('file format: raw');
  expect(stdout).not.toContain('failed');
  expect(readFileSync(base).equals(before)).toBe(true);
});

test('a command that leaves its child on the disk does not keep run, nor the disk', async () => {
  const { stdout, status } = runScript('sleep 600 <"$0" >/dev/null 2>&1 & echo $! "$0"');
  expect(status).toBe(0);
  const [pid = '', disk = ''] = stdout.trim().split(' ');
  await expectGone(disk);
  must('kill', ['-9', pid]);
});
