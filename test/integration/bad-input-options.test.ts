/** Options and arguments that make no sense: one line that names them, exit code 2, and nothing happens. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, type Result, scratch } from '../harness.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

const BASE_BYTES = 100_000;

const ABSURD: readonly (readonly [option: string, value: string, says: string | RegExp])[] = [
  ['--size', '0', /larger/],
  ['--size', '99999', /larger/],
  ['--size', '1K', /larger/],
  ['--size', '99999P', /20G|too large/],
  ['--size', '8P', /too large|20G/],
  ['--size', 'abc', '20G'],
  ['--size', '-5', '20G'],
  ['--size', '', '20G'],
  ['--size', '1e9', '20G'],
  ['--size', '10X', '20G'],
  ['--size', 'NaN', '20G'],
  ['--size', '0x100000', '20G'],
  ['--threads', '0', /from \d+ to 64/],
  ['--threads', '65', /from \d+ to 64/],
  ['--threads', 'abc', /from \d+ to 64/],
  ['--threads', '-3', /from \d+ to 64/],
  ['--threads', '3.5', /from \d+ to 64/],
  ['--threads', '99999999999999999999', /from \d+ to 64/],
  ['--max-store', 'abc', '20G'],
  ['--max-store', '-1', '20G'],
  ['--enospc-timeout', 'abc', '30s'],
  ['--enospc-timeout', '-1s', '30s'],
  ['--enospc-timeout', '99999h', '30s'],
  ['--name', '', 'file name'],
  ['--name', '.', 'file name'],
  ['--name', '..', 'file name'],
  ['--name', 'a/b', 'file name'],
  ['--name', '/disk', 'file name'],
  ['--name', 'x'.repeat(300), 'file name'],
  ['--name', 'ü'.repeat(128), 'file name'],
];

test.each(ABSURD)('%s %j is refused', async (option, value, says) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const result = cowfs(['mount', makeBase(directory, BASE_BYTES), mountpoint, option, value]);
  expectRefusal(result, 2, option, says);
  await expectNothingLeft(mountpoint);
});

test('a log file in a missing directory is refused', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const log = join(directory, 'missing/log');
  for (const more of [[], ['--foreground'], ['--trace']]) {
    const result = cowfs(['mount', makeBase(directory, BASE_BYTES), mountpoint, '--log-file', log, ...more]);
    expectRefusal(result, 2, log, '--log-file', 'writable');
    await expectNothingLeft(mountpoint);
  }
});

test('a log file that is a directory is refused', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const result = cowfs(['mount', makeBase(directory, BASE_BYTES), mountpoint, '--log-file', directory]);
  expectRefusal(result, 2, directory, '--log-file');
  await expectNothingLeft(mountpoint);
});

/** What the parser of the command line finds itself: a line that names it, and hints in brackets. */
function expectUsageError({ stdout, stderr, status }: Result, names: string): void {
  const [first = '', ...hints] = stderr.trimEnd().split('\n');
  expect(first).toMatch(/^(cowfs|error): /);
  expect(first).toContain(names);
  for (const hint of hints) expect(hint).toMatch(/^\((Did you mean .*|see cowfs --help)\)$/);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
}

const MISUSES: readonly (readonly [args: string, names: string])[] = [
  ['mount BASE MOUNTPOINT --frobnicate', '--frobnicate'],
  ['--frobnicate', '--frobnicate'],
  ['frobnicate', 'frobnicate'],
  ['mnt BASE MOUNTPOINT', 'mnt'],
  ['mount', 'base'],
  ['mount BASE', 'mountpoint'],
  ['mount BASE MOUNTPOINT surplus', 'mount'],
  ['mount BASE MOUNTPOINT --store', '--store'],
  ['mount BASE MOUNTPOINT --cache sometimes', 'sometimes'],
  ['mount BASE MOUNTPOINT --log-level loud', 'loud'],
  ['mount BASE MOUNTPOINT --aio native', 'auto, io_uring, threads'],
  ['run BASE', 'command'],
  ['run BASE --', 'command'],
  ['run', 'base'],
  ['unmount', 'mountpoint'],
  ['list --frobnicate', '--frobnicate'],
  ['status --frobnicate', '--frobnicate'],
  ['doctor --frobnicate', '--frobnicate'],
];

test.each(MISUSES)('`cowfs %s` is refused', async (line, names) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, BASE_BYTES);
  const args = line.split(' ').map((word) => ({ BASE: base, MOUNTPOINT: mountpoint })[word] ?? word);
  expectUsageError(cowfs(args), names);
  await expectNothingLeft(mountpoint);
});

test('cowfs alone shows its help and fails', () => {
  const { status, stderr } = cowfs([]);
  expect(status).toBe(2);
  expect(stderr).toContain('Usage: cowfs');
});

test.each([
  ['unmount', 'missing', /no cowfs mount|does not exist|check the path/],
  ['unmount', 'mnt', 'cowfs list'],
  ['status', 'missing', /cowfs mount|does not exist|check the path/],
  ['status', 'mnt', 'cowfs list'],
])('`cowfs %s` of a place that is %s is refused', (verb, name, says) => {
  const directory = scratch();
  makeMountpoint(directory);
  expectRefusal(cowfs([verb, join(directory, name)]), 2, join(directory, name), says);
});
