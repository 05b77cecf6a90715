/** `bin/cowfs`, and a mount in the background that lets go of all that is its caller's. */
import { spawn } from 'node:child_process';
import { copyFileSync, readFileSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
  MAIN,
  makeBase,
  makeMountpoint,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { MIB } from './overlay-support.ts';

let directory = '';
let base = '';
let mountpoint = '';

beforeEach(() => {
  directory = scratch();
  base = makeBase(directory, MIB);
  mountpoint = makeMountpoint(directory);
  const place = mountpoint;
  onTestFinished(() => void cowfs(['unmount', '--force', place]));
});

/** Runs a line of bash whose `$cowfs`, `$base` and `$mnt` are what they say. */
function shell(line: string) {
  return run('bash', ['-c', line], { env: { cowfs: COWFS, base, mnt: mountpoint }, cwd: directory });
}

async function expectDisk(): Promise<void> {
  expect(readFileSync(join(mountpoint, 'disk.raw')).equals(readFileSync(base))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
}

test('locks and pipes of the caller are free when the caller is done', async () => {
  // The readers first: they would have the locks, too.
  const line = `
    mkfifo one other
    cat one >/dev/null & first=$!
    cat other >/dev/null & second=$!
    exec 5>one 150>other 4>lock 200>lock-200
    flock 4 && flock 200 && "$cowfs" mount "$base" "$mnt"
    exec 5>&- 150>&- 4>&- 200>&-
    flock -n lock true && flock -n lock-200 true && wait $first && wait $second && echo free`;
  expect(shell(line)).toEqual({ status: 0, stdout: `${mountpoint}/disk.raw\nfree\n`, stderr: '' });
  await expectDisk();
});

test('the daemon is a session of its own, in no directory that can be wanted, with nothing open at its standard streams', async () => {
  expect(shell('"$cowfs" mount "$base" "$mnt"').status).toBe(0);
  const pid = statusOf(mountpoint).pid;
  expect(
    must('ps', ['-o', 'sid=,tty=', '-p', String(pid)])
      .trim()
      .split(/\s+/),
  ).toEqual([String(pid), '?']);
  expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
  for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toBe('/dev/null');
  await expectDisk();
});

test.for(['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])('standard streams may be closed: %s', async (closed) => {
  expect(shell(`"$cowfs" mount "$base" "$mnt" ${closed}`)).toMatchObject({ status: 0, stderr: '' });
  await expectDisk();
});

test('the base may be standard input, or a descriptor', async () => {
  for (const [path, line] of [
    ['/dev/stdin', `0<"$base"`],
    ['/dev/fd/9', `9<"$base"`],
    ['/proc/self/fd/8', `8<"$base"`],
  ]) {
    expect(shell(`"$cowfs" mount ${path} "$mnt" ${line}`)).toMatchObject({ status: 0, stderr: '' });
    await expectDisk();
  }
});

test('options of the program may stand before the verb', async () => {
  expect(shell('"$cowfs" --verbose mount "$base" "$mnt"')).toMatchObject({ status: 0, stderr: '' });
  await expectDisk();
  expectRefusal(shell('"$cowfs" -v mount nothing "$mnt" 2>&1 >/dev/null | head -n 1 >&2; exit 2'), 2, 'nothing');
});

test('names that look like descriptors', async () => {
  const odd = makeMountpoint(directory, 'fd');
  for (const digit of '3456789') makeMountpoint(odd, digit);
  const roundabout = [...'456789'].map((digit) => `fd/${digit}/../..`).join('/');
  expect(shell(`"$cowfs" mount ${roundabout}/base.img fd/3 && "$cowfs" unmount fd/3`)).toMatchObject({
    status: 0,
    stderr: '',
  });
  await expectNothingLeft(odd);
});

test('it is found by way of links, by its name on the PATH, and by a shell', async () => {
  symlinkSync(COWFS, join(directory, 'linked'));
  symlinkSync('linked', join(directory, 'twice'));
  for (const command of [
    './linked',
    './twice',
    'PATH=$PWD:$PATH linked',
    'sh "$cowfs"',
    'cd "$(dirname "$cowfs")" && sh cowfs',
  ]) {
    expect(shell(`${command} mount "$base" "$mnt"`)).toMatchObject({ status: 0, stderr: '' });
    await expectDisk();
  }
});

test('a pipe that it shares blocks as before, whether it mounts or not', () => {
  const line = `
    flags() { awk '/^flags/ { print $2 }' /proc/self/fdinfo/1; }
    { flags; "$cowfs" mount "$base" "$mnt" >/dev/null; flags; "$cowfs" mount nothing "$mnt" 2>&1 >/dev/null; flags; } | cat`;
  const flags = shell(line).stdout.match(/^0\d+$/gm) ?? [];
  expect(flags).toHaveLength(3);
  expect(new Set(flags).size).toBe(1);
});

test('standard output that takes nothing is told, and the disk is there', async () => {
  const { status, stderr } = shell('"$cowfs" mount "$base" "$mnt" >/dev/full');
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/^cowfs: standard output: .*\n$/) });
  await expectDisk();
});

test('Ctrl-C at any time leaves the disk or nothing', async () => {
  for (const afterMs of [20, 100, 180, 260, 340, 420]) {
    // As a terminal does it: to the whole group.
    const child = spawn(COWFS, ['mount', base, mountpoint], { stdio: 'ignore', detached: true });
    await new Promise((wake) => setTimeout(wake, afterMs));
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGINT');
    const ended = await exitOf(child);
    if (ended === 0) cowfs(['unmount', mountpoint]);
    else expect(ended).toBe('SIGINT');
    await poll('nothing there', () => !must('ps', ['-eo', 'args=']).includes(mountpoint));
    await expectNothingLeft(mountpoint);
  }
});

test('Node by itself mounts in the foreground only, and says so', () => {
  expectRefusal(run(process.execPath, [MAIN, 'mount', base, mountpoint]), 2, 'bin/cowfs', '--foreground');
});

test('without Node on the PATH: one line that says so', () => {
  const nothing = { env: { ...process.env, PATH: makeMountpoint(directory, 'nothing') } };
  expectRefusal(run(COWFS, ['mount', base, mountpoint], nothing), 4, 'node', 'install Node.js');
  expectRefusal(run(COWFS, ['run', base, '--', 'true'], nothing), 125, 'node', 'install Node.js');
});

test('what run runs has the environment of the caller', () => {
  const file = join(directory, 'certificates.pem');
  copyFileSync(base, file);
  const line = `NODE_EXTRA_CA_CERTS=${file} "$cowfs" run "$base" -- sh -c 'echo "$NODE_EXTRA_CA_CERTS"'`;
  expect(shell(line).stdout).toBe(`${file}\n`);
});
