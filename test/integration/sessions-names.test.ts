/** Making disks by their names: which names there are, which are refused, and what ls(1) says of them. */
import { closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { must, run } from '../harness.ts';
import { needs } from './machine-support.ts';
import {
  ALL_MODES,
  BLOCK,
  diskStatus,
  expectContent,
  filled,
  make,
  mountSessions,
  outcome,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  untilOnly,
  WRITEBACK,
} from './sessions-support.ts';

const { O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY } = constants;

function openAndClose(path: string, flags: number, mode = 0o644): string {
  return outcome(() => closeSync(openSync(path, flags, mode)));
}

test.for(ALL_MODES)('$name: every way of making a file makes a disk over the base', (mode, context) => {
  const { mountpoint, original, at } = mountSessions(mode, context);
  const { uid } = statSync(mountpoint);
  must('touch', [at('touch.raw')]);
  must('python3', ['-c', 'import os, sys; os.mknod(sys.argv[1], 0o100640)', at('mknod.raw')]);
  expect(openAndClose(at('wronly.raw'), O_CREAT | O_WRONLY, 0o600)).toBe('OK');
  expect(openAndClose(at('rdonly.raw'), O_CREAT | O_RDONLY, 0o400)).toBe('OK');
  expect(openAndClose(at('rdwr.raw'), O_CREAT | O_RDWR, 0o666)).toBe('OK');
  must('sh', ['-c', ': >> "$0"', at('append.raw')]);
  const names = ['touch', 'mknod', 'wronly', 'rdonly', 'rdwr', 'append'].map((name) => `${name}.raw`);
  for (const name of names) {
    expectContent(at(name), original);
    expect(statSync(at(name))).toMatchObject({ size: original.length, nlink: 1, uid });
  }
  expect(statSync(at('mknod.raw')).mode).toBe(0o100640);
  expect(statSync(at('wronly.raw')).mode).toBe(0o100600);
  expect(readdirSync(mountpoint).sort()).toEqual(['disk.raw', ...names].sort());
  // Again: they stay as they are.
  put(at('touch.raw'), 100, filled(1, 10));
  must('touch', [at('touch.raw')]);
  expect(openAndClose(at('touch.raw'), O_CREAT | O_RDWR)).toBe('OK');
  expectContent(at('touch.raw'), patched(original, [100, filled(1, 10)]));
  for (const name of [...names, 'disk.raw']) expect(openAndClose(at(name), O_CREAT | O_EXCL | O_WRONLY)).toBe('EEXIST');
  expect(run('mkdir', [at('touch.raw')]).status).not.toBe(0);
});

test.for(TRANSPORT_MODES)('$name: O_EXCL makes a file once, of many who try at once', async (mode, context) => {
  const { at, mountpoint } = mountSessions(mode, context, ['--empty']);
  const script = 'set -C; for i in $(seq 50); do { : > "$0/x$i.raw"; } 2>/dev/null && echo "$i"; done; :';
  const all = must('sh', ['-c', `for n in 1 2 3 4; do sh -c '${script}' "$0" & done; wait`, mountpoint]);
  const won = all
    .trim()
    .split('\n')
    .map(Number)
    .sort((one, other) => one - other);
  expect(won).toEqual(Array.from({ length: 50 }, (_, index) => index + 1));
  expect(readdirSync(at('.'))).toHaveLength(50);
});

test.for(TRANSPORT_MODES)(
  '$name: other names and other kinds of files are refused, and nothing is made',
  (mode, context) => {
    const { mountpoint, at, directory, disk } = mountSessions(mode, context);
    for (const name of ['x', 'x.img', 'raw', 'x.RAW', 'x.raw~', '.x.raw.swp', 'x.qcow2']) {
      expect(`${name} ${openAndClose(at(name), O_CREAT | O_WRONLY)}`).toBe(`${name} EPERM`);
    }
    mkdirSync(at('job'));
    expect(openAndClose(at('job/x.img'), O_CREAT | O_WRONLY)).toBe('EPERM');
    const refused = [
      ['ln', disk, at('hard.raw')],
      ['ln', '-s', disk, at('soft.raw')],
      ['ln', `${directory}/base.img`, at('far.raw')],
      ['mkfifo', at('pipe.raw')],
      ['mknod', at('device.raw'), 'c', '1', '3'],
      ['python3', '-c', 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])', at('socket.raw')],
    ];
    for (const [program = '', ...args] of refused) {
      expect(`${args.at(-1)} ${run(program, args).status === 0}`).toBe(`${args.at(-1)} false`);
    }
    expect(run('ln', ['-s', disk, at('soft.raw')], { env: { LC_ALL: 'C' } }).stderr).toContain('not permitted');
    expect(readdirSync(mountpoint).sort()).toEqual(['disk.raw', 'job']);
    expect(readdirSync(at('job'))).toEqual([]);
  },
);

test('with --name of another ending, files of that ending are disks, too', async () => {
  const { mountpoint, at, original, disk } = mountSessions(WRITEBACK, undefined, ['--name', 'disk.qcow2']);
  expect(disk).toBe(at('disk.qcow2'));
  for (const name of ['a.qcow2', 'a.raw']) {
    make(at(name));
    expectContent(at(name), original);
  }
  expect(openAndClose(at('a.img'), O_CREAT | O_WRONLY)).toBe('EPERM');
  await untilOnly(mountpoint, ['a.qcow2', 'a.raw', 'disk.qcow2'], 0);
});

test.for(TRANSPORT_MODES)(
  '$name: names with care: UTF-8, blanks, quotes, newlines, long ones',
  async (mode, context) => {
    const { mountpoint, at, original } = mountSessions(mode, context, ['--empty']);
    const names = [
      'naïve café.raw',
      '雪だるま☃.raw',
      '😀.raw',
      ' leading and trailing .raw',
      `quo'te" $HOME \`x\` \\ *.raw`,
      'tab\there\x01.raw',
      '-rf.raw',
      '.raw',
      '..raw',
      `${'n'.repeat(251)}.raw`,
      `${'ü'.repeat(125)}x.raw`,
      ...(mode.transport === 'kernel' ? ['new\nline.raw'] : []),
    ];
    for (const [index, name] of names.entries()) {
      make(at(name));
      put(at(name), index, filled(index, 10));
    }
    expect(readdirSync(mountpoint).sort()).toEqual([...names].sort());
    for (const [index, name] of names.entries()) {
      expectContent(at(name), patched(original, [index, filled(index, 10)]));
      expect(diskStatus(mountpoint, name).path).toBe(at(name));
    }
    for (const name of [`${'n'.repeat(252)}.raw`, `${'ü'.repeat(126)}.raw`]) {
      expect(openAndClose(at(name), O_CREAT | O_WRONLY)).toBe('ENAMETOOLONG');
      expect(openAndClose(at(name), O_RDONLY)).toBe('ENAMETOOLONG');
      expect(outcome(() => mkdirSync(at(name)))).toBe('ENAMETOOLONG');
    }
    must('rm', ['--', ...names], { cwd: mountpoint });
    await untilOnly(mountpoint, [], 0);
  },
);

test('bytes that are no UTF-8 make no name: EILSEQ, and nothing is made', (context) => {
  needs(context, 'python3');
  const { mountpoint } = mountSessions(WRITEBACK, context);
  const script = `
import errno, os, sys
os.chdir(sys.argv[1])
for name in [b'\\xff.raw', b'caf\\xe9.raw', b'\\xed\\xa0\\x80.raw', b'\\xf0\\x9f.raw']:
    for action in [lambda: os.open(name, os.O_CREAT | os.O_WRONLY), lambda: os.mkdir(name), lambda: os.rename(b'disk.raw', name),
                   lambda: os.stat(name)]:
        try:
            action()
            print('OK')
        except OSError as error:
            print(errno.errorcode[error.errno])
`;
  const seen = must('python3', ['-c', script, mountpoint]).trim().split('\n');
  expect(seen).toEqual([0, 1, 2, 3].flatMap(() => ['EILSEQ', 'EILSEQ', 'EILSEQ', 'ENOENT']));
  expect(readdirSync(mountpoint)).toEqual(['disk.raw']);
});

test.for(TRANSPORT_MODES)(
  '$name: .cowfs is there for who names it, listed nowhere, and cannot be changed',
  (mode, context) => {
    const { mountpoint, at, disk } = mountSessions(mode, context);
    expect(must('ls', ['-A', mountpoint])).toBe('disk.raw\n');
    expect(must('find', [mountpoint])).toBe(`${mountpoint}\n${disk}\n`);
    expect(must('du', ['-a', mountpoint]).trim().split('\n')).toHaveLength(2);
    expect(statSync(at('.cowfs')).isDirectory()).toBe(true);
    const attempts = [
      ['mkdir', at('.cowfs')],
      ['mkdir', at('.cowfs/x')],
      ['touch', at('.cowfs/x.raw')],
      ['mv', '-T', at('.cowfs'), at('x')],
      ['mv', '-T', at('.cowfs'), at('x.raw')],
      ['mv', disk, at('.cowfs/x.raw')],
      ['rmdir', at('.cowfs')],
      ['rm', '-rf', at('.cowfs')],
      ['rm', '-f', at('.cowfs/status.json'), at('.cowfs/status.json')].slice(0, mode.transport === 'kernel' ? 4 : 0),
      ['chmod', '777', at('.cowfs')],
      ['ln', disk, at('.cowfs/x.raw')],
    ].filter((attempt) => attempt.length > 0);
    for (const [program = '', ...args] of attempts) {
      const { status } = run(program, args);
      expect(`${program} ${args.join(' ')}: ${status === 0}`).toBe(`${program} ${args.join(' ')}: false`);
    }
    expect(statSync(at('.cowfs')).isDirectory()).toBe(true);
    expect(must('ls', ['-A', mountpoint])).toBe('disk.raw\n');
  },
);

test.for(ALL_MODES)(
  '$name: ls -ls shows the blocks that a disk really takes, 4 KiB at least',
  async (mode, context) => {
    const { mountpoint, at } = mountSessions(mode, context, ['--empty']);
    const shown = (name: string): number =>
      Number(/^\s*(\d+)/.exec(must('ls', ['-ls', '--block-size=1024', at(name)]))?.[1]) * 1024;
    make(at('a.raw'));
    expect(shown('a.raw')).toBe(BLOCK);
    put(at('a.raw'), BLOCK, filled(1, 5 * BLOCK));
    // The kernel asks again when it trusts attributes no more: that is after a second at most.
    await expect.poll(() => shown('a.raw'), { timeout: 10_000 }).toBe(5 * BLOCK);
    expect(diskStatus(mountpoint, 'a.raw').storeBytes).toBe(5 * BLOCK);
    expect(statSync(at('a.raw')).blocks * 512).toBe(5 * BLOCK);
    expect(must('du', ['--block-size=1', at('a.raw')])).toMatch(new RegExp(`^${5 * BLOCK}\\t`));
    unlinkSync(at('a.raw'));
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).toContain(mountpoint);
    await expect.poll(async () => (await statusNow(mountpoint)).disks.length, { timeout: 10_000 }).toBe(0);
  },
);
