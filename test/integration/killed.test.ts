/** Daemons that are killed or told to go: the place is usable again within 2 s, the space is back, the list is clean. */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
  listMounts,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import { finish, freeBytes, needsRoot, said, tmpfs } from './machine-support.ts';
import { expectNothingLeft, FREE_WITHIN_MS, isAlive, leftAt, watcherOf } from './nothing-left-support.ts';

const MIB = 1024 * 1024;

function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // The mount is gone, and with it what close(2) flushes.
  }
}

test.for(['idle', 'open'])('kill -9 of a daemon that is %s: all is free within 2 s', async (how, context) => {
  needsRoot(context);
  const directory = scratch();
  const store = tmpfs(directory, '64M');
  const before = freeBytes(store);
  const base = makeBase(directory, 32 * MIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--store', store]);
  const { pid } = statusOf(mountpoint);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=1M', 'count=16', 'conv=notrunc,fsync', 'status=none']);
  const fd = how === 'open' ? openSync(disk, 'r+') : undefined;
  if (fd !== undefined) onTestFinished(() => closeQuietly(fd));
  process.kill(pid, 'SIGKILL');
  const usableMs = await expectNothingLeft(mountpoint);
  expect(readdirSync(mountpoint)).toEqual([]);
  await poll('the space is back', () => freeBytes(store) === before, FREE_WITHIN_MS - usableMs);
  console.log(`kill -9, ${how}: mountpoint free after ${usableMs.toFixed(0)} ms`);
  expect(listMounts().filter((mount) => mount.mountpoint === mountpoint)).toEqual([]);
  if (fd !== undefined)
    expect(() => readSync(fd, Buffer.alloc(1), 0, 1, 24 * MIB)).toThrow(/ENOTCONN|ECONNABORTED|EIO/);
  // Usable means: a mount of it works.
  const again = mountDisk(base, mountpoint, ['--store', store]);
  expect(readFileSync(again.disk).equals(readFileSync(base))).toBe(true);
});

test('a cached writer notices a dead daemon within seconds, without fsync', async () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory));
  const fd = openSync(disk, 'r+');
  onTestFinished(() => closeQuietly(fd));
  writeSync(fd, Buffer.alloc(4096), 0, 4096, 0);
  process.kill(statusOf(mountpoint).pid, 'SIGKILL');
  await poll(
    'write(2) fails',
    () => {
      try {
        writeSync(fd, Buffer.alloc(4096), 0, 4096, 0);
        return false;
      } catch {
        return true;
      }
    },
    5000,
  );
});

test('kill -9 of `cowfs run`: the disk, its place and its space go; the command gets errors', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const child = start(COWFS, ['run', base, '--', 'sh', '-c', 'echo $$ {}; exec sleep 600 <{}']);
  const [, shell = '', disk = ''] = /^(\d+) (.*)\n/.exec(await said(child, '\n')) ?? [];
  onTestFinished(() => {
    process.kill(Number(shell), 'SIGKILL');
  });
  await poll('the command has it open', () => readFileSync(`/proc/${shell}/comm`, 'utf8') === 'sleep\n');
  const place = dirname(disk);
  expect(leftAt(place).join('\n')).toContain('mount ');
  child.kill('SIGKILL');
  const freeMs = await expectNothingLeft(place);
  await poll('the private place is gone', () => !existsSync(place), FREE_WITHIN_MS);
  console.log(`kill -9 of run: gone after ${freeMs.toFixed(0)} ms`);
  expect(listMounts().filter(({ mountpoint }) => mountpoint === place)).toEqual([]);
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
  '%s ends a daemon cleanly, although files are open',
  async (signal) => {
    const directory = scratch();
    const log = `${directory}/log`;
    const { mountpoint, disk } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory), ['--log-file', log]);
    const { pid } = statusOf(mountpoint);
    const fd = openSync(disk, 'r+');
    onTestFinished(() => closeQuietly(fd));
    process.kill(pid, signal);
    await poll('the daemon is gone', () => !isAlive(pid), FREE_WITHIN_MS);
    await expectNothingLeft(mountpoint);
    expect(readFileSync(log, 'utf8').trimEnd().split('\n').at(-1)).toContain('unmounted');
  },
);

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s ends --foreground with exit code 0', async (signal) => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const child = start(COWFS, ['mount', '--foreground', makeBase(directory, MIB), mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(await said(child, '\n')).toBe(`${mountpoint}/disk.raw\n`);
  expect(statusOf(mountpoint).pid).toBe(child.pid);
  const fd = openSync(`${mountpoint}/disk.raw`, 'r+');
  onTestFinished(() => closeQuietly(fd));
  child.kill(signal);
  expect(await exitOf(child)).toBe(0);
  await expectNothingLeft(mountpoint);
});

test('a mount whose watcher was killed says so, goes on, and unmounts', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  process.kill(watcherOf(mountpoint), 'SIGKILL');
  await poll('the status warns', () => statusOf(mountpoint).warnings.join().includes('watcher'));
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('a signal to the watcher does not make it leave its post', async () => {
  const directory = scratch();
  const { mountpoint } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory));
  const watcher = watcherOf(mountpoint);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const) process.kill(watcher, signal);
  expect(isAlive(watcher)).toBe(true);
  process.kill(statusOf(mountpoint).pid, 'SIGKILL');
  await expectNothingLeft(mountpoint);
});

test('closing the terminal does not end a background mount', async () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, MIB);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  // A session of its own on a terminal, which is hung up when the shell ends (pty(7)).
  must('script', ['-qec', `'${COWFS}' mount '${base}' '${mountpoint}'`, '/dev/null']);
  expect(statSync(`${mountpoint}/disk.raw`).size).toBe(MIB);
  expect(readFileSync(`${mountpoint}/disk.raw`).equals(readFileSync(base))).toBe(true);
});

test('a daemon that does not answer: `list` tells of it, `unmount --force` gets rid of it', async () => {
  const directory = scratch();
  const { mountpoint } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory));
  const { pid } = statusOf(mountpoint);
  process.kill(pid, 'SIGSTOP');
  onTestFinished(async () => {
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    await poll('it is gone', () => leftAt(mountpoint).length === 0);
  });
  // Whoever asks the mount itself would wait for ever, and could not be killed.
  const listed = await within(20_000, finish(start(COWFS, ['list'])));
  expect(listed.stderr).toContain(mountpoint);
  const unmounted = await within(40_000, finish(start(COWFS, ['unmount', '--force', mountpoint])));
  expect(unmounted).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(isAlive(pid)).toBe(false);
  await expectNothingLeft(mountpoint);
});

function within<T>(timeoutMs: number, result: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`not within ${timeoutMs} ms`)), timeoutMs).unref();
    result.then(resolve, reject);
  });
}
