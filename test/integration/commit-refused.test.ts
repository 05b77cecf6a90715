/** Commits that are refused, and what is refused meanwhile: the base is as it was, and the disk goes on. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  run,
  scratch,
  start,
  statusOf,
} from '../harness.ts';
import {
  type CommitDisk,
  commitDisk,
  expectNames,
  fastScratch,
  fileOf,
  hashOf,
  interruptedCommit,
  redoLogOf,
  SMALL_BYTES,
  smallDisk,
  stoppedCommit,
  untilTrue,
  untouched,
  writesUnnamed,
} from './commit-support.ts';
import { loopDevice, needs, needsRoot, ordinaryUser, said, skipUnless } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { keptDisk, lookInto, MIB, randomOf, SEED, unmounted } from './overlay-support.ts';
import { expectContent, filled, make, outcome, patched, put } from './sessions-support.ts';

console.log(`commit-refused: COWFS_SEED=${SEED}`);

/** So large that an export can be caught at work. */
function largeDisk(): CommitDisk {
  const disk = commitDisk(fastScratch(), randomOf(SEED), 64 * MIB + 77);
  disk.picture.write(disk.disk, 48 * MIB);
  return disk;
}

/** Refused as it should be; the base, its directory and the disk are as before, and the disk takes writes. */
function expectRefused(disk: CommitDisk, ...says: readonly (string | RegExp)[]): void {
  const before = untouched(disk.base);
  expectRefusal(cowfs(['commit', disk.disk]), 3, ...says);
  expect(untouched(disk.base)).toEqual(before);
  expect(existsSync(redoLogOf(disk.base))).toBe(false);
  expect(hashOf(disk.disk)).toBe(disk.picture.hash);
  disk.picture.write(disk.disk, 10_000);
  expect(hashOf(disk.disk)).toBe(disk.picture.hash);
  expect(statusOf(disk.mountpoint).baseChanged).toBeNull();
}

function expectCommitted({ mountpoint, base, disk, picture }: CommitDisk): void {
  expect(cowfs(['commit', mountpoint])).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(hashOf(base)).toBe(picture.hash);
  expect(hashOf(disk)).toBe(picture.hash);
  expect(existsSync(redoLogOf(base))).toBe(false);
}

/** qemu-io that has an image open until it is killed. */
async function qemuIo(image: string, ...options: readonly string[]): Promise<ChildProcess> {
  const child = start('qemu-io', [...options, '-f', 'raw', image], { stdio: ['pipe', 'pipe', 'inherit'] });
  await said(child, 'qemu-io>');
  return child;
}

test('while another mount has the base', () => {
  const disk = smallDisk();
  const second = mountDisk(disk.base, makeMountpoint(disk.directory, 'second'));
  expectRefused(disk, disk.base, 'in use', /pid \d+/);
  const shown = hashOf(second.disk);
  expect(shown).toBe(hashOf(disk.base));
  mustCowfs(['unmount', second.mountpoint]);
  expectCommitted(disk);
});

test('an overlay, while a mount has its base', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  await unmounted(kept);
  const before = [untouched(kept.base), hashOf(kept.overlay)];
  const { mountpoint, disk } = mountDisk(kept.base, kept.mountpoint);
  expectRefusal(cowfs(['commit', kept.overlay]), 3, kept.base, 'in use', /pid \d+/);
  expect([untouched(kept.base), hashOf(kept.overlay)]).toEqual(before);
  expectContent(disk, kept.original);
  mustCowfs(['unmount', mountpoint]);
  mustCowfs(['commit', kept.overlay]);
  expectContent(kept.base, patched(kept.original, [5000, filled(1, 10_000)]));
});

test('while the mount has another disk', () => {
  const disk = smallDisk();
  make(join(disk.mountpoint, 'other.raw'));
  expectRefused(disk, 'other.raw', '--to');
  rmSync(join(disk.mountpoint, 'other.raw'));
  expectCommitted(disk);
});

test('while the disk has a snapshot, and while another disk that was removed is still open', () => {
  const disk = smallDisk();
  mustCowfs(['snapshot', disk.disk, 'before']);
  expectRefused(disk, 'snapshot before');
  mustCowfs(['snapshot', disk.disk, 'before', '--delete']);
  expectCommitted(disk);
});

test.for([
  ['a reader', ['-r']],
  ['a writer', []],
] as const)('an overlay, while QEMU has the base open: %s', async ([_who, options], context) => {
  needs(context, 'qemu-io');
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  await unmounted(kept);
  const before = [untouched(kept.base), hashOf(kept.overlay)];
  const child = await qemuIo(kept.base, ...options);
  expectRefusal(cowfs(['commit', kept.overlay]), 3, kept.base, 'in use', 'qemu-io', `pid ${child.pid}`);
  expect([untouched(kept.base), hashOf(kept.overlay)]).toEqual(before);
  child.kill('SIGKILL');
  await exitOf(child);
  mustCowfs(['commit', kept.overlay]);
  expectContent(kept.base, patched(kept.original, [5000, filled(1, 10_000)]));
});

test('a mounted disk, while QEMU reads the base', async (context) => {
  needs(context, 'qemu-io');
  const disk = smallDisk();
  const child = await qemuIo(disk.base, '-r');
  expectRefused(disk, disk.base, 'in use', 'qemu-io', `pid ${child.pid}`);
  child.kill('SIGKILL');
  await exitOf(child);
  expectCommitted(disk);
});

test('during a commit others get neither the base nor the disk’s place, and the disk goes on', async (context) => {
  const disk = largeDisk();
  const { base, mountpoint, directory, picture } = disk;
  const committed = picture.hash;
  const child = await stoppedCommit('half', base, mountpoint);
  expectRefusal(cowfs(['commit', mountpoint]), 3, 'another commit');
  expectRefusal(cowfs(['mount', base, makeMountpoint(directory, 'second')]), 3, 'base.img', 'a commit is under way');
  expectRefusal(cowfs(['commit', disk.disk]), 3, 'another commit');
  if (run('sh', ['-c', 'command -v qemu-io']).status === 0) {
    expect(run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', base]).stderr).toMatch(/Failed to get .*lock/);
    expect(run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 4k', base]).stderr).toMatch(/Failed to get .*lock/);
  } else console.log(`${context.task.name}: without qemu-io, which is not installed`);
  for (const name of ['other.raw', 'sub/other.raw']) {
    if (name.includes('/')) must('mkdir', [join(mountpoint, 'sub')]);
    expect(outcome(() => make(join(mountpoint, name)))).toBe('EBUSY');
  }
  expect(outcome(() => copyFileSync(base, join(mountpoint, 'copy.raw')))).toBe('EBUSY');
  for (const args of [
    ['reset', disk.disk],
    ['reset', disk.disk, '--force'],
    ['fork', disk.disk, join(mountpoint, 'fork.raw')],
    ['snapshot', disk.disk, 'now'],
  ]) {
    // Nor does it advise what does not help.
    expectRefusal(cowfs(args), 3, 'commit', /^(?!.*--force)/);
  }
  picture.write(disk.disk, MIB);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  child.kill('SIGCONT');
  expect(await exitOf(child)).toBe(0);
  expect(hashOf(base)).toBe(committed);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  expectCommitted(disk);
});

test('an export during a commit is right, or refused', async () => {
  const disk = largeDisk();
  const { base, mountpoint, directory, picture } = disk;
  const target = join(directory, 'copy.img');
  const child = await stoppedCommit('half', base, mountpoint);
  picture.write(disk.disk, MIB);
  const shown = picture.hash;
  const exporting = start(COWFS, ['export', disk.disk, target]);
  await untilTrue(exporting, () => writesUnnamed(exporting.pid ?? 0, directory));
  child.kill('SIGCONT');
  const [committed, exported] = [await exitOf(child), await exitOf(exporting)];
  expect(committed).toBe(0);
  expect([0, 3]).toContain(exported);
  if (exported === 0) expect(hashOf(target)).toBe(shown);
  expect(hashOf(disk.disk)).toBe(shown);
  expectCommitted(disk);
});

test('while an export is under way', async () => {
  const disk = largeDisk();
  const target = join(disk.directory, 'copy.img');
  const shown = disk.picture.hash;
  const exporting = start(COWFS, ['export', disk.disk, target]);
  await untilTrue(exporting, () => writesUnnamed(exporting.pid ?? 0, disk.directory));
  exporting.kill('SIGSTOP');
  expect(existsSync(target)).toBe(false);
  expectRefused(disk, 'export');
  exporting.kill('SIGCONT');
  expect(await exitOf(exporting)).toBe(0);
  expect(hashOf(target)).toBe(shown);
  expectCommitted(disk);
});

test('a block device as base: --to works', async (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const directory = scratch();
  const image = makeBase(directory, 2 * MIB);
  const device = loopDevice(image);
  const { disk, mountpoint } = mountDisk(device, makeMountpoint(directory));
  const original = readFileSync(image);
  put(disk, 5000, filled(1, 10_000));
  const expected = patched(original, [5000, filled(1, 10_000)]);
  const refused = cowfs(['commit', mountpoint]);
  expect(refused.stderr).toMatch(/^cowfs: [^\n]*block device[^\n]*--to[^\n]*\n$/);
  expect([2, 3]).toContain(refused.status);
  expectContent(image, original);
  expect(existsSync(redoLogOf(device))).toBe(false);
  expectContent(disk, expected);
  const to = join(directory, 'new.img');
  mustCowfs(['commit', mountpoint, '--to', to]);
  expectContent(to, expected);
  expectContent(disk, expected);
  make(join(mountpoint, 'other.raw'));
  expectContent(join(mountpoint, 'other.raw'), original);
});

test('a kept disk while it is mounted: the advice is to unmount and to name the file', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  const before = untouched(kept.base);
  expectRefusal(cowfs(['commit', kept.mountpoint]), 3, kept.overlay, 'unmount', 'that file');
  expectRefusal(cowfs(['commit', kept.overlay]), 3, kept.overlay, 'unmount');
  expect(untouched(kept.base)).toEqual(before);
  expectContent(kept.disk, patched(kept.original, [5000, filled(1, 10_000)]));
  await unmounted(kept);
  mustCowfs(['commit', kept.overlay]);
  expectContent(kept.base, patched(kept.original, [5000, filled(1, 10_000)]));
});

test('a read-only mount', () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const before = untouched(base);
  const { mountpoint } = mountDisk(base, makeMountpoint(directory), ['--read-only']);
  expectRefusal(cowfs(['commit', mountpoint]), 3, 'read-only');
  expect(untouched(base)).toEqual(before);
  expectNames(directory, 'base.img', 'mnt');
});

test('an empty disk, which no base may be', () => {
  const disk = smallDisk();
  const before = untouched(disk.base);
  disk.picture.truncate(disk.disk, 0);
  expectRefusal(cowfs(['commit', disk.disk]), 2, 'empty', '--to');
  expect(untouched(disk.base)).toEqual(before);
  disk.picture.truncate(disk.disk, 1);
  expectCommitted(disk);
});

test.for(['', '/nothing.raw', '/.cowfs'])('what is no disk: the base itself, <mountpoint>%s', (name) => {
  const disk = smallDisk();
  const before = untouched(disk.base);
  const given = name === '' ? disk.base : disk.mountpoint + name;
  const { status, stderr } = cowfs(['commit', given]);
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(status).toBe(2);
  expect(untouched(disk.base)).toEqual(before);
});

const REPLACEMENTS: Readonly<Record<string, (base: string, other: string) => void>> = {
  'another file of its size was moved there': (base, other) => renameSync(other, base),
  'another file of its size was copied there after it was removed': (base, other) => {
    rmSync(base);
    copyFileSync(other, base);
  },
  'it was removed': (base) => rmSync(base),
};

test.for(Object.keys(REPLACEMENTS))('a mounted disk whose base is not there any more: %s', (what) => {
  const disk = smallDisk();
  const other = join(disk.directory, 'other.img');
  writeFileSync(other, filled(9, SMALL_BYTES));
  REPLACEMENTS[what]?.(disk.base, other);
  const before = existsSync(disk.base) ? untouched(disk.base) : undefined;
  const { status, stderr, stdout } = cowfs(['commit', disk.mountpoint]);
  expect(existsSync(disk.base) ? untouched(disk.base) : undefined).toEqual(before);
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(stderr).toContain(disk.base);
  expect(stdout).toBe('');
  expect([2, 3]).toContain(status);
  expect(existsSync(redoLogOf(disk.base))).toBe(false);
  expect(hashOf(disk.disk)).toBe(disk.picture.hash);
});

/** A base with the log of a commit that was killed, its mount gone. */
async function interrupted(directory: string): Promise<CommitDisk> {
  const disk = commitDisk(directory, randomOf(SEED), SMALL_BYTES);
  disk.picture.write(disk.disk, 2 * MIB);
  await interruptedCommit('half', disk.base, disk.mountpoint);
  mustCowfs(['unmount', disk.mountpoint]);
  return disk;
}

/** No command touches anything, and each says what it is about. */
function expectAllRefuse({ base, mountpoint }: CommitDisk, ...says: readonly (string | RegExp)[]): void {
  const before = [untouched(base), untouched(redoLogOf(base))];
  const mounted = cowfs(['mount', base, mountpoint]);
  expect(mounted.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  for (const words of says) expect(mounted.stderr).toMatch(words);
  expect([1, 2, 3]).toContain(mounted.status);
  const ran = cowfs(['run', base, '--', 'true']);
  expect(ran.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(ran.status).toBe(125);
  expect([untouched(base), untouched(redoLogOf(base))]).toEqual(before);
}

test.for([
  'another file of its size was moved there',
  'another file of its size was copied there after it was removed',
])('an interrupted commit on a base in whose place %s', async (what) => {
  const disk = await interrupted(scratch());
  const other = join(disk.directory, 'other.img');
  writeFileSync(other, Buffer.alloc(SMALL_BYTES, 5));
  REPLACEMENTS[what]?.(disk.base, other);
  expectAllRefuse(disk, /interrupted/, disk.base, redoLogOf(disk.base));
  rmSync(redoLogOf(disk.base));
  mountDisk(disk.base, disk.mountpoint);
});

test('an interrupted commit on a base that has another size now', async () => {
  const disk = await interrupted(fastScratch());
  truncateSync(disk.base, 2 * MIB);
  expectAllRefuse(disk, /interrupted/, disk.base);
});

test('an interrupted commit on a base that was moved away and back, and touched, is finished', async () => {
  const disk = await interrupted(fastScratch());
  const away = join(disk.directory, 'away.img');
  renameSync(disk.base, away);
  expect(cowfs(['mount', disk.base, disk.mountpoint]).status).toBe(2);
  renameSync(away, disk.base);
  utimesSync(disk.base, 1, 1);
  const { status, stderr } = cowfs(['mount', disk.base, disk.mountpoint]);
  expect(stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
  expect(status).toBe(0);
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
  mustCowfs(['unmount', disk.mountpoint]);
});

test('an interrupted commit is not finished while QEMU reads the base', async (context) => {
  needs(context, 'qemu-io');
  const disk = await interrupted(fastScratch());
  const child = await qemuIo(disk.base, '-r');
  const before = untouched(disk.base);
  expectRefusal(cowfs(['mount', disk.base, disk.mountpoint]), 3, disk.base, 'qemu-io');
  expect(untouched(disk.base)).toEqual(before);
  child.kill('SIGKILL');
  await exitOf(child);
  mustCowfs(['mount', disk.base, disk.mountpoint]);
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
  mustCowfs(['unmount', disk.mountpoint]);
});

test('an interrupted commit of somebody else', async (context) => {
  needsRoot(context);
  needs(context, 'fusermount3', 'runuser');
  const user = ordinaryUser();
  skipUnless(context, cowfs(['--version'], user.as).status === 0, `the user nobody cannot read ${COWFS}`);
  const disk = await interrupted(fastScratch());
  const before = [untouched(disk.base), untouched(redoLogOf(disk.base))];
  expectRefusal(cowfs(['mount', disk.base, user.mountpoint], user.as), 3, disk.base, 'interrupted', 'owner');
  expect([untouched(disk.base), untouched(redoLogOf(disk.base))]).toEqual(before);
});

const DAMAGE: Readonly<Record<string, (log: string) => void>> = {
  'is empty': (log) => writeFileSync(log, ''),
  'is garbage': (log) => writeFileSync(log, filled(3, 100_000)),
  'was cut off in its headers': (log) => truncateSync(log, 5000),
  'was cut off in its map': (log) => truncateSync(log, 20_000),
  'was cut off in its data': (log) => truncateSync(log, statSync(log).size - 2 * MIB),
  'has a damaged map': (log) => {
    must('dd', ['if=/dev/urandom', `of=${log}`, 'bs=4096', 'seek=4', 'count=4', 'conv=notrunc', 'status=none']);
  },
  'is a directory': (log) => {
    rmSync(log);
    must('mkdir', [log]);
  },
};

test.for(Object.keys(DAMAGE))('a redo log that %s: a clear error, and the base untouched', async (what) => {
  const disk = await interrupted(fastScratch());
  const { base, mountpoint } = disk;
  const log = redoLogOf(base);
  DAMAGE[what]?.(log);
  const before = untouched(base);
  for (const args of [
    ['mount', base, mountpoint],
    ['run', base, '--', 'true'],
  ]) {
    const { status, stderr } = cowfs(args);
    expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(stderr).toContain(log);
    expect([1, 2, 3, 125]).toContain(status);
    expect(untouched(base)).toEqual(before);
  }
  expect(existsSync(log)).toBe(true);
});

test('an overlay file in the place of the log', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  await unmounted(kept);
  copyFileSync(kept.overlay, redoLogOf(kept.base));
  const before = untouched(kept.base);
  const { status, stderr } = cowfs(['mount', kept.base, kept.mountpoint]);
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(stderr).toContain(redoLogOf(kept.base));
  expect(status).toBe(2);
  expect(untouched(kept.base)).toEqual(before);
});

test.for([
  [243, 'works'],
  [244, 'is refused'],
  [255, 'is refused'],
] as const)('a base with a name of %i bytes is mounted, and its commit %s', ([bytes, what]) => {
  const directory = scratch();
  const base = makeBase(directory, MIB, `${'n'.repeat(bytes - 4)}.img`);
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory));
  const original = readFileSync(base);
  put(disk, 5000, filled(1, 10_000));
  const expected = patched(original, [5000, filled(1, 10_000)]);
  const result = cowfs(['commit', mountpoint, '--json']);
  // Before there is any progress.
  if (what === 'is refused') expectRefusal(result, 2, base, 'too long', '--to');
  else expect(result).toMatchObject({ status: 0, stderr: '' });
  expectContent(base, what === 'is refused' ? original : expected);
  expectContent(disk, expected);
  const copy = join(directory, 'copy.img');
  mustCowfs(['commit', mountpoint, '--to', copy]);
  expectContent(copy, expected);
});

test('while a commit is unfinished the disk may be renamed; another commit finishes it', async () => {
  const disk = smallDisk();
  await interruptedCommit('half', disk.base, disk.mountpoint);
  const renamed = join(disk.mountpoint, 'renamed.raw');
  renameSync(disk.disk, renamed);
  disk.picture.write(renamed, MIB);
  expectCommitted({ ...disk, disk: renamed });
});

test('a disk that is renamed during its commit', async () => {
  const disk = smallDisk();
  const child = await stoppedCommit('half', disk.base, disk.mountpoint);
  const renamed = join(disk.mountpoint, 'renamed.raw');
  renameSync(disk.disk, renamed);
  child.kill('SIGCONT');
  expect(await exitOf(child)).toBe(0);
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
  disk.picture.write(renamed, MIB);
  expectCommitted({ ...disk, disk: renamed });
  make(join(disk.mountpoint, 'other.raw'));
});

test('a disk whose commit is unfinished cannot be removed; the next mount has what was committed', async () => {
  const disk = smallDisk();
  const committed = disk.picture.hash;
  await interruptedCommit('half', disk.base, disk.mountpoint);
  expect(outcome(() => unlinkSync(disk.disk))).toBe('EBUSY');
  expect(outcome(() => make(join(disk.mountpoint, 'other.raw')))).toBe('EBUSY');
  mustCowfs(['unmount', disk.mountpoint]);
  const again = cowfs(['mount', disk.base, disk.mountpoint]);
  expect(again.stderr).toMatch(/finished now\n$/);
  expect(hashOf(disk.disk)).toBe(committed);
  mustCowfs(['unmount', disk.mountpoint]);
});

test('what is asked of a removed disk that is open keeps a commit away', async () => {
  const disk = smallDisk();
  const other = join(disk.mountpoint, 'other.raw');
  make(other);
  const holder = spawn('sh', ['-c', 'exec 3<"$0"; echo open; read line', other], { stdio: ['pipe', 'pipe', 'ignore'] });
  onTestFinished(() => {
    holder.kill('SIGKILL');
  });
  await said(holder, 'open');
  rmSync(other);
  expectRefused(disk, '--to');
  holder.kill('SIGKILL');
  await exitOf(holder);
});

test('the base is the same file afterwards', () => {
  const disk = smallDisk();
  must('chmod', ['640', disk.base]);
  const before = fileOf(disk.base);
  expectCommitted(disk);
  expect(fileOf(disk.base)).toEqual(before);
});

test('an overlay whose base was changed by somebody else', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 10_000));
  await unmounted(kept);
  put(kept.base, 0, Buffer.from('changed'));
  const before = [untouched(kept.base), hashOf(kept.overlay)];
  expectRefusal(cowfs(['commit', kept.overlay]), 3, kept.base, '--force');
  expect([untouched(kept.base), hashOf(kept.overlay)]).toEqual(before);
  expect(cowfs(['commit', kept.overlay, '--force']).status).toBe(0);
  expectContent(kept.base, patched(kept.original, [0, Buffer.from('changed')], [5000, filled(1, 10_000)]));
  expect(lookInto(kept.overlay).writtenBytes).toBe(0);
});

test('a second commit that is refused does not open a half-written base to others', async (context) => {
  needs(context, 'qemu-io', '/usr/bin/python3');
  const disk = smallDisk();
  await interruptedCommit('half', disk.base, disk.mountpoint);
  const read = ['-r', '-f', 'raw', '-c', 'read 0 4k', disk.base];
  expect(run('qemu-io', read).stderr).toMatch(/Failed to get .*lock/);
  // As any reader holds it while it looks (cowfs info, a mount that is refused).
  const lines = [
    'import fcntl, sys',
    `f = open('${disk.base}')`,
    'fcntl.lockf(f, fcntl.LOCK_SH, 1, 100)',
    "print('held', flush=True)",
    'sys.stdin.read()',
  ];
  const holder = start('/usr/bin/python3', ['-c', lines.join('\n')], { stdio: ['pipe', 'pipe', 'inherit'] });
  await said(holder, 'held');
  expectRefusal(cowfs(['commit', disk.mountpoint]), 3, 'in use');
  holder.kill('SIGKILL');
  await exitOf(holder);
  expect(run('qemu-io', read).stderr).toMatch(/Failed to get .*lock/);
  expect(cowfs(['reset', disk.disk, '--force']).status).toBe(3);
  expectCommitted(disk);
});
