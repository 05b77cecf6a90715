/**
 * Who holds the connection: the daemon alone. libfuse opens it; whoever inherits it keeps the mount alive when the daemon
 * is dead, and could answer in its place.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { COWFS, cowfs, makeBase, mountDisk, poll, scratch, start, statusOf } from '../harness.ts';
import { abortFile, FUSE_NATIVE, mounted, needsFuseNative } from './fuse-native-support.ts';
import { needs, needsRoot, ordinaryUser, said } from './machine-support.ts';
import { expectNothingLeft, FREE_WITHIN_MS, isAlive, processesNaming, watcherOf } from './nothing-left-support.ts';

beforeEach(needsFuseNative);

/** What a process has open. */
function filesOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // Closed by now.
      return [];
    }
  });
}

test('the watcher has neither the connection nor the base nor the store', () => {
  const { mountpoint, base, pid } = mounted();
  const daemons = filesOf(pid);
  expect(daemons).toContain('/dev/fuse');
  expect(daemons).toContain(base);
  const watchers = filesOf(watcherOf(mountpoint));
  expect(watchers).not.toContain('/dev/fuse');
  expect(watchers).not.toContain(base);
  expect(watchers.filter((file) => file.endsWith('(deleted)'))).toEqual([]);
});

test('an ordinary user’s watcher has not, either', (context) => {
  needsRoot(context);
  needs(context, 'runuser', 'fusermount');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  mountDisk(makeBase(directory, 5000), mountpoint, FUSE_NATIVE, as);
  expect(filesOf(statusOf(mountpoint, as).pid)).toContain('/dev/fuse');
  const watcher = processesNaming(mountpoint, runtime).find(({ line }) => line.includes('cowfs-watcher'));
  expect(filesOf(watcher?.pid ?? 0)).not.toContain('/dev/fuse');
});

test('the command of `run` has neither', () => {
  const base = makeBase(scratch(), 5000);
  const script = 'for fd in /proc/$$/fd/*; do readlink "$fd"; done; exit 0';
  const { stdout, status } = cowfs(['run', ...FUSE_NATIVE, base, '--', 'sh', '-c', script]);
  expect(status).toBe(0);
  const files = stdout.trim().split('\n');
  expect(files.length).toBeGreaterThanOrEqual(3);
  expect(files).not.toContain('/dev/fuse');
  expect(files).not.toContain(base);
});

test('kill -9 of `cowfs run`: the disk and its place go, and the command gets errors instead of waiting', async (context) => {
  needsRoot(context);
  const base = makeBase(scratch(), 1_000_001);
  // Reads past the page cache, again and again, until it is refused.
  const script = 'echo $$ "$0"; while dd if="$0" of=/dev/null bs=4k iflag=direct; do :; done; exec sleep 600';
  const child = start(COWFS, ['run', ...FUSE_NATIVE, base, '--', 'sh', '-c', script, '{}']);
  const [, shell = '', disk = ''] = /^(\d+) (.*)\n/.exec(await said(child, '\n')) ?? [];
  const abort = abortFile(dirname(disk));
  onTestFinished(async () => {
    // Who waits for a connection that nobody serves cannot be killed.
    if (existsSync(abort)) writeFileSync(abort, '1');
    process.kill(Number(shell), 'SIGKILL');
    await poll('the command is gone', () => !isAlive(Number(shell)));
  });
  child.kill('SIGKILL');
  await poll('the command has its error', () => readFileSync(`/proc/${shell}/comm`, 'utf8') === 'sleep\n', 5000);
  await expectNothingLeft(dirname(disk));
  await poll('the private place is gone', () => !existsSync(dirname(disk)), FREE_WITHIN_MS);
  expect(existsSync(abort)).toBe(false);
});
