/** Help, version and doctor: what a person meets first. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, mountsBelow, mustCowfs, scratch } from '../harness.ts';
import { ordinaryUser } from './machine-support.ts';

const VERBS = ['mount', 'run', 'unmount', 'list', 'status', 'doctor'];

test.each(VERBS)('`%s --help` explains it with examples', (verb) => {
  const { stdout, stderr, status } = cowfs([verb, '--help']);
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  expect(stdout).toContain(`Usage: cowfs ${verb}`);
  expect(stdout).toMatch(new RegExp(`\\nExamples:\\n(  .*\\n)*  cowfs ${verb}`));
  expect(cowfs(['help', verb]).stdout).toBe(stdout);
  expect(cowfs([verb, '-h']).stdout).toBe(stdout);
});

test('--help lists the verbs, with examples', () => {
  const { stdout, stderr, status } = cowfs(['--help']);
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  for (const verb of VERBS) expect(stdout).toMatch(new RegExp(`^  ${verb}\\b.* {2,}\\w`, 'm'));
  expect(stdout).toContain('\nExamples:\n');
});

test('every option of the issue is in the help of mount, and of run', () => {
  const options = [
    ...['store', 'name', 'size', 'cache', 'threads', 'read-only', 'allow-other', 'max-store', 'log-file'],
    ...['log-level', 'trace', 'force'],
  ];
  for (const verb of ['mount', 'run']) {
    const help = mustCowfs([verb, '--help']);
    for (const option of options) expect(help).toMatch(new RegExp(`^  --${option}\\b.* {2,}\\w`, 'm'));
  }
  expect(mustCowfs(['mount', '--help'])).toContain('--foreground');
});

test('--version is the one of package.json', () => {
  const manifest = JSON.parse(readFileSync(resolve(import.meta.dirname, '../../package.json'), 'utf8')) as {
    version: string;
  };
  for (const flag of ['--version', '-V']) expect(mustCowfs([flag])).toBe(`${manifest.version}\n`);
});

test('doctor finds all it needs here, and leaves nothing', () => {
  const { stdout, stderr, status } = cowfs(['doctor']);
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  const subjects = ['node', '/dev/fuse', 'fusermount3', 'mounting', 'store', 'reflink', 'passthrough', 'limit', 'qemu'];
  for (const subject of subjects) expect(stdout).toContain(subject);
  for (const line of stdout.trimEnd().split('\n')) expect(line).toMatch(/^(ok|note) +\S.* {2,}\S/);
  expect(mountsBelow('/run/cowfs')).toEqual(mountsBelow('/run/cowfs').filter((at) => !at.includes('doctor')));
});

test('doctor does its checks as an ordinary user, too', () => {
  const { as } = ordinaryUser();
  const { stdout, status } = cowfs(['doctor'], as);
  expect(stdout).toMatch(/^ok +mounting +works/m);
  expect(status).toBe(0);
});

test('doctor --json is an array of checks', () => {
  const checks: unknown = JSON.parse(mustCowfs(['doctor', '--json']));
  expect(checks).toContainEqual({ check: '/dev/fuse', finding: 'ok', detail: expect.any(String) });
});

test('doctor exits with 4 when the store cannot be used, and says what to do', () => {
  const store = join(scratch(), 'missing');
  const { stdout, status } = cowfs(['doctor', '--store', store]);
  expect(status).toBe(4);
  expect(stdout).toMatch(new RegExp(`^missing +store +.*${store}.*--store`, 'm'));
});

test('--verbose adds the stack to the message', () => {
  const { stderr, status } = cowfs(['--verbose', 'mount', '/no/such.img', scratch()]);
  expect(status).toBe(2);
  expect(stderr).toMatch(/^cowfs: base \/no\/such\.img: [^\n]+\n(.*\n)* +at /);
});
