/** What a mount tells of its disks: `cowfs status`, `--watch`, and `.cowfs/status.json` for those who have only a shell. */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import type { MountStatus } from '../../src/daemon/status.ts';
import { COWFS, cowfs, exitOf, must, mustCowfs, poll, run, start, statusOf } from '../harness.ts';
import { finish, needs } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  BLOCK,
  FUSE_NATIVE_MODE,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  outcome,
  put,
  statusNow,
  TRANSPORT_MODES,
  WRITEBACK,
} from './sessions-support.ts';

/** All but what changes from one moment to the next. */
function steady(status: MountStatus): unknown {
  const { io, memory, store, ...rest } = status;
  return { ...rest, store: { ...store, freeBytes: 0 }, io: Object.keys(io), memory: Object.keys(memory) };
}

test.for(KERNEL_MODES)('$name: status.json is what `cowfs status --json` prints', (mode, context) => {
  const { mountpoint, at } = mountSessions(mode, context, ['--max-store', '1G', '--max-session-store', '1M']);
  mkdirSync(at('job'));
  make(at('job/a.raw'));
  put(at('job/a.raw'), 0, filled(1, 3 * BLOCK));
  mustCowfs(['snapshot', at('job/a.raw'), 'one "quoted"']);
  const fd = opened(at('job/a.raw'), 'r');
  const file = at('.cowfs/status.json');
  const text = readFileSync(file, 'utf8');
  const status = JSON.parse(text) as MountStatus;
  expect(steady(status)).toEqual(steady(statusOf(mountpoint)));
  expect(status.disks).toMatchObject([
    { name: 'disk.raw', openHandles: 0, snapshots: [] },
    { name: 'job/a.raw', openHandles: 1, writtenBytes: 3 * BLOCK, layers: 2, snapshots: [{ name: 'one "quoted"' }] },
  ]);
  expect(text.endsWith('}\n')).toBe(true);
  closeSync(fd);
});

test('status.json is read as any file is: whole, in pieces, by many at once', async (context) => {
  needs(context, 'python3');
  const { mountpoint, at } = mountSessions(WRITEBACK, context);
  for (let index = 0; index < 300; index++) make(at(`${index}.raw`));
  const file = at('.cowfs/status.json');
  const names = (text: string): number => (JSON.parse(text) as MountStatus).disks.length;
  expect(names(must('cat', [file]))).toBe(301);
  expect(names(must('python3', ['-c', 'import sys; print(open(sys.argv[1]).read())', file]))).toBe(301);
  expect(names(must('dd', [`if=${file}`, 'bs=1000', 'status=none']))).toBe(301);
  expect(must('head', ['-c', '20', file])).toHaveLength(20);
  expect(names(must('tail', ['-c', '+1', file]))).toBe(301);
  expect(must('grep', ['-c', '"name": "17.raw"', file])).toBe('1\n');
  must('cp', [file, `${mountpoint}/../copy.json`]);
  expect(names(readFileSync(`${mountpoint}/../copy.json`, 'utf8'))).toBe(301);
  // An open file stays what it was when it was opened.
  const fd = openSync(file, 'r');
  for (let index = 0; index < 100; index++) unlinkSync(at(`${index}.raw`));
  const first = Buffer.alloc(2 ** 20);
  let length = 0;
  for (let bytes = -1; bytes !== 0; length += bytes) bytes = readSync(fd, first, length, 1000, length);
  expect(names(first.subarray(0, length).toString())).toBe(301);
  expect(readSync(fd, first, 0, 100, 50_000_000)).toBe(0);
  closeSync(fd);
  await poll('they are gone', () => names(readFileSync(file, 'utf8')) === 201);
  const readers = Array.from({ length: 6 }, () =>
    finish(
      start('sh', [
        '-c',
        'for i in 1 2 3 4 5 6 7 8; do python3 -c "import json, sys; print(len(json.load(open(sys.argv[1]))[\'disks\']))" "$0"; done',
        file,
      ]),
    ),
  );
  for (const { stdout, status } of await Promise.all(readers)) {
    expect({ stdout, status }).toEqual({ stdout: '201\n'.repeat(8), status: 0 });
  }
});

test('status.json cannot be written, grown, removed or replaced, not even by root', () => {
  const { at, mountpoint } = mountSessions(WRITEBACK, undefined);
  const file = at('.cowfs/status.json');
  expect(statSync(file).mode & 0o222).toBe(0);
  const refused = /^E(PERM|ACCES|ROFS)$/;
  for (const flags of ['r+', 'w', 'a', 'wx']) {
    expect(outcome(() => closeSync(openSync(file, flags)))).toMatch(flags === 'wx' ? /^E(EXIST|PERM|ACCES)$/ : refused);
  }
  expect(outcome(() => unlinkSync(file))).toMatch(refused);
  expect(outcome(() => renameSync(file, at('x.raw')))).toMatch(refused);
  expect(outcome(() => renameSync(at('disk.raw'), file))).toMatch(refused);
  for (const [program, ...args] of [
    ['truncate', '-s', '0', file],
    ['chmod', '666', file],
    ['touch', file],
    ['ln', file, at('x.raw')],
    ['fallocate', '-l', '4096', file],
  ]) {
    expect(`${program} ${run(program ?? '', args).status === 0}`).toBe(`${program} false`);
  }
  expect((JSON.parse(readFileSync(file, 'utf8')) as MountStatus).mountpoint).toBe(mountpoint);
  const fd = openSync(file, 'r');
  expect(fstatSync(fd).isFile()).toBe(true);
  closeSync(fd);
});

test('.cowfs lists what it has for people alone', () => {
  const { at } = mountSessions(WRITEBACK, undefined);
  expect(readdirSync(at('.cowfs'))).toEqual(['status.json']);
  for (const name of ['x', '0', '1', '99', '4294967298', '-1', '2.0', '02', '']) {
    if (name !== '') expect(`${name} ${outcome(() => statSync(at(`.cowfs/${name}`)))}`).toBe(`${name} ENOENT`);
  }
});

test('fuse-native has no status.json; `cowfs status` tells the same', (context) => {
  const { at, mountpoint } = mountSessions(FUSE_NATIVE_MODE, context);
  expect(outcome(() => readFileSync(at('.cowfs/status.json')))).toBe('ENOENT');
  make(at('a.raw'));
  put(at('a.raw'), 0, filled(1, BLOCK));
  expect(statusOf(mountpoint).disks).toMatchObject([{ name: 'disk.raw' }, { name: 'a.raw', writtenBytes: BLOCK }]);
});

test.for(TRANSPORT_MODES)(
  '$name: --watch --json prints a line a second until it is interrupted, and ends with 0',
  async (mode, context) => {
    const { mountpoint, at } = mountSessions(mode, context);
    const watch = start(COWFS, ['status', mountpoint, '--watch', '--json']);
    let text = '';
    watch.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const lines = (): MountStatus[] =>
      text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as MountStatus);
    await poll('a first line', () => lines().length > 0, 30_000);
    make(at('a.raw'));
    await poll('it is seen', () => lines().at(-1)?.disks.length === 2, 30_000);
    expect(lines()[0]?.disks).toHaveLength(1);
    watch.kill('SIGINT');
    expect(await exitOf(watch)).toBe(0);
  },
);

test('--watch redraws for people, of one mount and of all; a reader that goes ends it', async () => {
  const { mountpoint, disk } = mountSessions(WRITEBACK, undefined);
  for (const args of [[mountpoint], []]) {
    const watch = start(COWFS, ['status', ...args, '--watch']);
    let text = '';
    watch.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    await poll('twice', () => text.split(disk).length > 2, 30_000);
    expect(text).toMatch(/^mountpoint +/m);
    watch.kill('SIGINT');
    expect(await exitOf(watch)).toBe(0);
  }
  const piped = run('sh', ['-c', '"$0" status "$1" --watch | head -n 1', COWFS, mountpoint]);
  expect(piped).toMatchObject({ status: 0, stderr: '' });
});

test('--watch ends with the mount, in one line; of a mount that is not there it is refused', async () => {
  const { mountpoint, directory } = mountSessions(WRITEBACK, undefined);
  const watch = start(COWFS, ['status', mountpoint, '--watch', '--json']);
  const result = finish(watch);
  await poll('it has started', async () => (await statusNow(mountpoint)).pid > 0);
  await new Promise<void>((done) => watch.stdout?.once('data', () => done()));
  mustCowfs(['unmount', mountpoint]);
  const { status, stderr } = await result;
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(status).not.toBe(0);
  expectRefusal(cowfs(['status', directory, '--watch']), 2, directory);
});

test('the table for people shows every disk, what is removed, layers and snapshots', () => {
  const { mountpoint, at } = mountSessions(WRITEBACK, undefined);
  make(at('a.raw'));
  put(at('a.raw'), 0, filled(1, BLOCK));
  mustCowfs(['snapshot', at('a.raw'), 'one']);
  make(at('gone.raw'));
  const fd = opened(at('gone.raw'));
  unlinkSync(at('gone.raw'));
  const text = mustCowfs(['status', mountpoint]);
  expect(text).toMatch(new RegExp(`disk +${at('a.raw')} \\(`));
  expect(text).toContain('snapshots one');
  expect(text).toMatch(/gone\.raw.*\(removed\).*open 1 times/);
  expect(mustCowfs(['list'])).toContain(at('a.raw'));
  closeSync(fd);
});

test('a mount that does not answer is told of once, and the others are shown', async () => {
  const { mountpoint, disk } = mountSessions(WRITEBACK, undefined);
  const other = mountSessions(WRITEBACK, undefined);
  // Its entry leads nowhere: as of a daemon that is alive and cannot tell.
  rmSync(findEntry(other.mountpoint)?.socket ?? '');
  const watch = start(COWFS, ['status', '--watch']);
  let [text, warnings] = ['', ''];
  watch.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  watch.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    warnings += chunk;
  });
  await poll('three times', () => text.split(disk).length > 3, 30_000);
  watch.kill('SIGINT');
  expect(await exitOf(watch)).toBe(0);
  expect(warnings.split(other.mountpoint).length).toBe(2);
  expect(text).toContain(mountpoint);
  must('umount', [other.mountpoint]);
});
