/** What a commit writes, byte for byte, and what it leaves alone. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, type TestContext, test } from 'vitest';
import {
  COWFS,
  cowfs,
  exitOf,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
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
  Picture,
  redoLogOf,
  stoppedCommit,
  untouched,
} from './commit-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { said } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { BLOCK, infoOf, keptDisk, MIB, randomOf, remounted, SEED, unmounted } from './overlay-support.ts';
import {
  ALL_MODES,
  expectContent,
  filled,
  type Mode,
  make,
  patched,
  put,
  TRANSPORT_MODES,
} from './sessions-support.ts';

console.log(`commit-content: COWFS_SEED=${SEED}`);

const BYTES = 5 * MIB + 1234;
const QUIET = { status: 0, stdout: '', stderr: '' };

function diskOf(context: TestContext, { transport, cache }: Mode, bytes = BYTES): CommitDisk {
  if (transport === 'fuse-native') needsFuseNative(context);
  return commitDisk(scratch(), randomOf(SEED), bytes, ['--transport', transport, '--cache', cache]);
}

/** Commits, and fails unless base and disk have what they must have, and nothing else has changed. */
function expectCommitted({ mountpoint, base, disk, picture, directory }: CommitDisk): void {
  const before = fileOf(base);
  expect(cowfs(['commit', mountpoint])).toEqual(QUIET);
  expect(hashOf(base)).toBe(picture.hash);
  expect(hashOf(disk)).toBe(picture.hash);
  expect(fileOf(base)).toEqual(before);
  expectNames(directory, 'base.img', 'mnt');
  const { disks, baseChanged, baseSize, warnings } = statusOf(mountpoint);
  expect({ baseChanged, baseSize, warnings }).toEqual({
    baseChanged: null,
    baseSize: picture.content.length,
    warnings: [],
  });
  expect(disks).toMatchObject([{ writtenBytes: 0, size: picture.content.length }]);
}

test.for(ALL_MODES)('$name: writes at odd places, trims, two commits in a row, reset, new disks', (mode, context) => {
  const disk = diskOf(context, mode);
  const { picture, mountpoint } = disk;
  for (let round = 0; round < 2; round++) {
    picture.write(disk.disk, 2 * MIB);
    if (mode.transport === 'kernel') picture.trim(disk.disk, 5);
    expectCommitted(disk);
  }
  // Nothing to do is no error.
  expectCommitted(disk);
  const committed = picture.hash;
  picture.write(disk.disk, MIB);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  mustCowfs(['reset', disk.disk]);
  expect(hashOf(disk.disk)).toBe(committed);
  const other = join(mountpoint, 'other.raw');
  make(other);
  expect(hashOf(other)).toBe(committed);
  mustCowfs(['fork', other, join(mountpoint, 'fork.raw')]);
  put(other, 0, Buffer.from('mine'));
  expect(hashOf(join(mountpoint, 'fork.raw'))).toBe(committed);
  expect(hashOf(disk.base)).toBe(committed);
});

const SIZES: Readonly<Record<string, readonly number[]>> = {
  grown: [BYTES + 3 * MIB + 5],
  'grown within its last block': [BYTES + 7],
  shrunk: [BYTES - 2 * MIB - 5],
  'shrunk within its last block': [BYTES - 7],
  'shrunk to one byte': [1],
  'shrunk, then grown to what it was': [2 * MIB + 77, BYTES],
  'shrunk, then grown beyond': [2 * MIB + 77, BYTES + MIB],
  'shrunk and grown in the same block': [2 * MIB + 77, 2 * MIB + 99],
  'grown, then shrunk to what it was': [BYTES + MIB, BYTES],
  'grown, shrunk, grown': [BYTES + MIB, BYTES - MIB, BYTES + 2 * MIB],
};

test.for(
  Object.keys(SIZES).flatMap((what) => TRANSPORT_MODES.map((mode) => ({ what, mode, transport: mode.transport }))),
)('$transport: a disk that was $what', ({ what, mode }, context) => {
  const disk = diskOf(context, mode);
  const { picture, mountpoint } = disk;
  picture.write(disk.disk, MIB);
  for (const size of SIZES[what] ?? []) picture.truncate(disk.disk, size);
  expectCommitted(disk);
  picture.write(disk.disk, 1);
  expectCommitted(disk);
  const other = join(mountpoint, 'other.raw');
  make(other);
  expect(statSync(other).size).toBe(picture.content.length);
  expect(hashOf(other)).toBe(picture.hash);
});

test.for([1, 511, 512, 4095, 4096, 4097, 130_000])('a base of %i bytes', (bytes) => {
  const disk = commitDisk(scratch(), randomOf(SEED), bytes);
  const { picture } = disk;
  picture.write(disk.disk, bytes);
  expectCommitted(disk);
  picture.truncate(disk.disk, bytes + 5000);
  picture.write(disk.disk, 5000);
  expectCommitted(disk);
});

test('a disk larger than its base by --size makes the base as large', () => {
  const disk = commitDisk(scratch(), randomOf(SEED), BYTES, ['--size', String(8 * MIB)]);
  disk.picture.truncate(disk.disk, 8 * MIB);
  disk.picture.write(disk.disk, MIB);
  expectCommitted(disk);
  mustCowfs(['reset', disk.disk]);
  expect(hashOf(disk.disk)).toBe(disk.picture.hash);
});

test.for(TRANSPORT_MODES)('$name: layers of forks and snapshots that came and went', (mode, context) => {
  const disk = diskOf(context, mode);
  const { picture, mountpoint } = disk;
  const other = join(mountpoint, 'other.raw');
  picture.write(disk.disk, MIB);
  mustCowfs(['snapshot', disk.disk, 'one']);
  picture.write(disk.disk, MIB);
  picture.truncate(disk.disk, BYTES - MIB);
  mustCowfs(['fork', disk.disk, other]);
  picture.truncate(disk.disk, BYTES + MIB);
  picture.write(disk.disk, MIB);
  if (mode.transport === 'kernel') picture.trim(disk.disk, 10);
  mustCowfs(['snapshot', disk.disk, 'two']);
  picture.write(disk.disk, MIB);
  for (const name of ['one', 'two']) mustCowfs(['snapshot', disk.disk, name, '--delete']);
  must('rm', [other]);
  // At once: nothing has been merged yet.
  const { layers } = statusOf(mountpoint).disks[0] ?? {};
  console.log(`${mode.name}: ${layers} layers`);
  expectCommitted(disk);
  picture.write(disk.disk, MIB);
  expectCommitted(disk);
});

test('a disk that was rolled back', () => {
  const disk = commitDisk(scratch(), randomOf(SEED), BYTES);
  const { picture } = disk;
  picture.write(disk.disk, MIB);
  mustCowfs(['snapshot', disk.disk, 'one']);
  put(disk.disk, 1000, filled(9, 3 * MIB));
  truncateSync(disk.disk, BYTES + 3 * MIB);
  mustCowfs(['rollback', disk.disk, 'one']);
  mustCowfs(['snapshot', disk.disk, 'one', '--delete']);
  expectCommitted(disk);
});

test('zeroed and preallocated ranges', () => {
  const disk = commitDisk(scratch(), randomOf(SEED), BYTES);
  const { picture } = disk;
  picture.write(disk.disk, MIB);
  must('fallocate', ['-z', '-o', '5000', '-l', String(MIB), disk.disk]);
  picture.content.fill(0, 5000, 5000 + MIB);
  must('fallocate', ['-n', '-o', '0', '-l', String(8 * MIB), disk.disk]);
  must('fallocate', ['-o', '0', '-l', String(6 * MIB), disk.disk]);
  picture.content = patched(picture.content, [6 * MIB - 1, Buffer.alloc(1)]);
  expectCommitted(disk);
});

test('holes: those of the base stay, trimmed ranges become some, a sparse disk of 64 GiB takes no time', () => {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, 64 * 1024 * MIB);
  const places = [0, 17 * 1024 * MIB, 64 * 1024 * MIB - 4 * MIB];
  for (const offset of places) put(base, offset, filled(1, 4 * MIB));
  const before = statSync(base).blocks * 512;
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory));
  put(disk, 33 * 1024 * MIB + 5, filled(2, MIB));
  must('fallocate', ['-p', '-o', String(17 * 1024 * MIB), '-l', String(4 * MIB), disk]);
  // Holes are made anew where there are holes already.
  must('fallocate', ['-p', '-o', String(40 * 1024 * MIB), '-l', String(8 * 1024 * MIB), disk]);
  expect(cowfs(['commit', mountpoint])).toEqual(QUIET);
  const { size, blocks } = statSync(base);
  expect(size).toBe(64 * 1024 * MIB);
  expect(Math.abs(blocks * 512 - (before - 4 * MIB + MIB))).toBeLessThan(MIB);
  const expected = new Map([
    [0, filled(1, 4 * MIB)],
    [17 * 1024 * MIB, Buffer.alloc(4 * MIB)],
    [33 * 1024 * MIB + 5, filled(2, MIB)],
    [64 * 1024 * MIB - 4 * MIB, filled(1, 4 * MIB)],
  ]);
  for (const path of [base, disk]) {
    for (const [offset, bytes] of expected) {
      const found = must('sh', ['-c', `tail -c +${offset + 1} "$0" | head -c ${bytes.length} | sha256sum`, path]);
      expect(found).toBe(must('sha256sum', [], { input: bytes }));
    }
  }
});

test('a disk in use: what was written and closed before is in, whatever its writer does meanwhile', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED), 48 * MIB);
  const { picture, base, mountpoint } = disk;
  // Leaves the first 40 MiB alone, and goes round in the rest.
  const writer = start(process.execPath, [
    '-e',
    `const fs = require('node:fs'); const fd = fs.openSync(process.argv[1], 'r+'); let round = 0; console.log('open');
     const step = () => { for (let i = 0; i < 64; i++) { const at = 40 * 1048576 + (round * 7919 % 2000) * 4096;
       fs.writeSync(fd, Buffer.alloc(4096, 1 + round % 255), 0, 4096, at); round++; } setImmediate(step); }; step();`,
    disk.disk,
  ]);
  await said(writer, 'open');
  for (let round = 0; round < 4; round++) {
    const calm = new Picture(picture.content.subarray(0, 40 * MIB), randomOf(SEED + round));
    calm.write(disk.disk, 8 * MIB);
    calm.content.copy(picture.content);
    expect(cowfs(['commit', mountpoint])).toEqual(QUIET);
    expect(
      readFileSync(base)
        .subarray(0, 40 * MIB)
        .equals(calm.content),
    ).toBe(true);
    // Of each block that the writer writes, all or nothing.
    const rest = readFileSync(base).subarray(40 * MIB, 40 * MIB + 2000 * BLOCK);
    for (let at = 0; at < rest.length; at += BLOCK) {
      const block = rest.subarray(at, at + BLOCK);
      const original = picture.content.subarray(40 * MIB + at, 40 * MIB + at + BLOCK);
      const first = block[0] ?? 0;
      if (!block.equals(Buffer.alloc(BLOCK, first)) && !block.equals(original)) expect.fail(`block at ${at} is torn`);
    }
    expect(
      readFileSync(disk.disk)
        .subarray(0, 40 * MIB)
        .equals(calm.content),
    ).toBe(true);
  }
  writer.kill('SIGKILL');
  await exitOf(writer);
  mustCowfs(['commit', mountpoint]);
  expect(hashOf(base)).toBe(hashOf(disk.disk));
});

test('what is written during a commit is there afterwards, and in the next', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED), BYTES);
  const { picture, base, mountpoint } = disk;
  for (const point of ['logging', 'half', 'applied', 'done'] as const) {
    picture.write(disk.disk, 3 * MIB);
    const committed = picture.hash;
    const child = await stoppedCommit(point, base, mountpoint);
    picture.write(disk.disk, MIB);
    picture.trim(disk.disk, 4);
    picture.truncate(disk.disk, picture.content.length - 5000);
    picture.truncate(disk.disk, picture.content.length + 9000);
    expect(hashOf(disk.disk)).toBe(picture.hash);
    child.kill('SIGCONT');
    expect({ point, end: await exitOf(child) }).toEqual({ point, end: 0 });
    expect(hashOf(base)).toBe(committed);
    expect(hashOf(disk.disk)).toBe(picture.hash);
  }
  mustCowfs(['commit', mountpoint]);
  expect(hashOf(base)).toBe(picture.hash);
  mustCowfs(['unmount', mountpoint]);
  expect(hashOf(base)).toBe(picture.hash);
});

test.for(TRANSPORT_MODES)('$name: --to a new file leaves the base alone', (mode, context) => {
  const disk = diskOf(context, mode);
  const { picture, base, mountpoint, directory } = disk;
  picture.write(disk.disk, MIB);
  picture.truncate(disk.disk, BYTES + MIB);
  const before = untouched(base);
  const to = join(directory, 'new.img');
  expect(cowfs(['commit', mountpoint, '--to', to])).toEqual(QUIET);
  expect(hashOf(to)).toBe(picture.hash);
  expect(untouched(base)).toEqual(before);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  writeFileSync(to, 'mine');
  expectRefusal(cowfs(['commit', mountpoint, '--to', to]), 3, to, '--force');
  expect(readFileSync(to, 'utf8')).toBe('mine');
  expect(cowfs(['commit', mountpoint, '--to', to, '--force'])).toEqual(QUIET);
  expect(hashOf(to)).toBe(picture.hash);
  for (const name of [base, join(directory, 'nowhere', 'x.img'), directory]) {
    const { status, stderr } = cowfs(['commit', mountpoint, '--to', name, '--force']);
    expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(status).toBe(2);
  }
  expect(untouched(base)).toEqual(before);
  expectNames(directory, 'base.img', 'mnt', 'new.img');
  // Others may be there.
  make(join(mountpoint, 'other.raw'));
  expect(cowfs(['commit', disk.disk, '--to', to, '--force'])).toEqual(QUIET);
  expect(hashOf(to)).toBe(picture.hash);
});

test('an overlay: afterwards it is empty, on the new base', async () => {
  let kept = keptDisk();
  const before = fileOf(kept.base);
  put(kept.disk, 5000, filled(1, 100_000));
  truncateSync(kept.disk, 1_200_000);
  must('fallocate', ['-p', '-o', '300000', '-l', '50000', kept.disk]);
  const expected = patched(
    kept.original,
    [1_199_999, Buffer.alloc(1)],
    [5000, filled(1, 100_000)],
    [300_000, Buffer.alloc(50_000)],
  );
  await unmounted(kept);
  const id = infoOf(kept.overlay).id;
  const to = join(kept.directory, 'new.img');
  const untouchedBase = untouched(kept.base);
  const overlayBytes = hashOf(kept.overlay);
  expect(cowfs(['commit', kept.overlay, '--to', to])).toEqual(QUIET);
  expectContent(to, expected);
  expect([untouched(kept.base), hashOf(kept.overlay)]).toEqual([untouchedBase, overlayBytes]);
  expect(cowfs(['commit', kept.overlay])).toEqual(QUIET);
  expectContent(kept.base, expected);
  expect(fileOf(kept.base)).toEqual(before);
  expect(infoOf(kept.overlay)).toMatchObject({
    id,
    writtenBytes: 0,
    size: 1_200_000,
    clean: true,
    inUse: false,
    base: { path: kept.base, size: 1_200_000, changed: null },
  });
  expect(statSync(kept.overlay).blocks * 512).toBeLessThan(100_000);
  kept = remounted(kept);
  expectContent(kept.disk, expected);
  put(kept.disk, 7, Buffer.from('again'));
  await unmounted(kept);
  expect(cowfs(['commit', kept.overlay])).toEqual(QUIET);
  expectContent(kept.base, patched(expected, [7, Buffer.from('again')]));
  expect(cowfs(['commit', kept.overlay])).toEqual(QUIET);
  expectNames(kept.directory, 'base.img', 'mnt', 'new.img', 'vm.cow');
});

test('an overlay whose mount was killed: what was synced is committed', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 100_000));
  process.kill(kept.pid, 'SIGKILL');
  await expect.poll(() => cowfs(['commit', kept.overlay]).status, { timeout: 10_000 }).toBe(0);
  expectContent(kept.base, patched(kept.original, [5000, filled(1, 100_000)]));
  const again = remounted(kept);
  expectContent(again.disk, patched(kept.original, [5000, filled(1, 100_000)]));
  await unmounted(again);
});

test('an overlay whose base was moved: --base says where it is', async () => {
  let kept = keptDisk();
  put(kept.disk, 5000, filled(1, 100_000));
  await unmounted(kept);
  const expected = patched(kept.original, [5000, filled(1, 100_000)]);
  const moved = join(kept.directory, 'moved.img');
  renameSync(kept.base, moved);
  const missing = cowfs(['commit', kept.overlay]);
  expect(missing.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(missing.status).toBe(2);
  expect(cowfs(['commit', kept.overlay, '--base', moved])).toEqual(QUIET);
  expectContent(moved, expected);
  expect(infoOf(kept.overlay)).toMatchObject({ writtenBytes: 0, base: { path: moved, changed: null } });
  kept = remounted({ ...kept, base: moved });
  expectContent(kept.disk, expected);
  await unmounted(kept);
  expectNames(kept.directory, 'mnt', 'moved.img', 'vm.cow');
});

test('a base behind a symlink: the log lies beside the file, which is written to', async () => {
  const directory = scratch();
  const elsewhere = makeMountpoint(directory, 'elsewhere');
  const link = join(elsewhere, 'link.img');
  const disk = commitDisk(directory, randomOf(SEED), BYTES);
  mustCowfs(['unmount', disk.mountpoint]);
  symlinkSync(disk.base, link);
  const { disk: path, mountpoint } = mountDisk(link, disk.mountpoint);
  disk.picture.write(path, MIB);
  const child = await stoppedCommit('half', disk.base, mountpoint);
  expectNames(elsewhere, 'link.img');
  expect(existsSync(redoLogOf(disk.base))).toBe(true);
  child.kill('SIGKILL');
  await exitOf(child);
  mustCowfs(['unmount', mountpoint]);
  expect(cowfs(['mount', link, mountpoint]).stderr).toMatch(/finished now\n$/);
  expect(hashOf(path)).toBe(disk.picture.hash);
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
  mustCowfs(['unmount', mountpoint]);
});

interface Event {
  readonly event: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

function eventsOf(text: string): Event[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Event);
}

test('--json: an event a line, and the last one is "done"', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED), 48 * MIB);
  disk.picture.write(disk.disk, 32 * MIB);
  const { status, stdout, stderr } = cowfs(['commit', disk.mountpoint, '--json']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const events = eventsOf(stdout);
  const last = events.pop();
  expect(last).toMatchObject({ event: 'done' });
  expect(last?.doneBytes).toBe(last?.totalBytes);
  expect(last?.totalBytes).toBeGreaterThan(16 * MIB);
  for (const { event } of events) expect(event).toBe('progress');
  expect(events.map(({ doneBytes }) => doneBytes)).toEqual(
    events.map(({ doneBytes }) => doneBytes).sort((a, b) => a - b),
  );
  const to = eventsOf(mustCowfs(['commit', disk.mountpoint, '--json', '--to', join(disk.directory, 'new.img')]));
  expect(to.at(-1)).toMatchObject({ event: 'done' });
  make(join(disk.mountpoint, 'other.raw'));
  const refused = cowfs(['commit', disk.disk, '--json']);
  expect(refused.status).toBe(3);
  if (refused.stdout !== '') expect(eventsOf(refused.stdout).at(-1)).toMatchObject({ event: 'failed' });
});

test('on a terminal a bar that goes when it is done', () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED), 48 * MIB);
  disk.picture.write(disk.disk, 32 * MIB);
  const line = `${COWFS} commit ${disk.mountpoint}`;
  // script(1) gives it a terminal.
  const { status, stdout } = spawnSync('script', ['-qec', line, '/dev/null'], { encoding: 'utf8', input: '' });
  expect(status).toBe(0);
  expect(stdout).toContain('committing');
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
});

test('a reader that has the disk open and mapped sees the same bytes before, during and after', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED), BYTES);
  const { picture, mountpoint, base } = disk;
  picture.write(disk.disk, 2 * MIB);
  const reader = start(process.execPath, [
    '-e',
    `const fs = require('node:fs'); const { createHash } = require('node:crypto'); const fd = fs.openSync(process.argv[1], 'r');
     const buffer = Buffer.alloc(fs.fstatSync(fd).size); let reads = 0;
     const step = () => { fs.readSync(fd, buffer, 0, buffer.length, 0); const hash = createHash('sha256').update(buffer).digest('hex');
       if (hash !== process.argv[2]) { console.log('differs'); process.exit(1); } if (++reads === 1) console.log('reads'); setImmediate(step); }; step();`,
    disk.disk,
    picture.hash,
  ]);
  onTestFinished(() => {
    reader.kill('SIGKILL');
  });
  await said(reader, 'reads');
  for (const point of ['half', 'applied', 'done'] as const) {
    const child = await stoppedCommit(point, base, mountpoint);
    expect(hashOf(disk.disk)).toBe(picture.hash);
    child.kill('SIGCONT');
    expect(await exitOf(child)).toBe(0);
  }
  expect(hashOf(disk.disk)).toBe(picture.hash);
  expect(reader.exitCode).toBeNull();
});
