/**
 * Commands whose output nobody reads to its end, as before `head`, or that has no room: they come to their end, and say by
 * their exit code what they would have said otherwise.
 */
import { closeSync, copyFileSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { faultyBase, mountOver } from '../fault/faulty-base.ts';
import {
  COWFS,
  cowfs,
  exitOf,
  makeBase,
  makeMountpoint,
  mountsBelow,
  mustCowfs,
  poll,
  type Result,
  run,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import { finish, needsRoot } from './machine-support.ts';
import { BLOCK, keptDisk, MIB, unmounted } from './overlay-support.ts';
import { expectContent, filled, mountSessions, put, WRITEBACK } from './sessions-support.ts';

/** Its exit code, and what standard error has, when standard output goes there. */
function piped(into: string, args: readonly string[]): Omit<Result, 'stdout'> {
  const script = `"$0" "$@" ${into}; exit "\${PIPESTATUS[0]}"`;
  const { status, stderr } = run('bash', ['-c', script, COWFS, ...args]);
  return { status, stderr };
}

function expectAsWithReader(args: readonly string[]): void {
  const { status, stderr } = cowfs(args);
  for (const into of ['| true', '| head -c 1 >/dev/null']) {
    expect({ args, into, ...piped(into, args) }).toEqual({ args, into, status, stderr });
  }
}

test('help, version and completion', () => {
  for (const args of [
    ['--help'],
    ['help', 'run'],
    ['run', '--help'],
    ['mount', '--help'],
    ['-V'],
    ['completion', 'bash'],
  ]) {
    expect(cowfs(args).status).toBe(0);
    expectAsWithReader(args);
  }
});

test('what tells of mounts', () => {
  const { disk, mountpoint } = mountSessions(WRITEBACK, undefined);
  mustCowfs(['snapshot', disk, 'before']);
  const commands = [
    ['list'],
    ['list', '--json'],
    ['status'],
    ['status', mountpoint, '--json'],
    ['snapshot', disk],
    ['snapshot', disk, '--json'],
    ['diff', disk, '--map'],
    ['diff', disk],
    ['doctor'],
  ];
  for (const args of commands) expectAsWithReader(args);
});

test('info and check: 1 is for damage', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  await unmounted(kept);
  const { overlay, directory } = kept;
  for (const args of [
    ['info', overlay],
    ['info', overlay, '--json'],
    ['check', overlay],
    ['check', overlay, '--json'],
  ]) {
    expect(cowfs(args).status).toBe(0);
    expectAsWithReader(args);
  }
  const damaged = join(directory, 'damaged.cow');
  copyFileSync(overlay, damaged);
  const fd = openSync(damaged, 'r+');
  writeSync(fd, Buffer.alloc(2 * BLOCK, 0xff), 0, 2 * BLOCK, 0);
  closeSync(fd);
  expect(cowfs(['check', damaged]).status).toBe(1);
  expectAsWithReader(['check', damaged]);
});

test('mount, in the background and in the foreground', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const mountpoint = makeMountpoint(directory);
  onTestFinished(() => {
    if (mountsBelow(mountpoint).length > 0) mustCowfs(['unmount', '--force', mountpoint]);
  });
  expect(piped('| true', ['mount', base, mountpoint])).toEqual({ status: 0, stderr: '' });
  expectContent(join(mountpoint, 'disk.raw'), readFileSync(base));
  mustCowfs(['unmount', mountpoint]);
  const child = start(COWFS, ['mount', '--foreground', base, mountpoint]);
  child.stdout?.destroy();
  const ended = exitOf(child);
  await poll('mounted', () => mountsBelow(mountpoint).length > 0 && existsSync(join(mountpoint, 'disk.raw')));
  put(join(mountpoint, 'disk.raw'), 0, filled(1, 1000));
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(4096);
  expect(child.exitCode).toBeNull();
  mustCowfs(['unmount', mountpoint]);
  expect(await ended).toBe(0);
});

test('status --watch ends with its reader', async () => {
  const { mountpoint } = mountSessions(WRITEBACK, undefined);
  const child = start(COWFS, ['status', mountpoint, '--watch', '--json']);
  const ended = finish(child);
  child.stdout?.once('data', () => child.stdout?.destroy());
  expect(await ended).toMatchObject({ status: 0, stderr: '' });
});

test('nobody reads what goes wrong, either', () => {
  const lines = [
    ['unmount', '/nowhere'],
    ['check', '/nowhere'],
    ['list', '--nonsense'],
    ['nonsense'],
    ['run', '/nowhere', '--', 'true'],
  ];
  for (const args of lines) {
    const { status } = cowfs(args);
    expect(status).toBeGreaterThan(0);
    // What a crash has to say would go to the same place: its exit code is 1, or 7.
    expect({ args, ...piped('2>&1 | true', args) }).toEqual({ args, status, stderr: '' });
  }
});

test('run: its command has a standard output that waits for a slow reader, and ends with one that is gone', () => {
  const base = makeBase(scratch(), MIB);
  const into = (reader: string): Result => {
    const script = `"$0" run "$1" -- seq 300000 | ${reader}; exit "\${PIPESTATUS[0]}"`;
    return run('bash', ['-c', script, COWFS, base]);
  };
  expect(into('(sleep 1; tail -n 1)')).toEqual({ status: 0, stdout: '300000\n', stderr: '' });
  const { status, stderr } = into('true');
  // By SIGPIPE, or as seq says it where that is ignored.
  expect([1, 141]).toContain(status);
  expect(stderr).toMatch(/^(seq: [^\n]*\n)?$/);
});

test.for(['table', 'JSON'])(
  'diff as %s ends with its reader, whatever there is left to compare',
  async (form, context) => {
    needsRoot(context);
    const faulty = await faultyBase(8 * MIB);
    const { disk } = mountOver(faulty, []);
    for (let offset = 2 * MIB; offset < 8 * MIB; offset += MIB / 4) put(disk, offset, filled(1, BLOCK));
    faulty.setPlan({ gate: { from: 2 * MIB, to: 2 * MIB + BLOCK } });
    const child = start(COWFS, ['diff', disk, ...(form === 'JSON' ? ['--json'] : [])]);
    const ended = finish(child);
    child.stdout?.once('data', () => child.stdout?.destroy());
    await faulty.untilGated(1);
    await poll('its reader is gone', () => child.stdout?.destroyed === true);
    const stoodMs = performance.now();
    await poll('it stands there for a while', () => performance.now() - stoodMs > 100);
    // It finds out at the first range, and does not come to the second gate.
    faulty.setPlan({ gate: { from: 6 * MIB, to: 8 * MIB } });
    expect(await ended).toMatchObject({ status: 0, stderr: '' });
  },
);

test('an output that has no room is a failure, told in one line', async () => {
  const { disk, mountpoint, directory } = mountSessions(WRITEBACK, undefined);
  const image = join(directory, 'image');
  for (const args of [
    ['--help'],
    ['list'],
    ['status', mountpoint],
    ['diff', disk],
    ['export', disk, image, '--json'],
  ]) {
    const { status, stderr } = piped('>/dev/full', args);
    expect({ args, status }).toEqual({ args, status: 1 });
    expect(stderr).toMatch(/^cowfs: standard output: [^\n]*ENOSPC[^\n]*\n$/);
  }
  expectContent(image, readFileSync(disk));
});
