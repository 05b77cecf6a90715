/** The one level of directories: made, filled, listed while names come and go, removed with all in them. */
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  utimesSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { must, mustCowfs, poll, run, start } from '../harness.ts';
import { finish, needs, needsRoot, said } from './machine-support.ts';
import {
  ALL_MODES,
  BLOCK,
  expectContent,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  outcome,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  untilOnly,
  WRITEBACK,
} from './sessions-support.ts';

test.for(ALL_MODES)(
  '$name: disks in a directory are disks like others; a second level is refused',
  async (mode, context) => {
    const { mountpoint, at, original } = mountSessions(mode, context, ['--empty']);
    must('mkdir', ['-m', '751', at('job-17')]);
    expect(statSync(at('job-17'))).toMatchObject({ mode: 0o40751 });
    expect(outcome(() => mkdirSync(at('job-17')))).toBe('EEXIST');
    expect(outcome(() => mkdirSync(at('job-17/deeper')))).toBe('EPERM');
    expect(outcome(() => mkdirSync(at('none/deeper')))).toBe('ENOENT');
    make(at('job-17/a.raw'));
    put(at('job-17/a.raw'), 3, filled(1, 5000));
    expectContent(at('job-17/a.raw'), patched(original, [3, filled(1, 5000)]));
    make(at('a.raw'));
    expectContent(at('a.raw'), original);
    expect(outcome(() => mkdirSync(at('a.raw/x')))).toBe('ENOTDIR');
    expect(outcome(() => rmdirSync(at('job-17')))).toBe('ENOTEMPTY');
    expect(outcome(() => rmdirSync(at('a.raw')))).toBe('ENOTDIR');
    expect(outcome(() => unlinkSync(at('job-17')))).toMatch(/^E(ISDIR|PERM)$/);
    expect(outcome(() => rmdirSync(at('none')))).toBe('ENOENT');
    await untilOnly(mountpoint, ['a.raw', 'job-17/a.raw'], 2 * BLOCK);
    must('rm', ['-r', at('job-17')]);
    await untilOnly(mountpoint, ['a.raw'], 0);
    expect(readdirSync(mountpoint)).toEqual(['a.raw']);
    mkdirSync(at('job-17'));
    expect(readdirSync(at('job-17'))).toEqual([]);
    rmdirSync(at('job-17'));
  },
);

test.for(TRANSPORT_MODES)(
  '$name: rm -r of 300 disks while somebody lists them leaves nothing',
  async (mode, context) => {
    const { mountpoint, at } = mountSessions(mode, context);
    mkdirSync(at('job'));
    const names = Array.from({ length: 300 }, (_, index) => `disk number ${index}.raw`);
    for (const name of names) make(at(`job/${name}`));
    for (const name of names.slice(0, 50)) put(at(`job/${name}`), 0, filled(1, BLOCK));
    const lister = start('sh', ['-c', 'while ls -l "$0"; do :; done >/dev/null 2>&1', at('job')]);
    must('rm', ['-r', at('job')]);
    expect(readdirSync(mountpoint)).toEqual(['disk.raw']);
    await poll('the lister has its end', () => lister.exitCode !== null, 20_000);
    await untilOnly(mountpoint, ['disk.raw'], 0);
  },
);

test.for(TRANSPORT_MODES)('$name: what stays is listed once while other names come and go', async (mode, context) => {
  needs(context, 'python3');
  const { at } = mountSessions(mode, context, ['--empty']);
  mkdirSync(at('job'));
  const staying = Array.from({ length: 200 }, (_, index) => `stays ${index}.raw`);
  for (const [index, name] of staying.entries()) {
    make(at(`job/${name}`));
    make(at(`job/goes ${index}.raw`));
  }
  const churn = start('python3', [
    '-c',
    `
import os, sys
os.chdir(sys.argv[1])
turn = 0
while True:
    index = turn % 200
    os.unlink(f'goes {index}.raw')
    os.close(os.open(f'goes {index}.raw', os.O_CREAT | os.O_WRONLY))
    os.close(os.open(f'new {index}.raw', os.O_CREAT | os.O_WRONLY))
    os.rename(f'new {index}.raw', f'newer {index}.raw')
    os.unlink(f'newer {index}.raw')
    turn += 1
    if turn == 20: print('churning', flush=True)
`,
    at('job'),
  ]);
  await said(churn, 'churning');
  for (let round = 0; round < 25; round++) {
    // A name that goes and comes again may be seen twice, as POSIX has it.
    const seen = readdirSync(at('job')).filter((name) => name.startsWith('stays'));
    expect(seen.sort()).toEqual([...staying].sort());
  }
  // In small pieces, with changes in between.
  const slow = await finish(
    start('python3', [
      '-c',
      `
import os, sys
with os.scandir(sys.argv[1]) as entries:
    names = []
    for entry in entries:
        names.append(entry.name)
        if len(names) % 10 == 0: os.stat(sys.argv[1] + '/stays 0.raw')
stays = [name for name in names if name.startswith('stays')]
print(len(stays), len(set(stays)))
`,
      at('job'),
    ]),
  );
  expect(slow.stdout).toBe('200 200\n');
  expect(churn.exitCode).toBe(null);
});

test.for(KERNEL_MODES.slice(0, 1))(
  '$name: a directory that is somebody’s place can be removed; nothing is made there any more',
  async (mode, context) => {
    const { mountpoint, at } = mountSessions(mode, context, ['--empty']);
    mkdirSync(at('job'));
    const sitter = start(
      'sh',
      ['-c', 'cd "$0" && echo there && read line; touch x.raw; echo "touch $?"; ls -A; echo "ls $?"', at('job')],
      {
        stdio: ['pipe', 'pipe', 'ignore'],
      },
    );
    await said(sitter, 'there');
    const handle = opened(at('job'), 'r');
    rmdirSync(at('job'));
    expect(readdirSync(mountpoint)).toEqual([]);
    mkdirSync(at('job'));
    make(at('job/new.raw'));
    const told = finish(sitter);
    sitter.stdin?.end('\n');
    expect((await told).stdout).toMatch(/^touch 1\nls \d\n$/);
    expect(readdirSync(`/proc/self/fd/${handle}`)).toEqual([]);
    closeSync(handle);
    await untilOnly(mountpoint, ['job/new.raw'], 0);
  },
);

test.for(TRANSPORT_MODES)(
  '$name: chmod, chown and times of directories; times follow their names',
  async (mode, context) => {
    needsRoot(context);
    const { at, mountpoint } = mountSessions(mode, context, ['--empty']);
    mkdirSync(at('job'));
    chmodSync(at('job'), 0o1750);
    chownSync(at('job'), 1234, 5678);
    utimesSync(at('job'), 1000, 2000);
    expect(statSync(at('job'))).toMatchObject({ mode: 0o41750, uid: 1234, gid: 5678, atimeMs: 1e6, mtimeMs: 2e6 });
    const changes: [what: string, change: () => void][] = [
      ['made', () => make(at('job/a.raw'))],
      ['renamed', () => renameSync(at('job/a.raw'), at('job/b.raw'))],
      ['moved out', () => renameSync(at('job/b.raw'), at('b.raw'))],
      ['moved in', () => renameSync(at('b.raw'), at('job/b.raw'))],
      ['forked', () => mustCowfs(['fork', at('job/b.raw'), at('job/c.raw')])],
      ['removed', () => unlinkSync(at('job/b.raw'))],
    ];
    for (const [what, change] of changes) {
      utimesSync(at('job'), 1000, 2000);
      const before = Date.now();
      change();
      // The kernel trusts what it knows for a second.
      await poll(`the time follows when a disk is ${what}`, () => statSync(at('job')).mtimeMs >= before - 50);
    }
    utimesSync(mountpoint, 1000, 2000);
    make(at('a.raw'));
    await poll('the time of the root follows', () => statSync(mountpoint).mtimeMs > 2e6);
    utimesSync(at('job'), 1000, 2000);
    put(at('job/c.raw'), 0, filled(1, 10));
    expect(statSync(at('job')).mtimeMs).toBe(2e6);
  },
);

test('nlink of a directory counts its directories; there are enough free inodes for df -i', async () => {
  const { mountpoint, at } = mountSessions(WRITEBACK, undefined);
  const links = (path: string): Promise<number> =>
    // Attributes are trusted for a second.
    poll('asked again', () => true).then(() => statSync(path).nlink);
  expect(await links(mountpoint)).toBe(2);
  for (const name of ['a', 'b', 'c']) mkdirSync(at(name));
  make(at('a/x.raw'));
  await expect.poll(() => statSync(mountpoint).nlink, { timeout: 10_000 }).toBe(5);
  expect(statSync(at('a')).nlink).toBe(2);
  renameSync(at('a'), at('d'));
  rmdirSync(at('b'));
  await expect.poll(() => statSync(mountpoint).nlink, { timeout: 10_000 }).toBe(4);
  expect(must('find', [mountpoint, '-name', '*.raw']).trim().split('\n').sort()).toEqual([
    at('d/x.raw'),
    at('disk.raw'),
  ]);
  expect(run('df', ['-i', mountpoint]).status).toBe(0);
});

test('a thousand directories', async () => {
  const { mountpoint, at } = mountSessions(WRITEBACK, undefined, ['--empty']);
  for (let index = 0; index < 1000; index++) mkdirSync(at(`job-${index}`));
  for (let index = 0; index < 1000; index += 10) closeSync(openSync(at(`job-${index}/a.raw`), 'a'));
  expect(readdirSync(mountpoint)).toHaveLength(1000);
  expect((await statusNow(mountpoint)).disks).toHaveLength(100);
  must('sh', ['-c', 'rm -r "$0"/job-*', mountpoint]);
  await untilOnly(mountpoint, [], 0);
});
