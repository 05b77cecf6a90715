/** Commits that are killed at each of their steps, in the daemon's sight and out of it, and what is done then. */
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import { cowfs, exitOf, makeBase, makeMountpoint, mountDisk, mustCowfs, poll, statusOf } from '../harness.ts';
import {
  commitDisk,
  contentOf,
  expectNames,
  fastScratch,
  hashOf,
  interrupted,
  interruptedCommit,
  makeHoledBase,
  NAMING,
  names,
  Picture,
  POINTS,
  type Point,
  redoLogOf,
  stoppedCommit,
} from './commit-support.ts';
import { isAlive } from './nothing-left-support.ts';
import { lookInto, MIB, randomOf, SEED } from './overlay-support.ts';
import { make, outcome, statusNow } from './sessions-support.ts';

console.log(`commit-points: COWFS_SEED=${SEED}`);

const BYTES = 6 * MIB + 777;
const SIZES = { same: BYTES, grown: BYTES + 3 * MIB, shrunk: BYTES - 2 * MIB };
const SIZE_NAMES = Object.keys(SIZES) as (keyof typeof SIZES)[];

/** What the base must be when a commit was killed there. */
const BASE_AT: Readonly<Record<Point, 'old' | 'new' | 'either'>> = {
  logging: 'old',
  written: 'old',
  published: 'old',
  begun: 'old',
  half: 'either',
  synced: 'new',
  applied: 'new',
  done: 'new',
};
const hasLog = (point: Point): boolean => POINTS.indexOf(point) >= 2 && point !== 'done';

const CASES = POINTS.flatMap((point) => SIZE_NAMES.map((size) => ({ point, size })));

test.for(CASES)('an overlay, $size: killed at "$point"', async ({ point, size }) => {
  const directory = fastScratch();
  const base = join(directory, 'base.img');
  const overlay = join(directory, 'vm.cow');
  const mountpoint = makeMountpoint(directory);
  const random = randomOf(SEED);
  makeHoledBase(base, random, BYTES);
  const picture = new Picture(readFileSync(base), random);
  const { disk } = mountDisk(base, mountpoint, ['--overlay', overlay]);
  picture.write(disk, 3 * MIB);
  picture.truncate(disk, SIZES[size]);
  picture.write(disk, MIB);
  picture.trim(disk, 3);
  mustCowfs(['unmount', mountpoint]);
  const states = { old: hashOf(base), new: picture.hash };
  await interruptedCommit(point, base, overlay);
  if (BASE_AT[point] !== 'either') expect(contentOf(base, states)).toBe(BASE_AT[point]);
  // Whoever finishes it may be killed, too.
  if (hasLog(point)) {
    for (const again of ['synced', 'applied'] as const) {
      if (POINTS.indexOf(again) >= POINTS.indexOf(point)) await interrupted(again, base, 'diff', overlay);
      expect(existsSync(redoLogOf(base))).toBe(true);
    }
  }
  const ran = cowfs(['run', base, '--overlay', overlay, '--', 'sha256sum', '{}']);
  expect(ran.stderr).toMatch(hasLog(point) ? /^cowfs: [^\n]*finished now\n$/ : /^$/);
  expect(ran.stdout.split(' ')[0]).toBe(states.new);
  const now = contentOf(base, states);
  expect(now).toBe(BASE_AT[point] === 'old' && !hasLog(point) ? 'old' : 'new');
  expect(lookInto(overlay).writtenBytes > 0).toBe(now === 'old');
  expectNames(directory, 'base.img', 'mnt', 'vm.cow');
  mustCowfs(['commit', overlay]);
  expect(contentOf(base, states)).toBe('new');
});

test.for(CASES)('a mounted disk, $size: the command killed at "$point"', async ({ point, size }) => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 1), BYTES);
  const { base, directory, mountpoint, picture } = disk;
  picture.write(disk.disk, 2 * MIB);
  picture.truncate(disk.disk, SIZES[size]);
  picture.write(disk.disk, 2 * MIB);
  picture.trim(disk.disk, 3);
  const states = { old: hashOf(base), new: picture.hash };
  await interruptedCommit(point, base, mountpoint);
  if (BASE_AT[point] !== 'either') expect(contentOf(base, states)).toBe(BASE_AT[point]);
  expect(hashOf(disk.disk)).toBe(states.new);
  picture.write(disk.disk, MIB);
  picture.trim(disk.disk, 3);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  const other = join(mountpoint, 'other.raw');
  if (POINTS.indexOf(point) >= POINTS.indexOf('begun')) {
    expect(outcome(() => make(other))).toBe('EBUSY');
    for (const args of [
      ['reset', '--force', disk.disk],
      ['fork', disk.disk, other],
      ['snapshot', disk.disk, 'now'],
    ]) {
      expect(cowfs(args)).toMatchObject({ status: 3, stdout: '' });
    }
  }
  expect(cowfs(['commit', mountpoint])).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(hashOf(base)).toBe(picture.hash);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  expectNames(directory, 'base.img', 'mnt');
  make(other);
  expect(hashOf(other)).toBe(picture.hash);
});

test.for(POINTS)('a mounted disk: the daemon killed at "%s", the command goes on', async (point) => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 2), BYTES);
  const { base, directory, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  picture.trim(disk.disk, 3);
  const states = { old: hashOf(base), new: picture.hash };
  const child = await stoppedCommit(point, base, mountpoint);
  const daemon = findEntry(mountpoint)?.pid ?? 0;
  process.kill(daemon, 'SIGKILL');
  await poll('the daemon is gone', () => !isAlive(daemon));
  // Others may come meanwhile: they get the base as it was, or not at all, or finish the commit.
  const between = cowfs(['run', base, '--', 'sha256sum', '{}']);
  if (between.status === 0) expect([states.old, states.new]).toContain(between.stdout.split(' ')[0]);
  child.kill('SIGCONT');
  const end = await exitOf(child);
  expect([0, 1, 3]).toContain(end);
  const log = existsSync(redoLogOf(base));
  if (!log) expect(contentOf(base, states)).toMatch(/^(old|new)$/);
  const ran = cowfs(['run', base, '--', 'sha256sum', '{}']);
  expect(ran.stderr).toMatch(log ? /^cowfs: [^\n]*finished now\n$/ : /^$/);
  expect(ran.stdout.split(' ')[0]).toBe(log ? states.new : hashOf(base));
  expect(contentOf(base, states)).toMatch(log ? /^new$/ : /^(old|new)$/);
  await poll('the mount is gone', () => !existsSync(join(mountpoint, 'disk.raw')));
  expectNames(directory, 'base.img', 'mnt');
});

/** Waits until what a commit froze has been merged with what was written since. */
async function untilMerged(mountpoint: string): Promise<void> {
  await poll('layers are merged', async () => (await statusNow(mountpoint)).disks[0]?.layers === 1, 20_000);
}

test.for(['layered', 'merged'])(
  'a second commit leaves nothing of the first past the end that the base had: %s',
  async (how) => {
    const disk = commitDisk(fastScratch(), randomOf(SEED + 3), BYTES);
    const { base, mountpoint, picture } = disk;
    picture.truncate(disk.disk, BYTES + 6 * MIB);
    picture.write(disk.disk, 12 * MIB);
    await interruptedCommit('synced', base, mountpoint);
    expect(statSync(base).size).toBe(BYTES + 6 * MIB);
    if (how === 'merged') {
      picture.write(disk.disk, 1);
      await untilMerged(mountpoint);
    }
    picture.truncate(disk.disk, BYTES + MIB);
    picture.truncate(disk.disk, BYTES + 6 * MIB);
    expect(hashOf(disk.disk)).toBe(picture.hash);
    if (how === 'layered') await untilMerged(mountpoint);
    mustCowfs(['commit', mountpoint]);
    expect(hashOf(disk.disk)).toBe(picture.hash);
    expect(hashOf(base)).toBe(picture.hash);
  },
);

test('a second commit of a disk that has shrunk since the first, and grown again', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 4), BYTES);
  const { base, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  picture.truncate(disk.disk, BYTES - 3 * MIB);
  await interruptedCommit('synced', base, mountpoint);
  await interruptedCommit('applied', base, mountpoint);
  picture.truncate(disk.disk, BYTES - MIB - 5);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  await interruptedCommit('half', base, mountpoint);
  picture.truncate(disk.disk, BYTES - 4 * MIB);
  picture.truncate(disk.disk, BYTES + MIB);
  picture.write(disk.disk, MIB);
  await interruptedCommit('applied', base, mountpoint);
  mustCowfs(['unmount', mountpoint]);
  cowfs(['run', base, '--', 'true']);
  expect(hashOf(base)).toBe(picture.hash);
});

test('a status in the middle of a commit does not take it for somebody else’s change', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 5), BYTES);
  const { base, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  for (const point of ['half', 'applied'] as const) {
    picture.write(disk.disk, 3 * MIB);
    const child = await stoppedCommit(point, base, mountpoint);
    expect(statusOf(mountpoint)).toMatchObject({ baseChanged: null, warnings: [] });
    child.kill('SIGCONT');
    expect(await exitOf(child)).toBe(0);
    expect(statusOf(mountpoint)).toMatchObject({ baseChanged: null, warnings: [] });
  }
});

test.for(['written', 'published', 'half', 'done'] as const)(
  'once a commit that was interrupted at "%s" is finished, the base has not changed for the status',
  async (point) => {
    const disk = commitDisk(fastScratch(), randomOf(SEED + 5), BYTES);
    const { base, mountpoint, picture } = disk;
    picture.write(disk.disk, 3 * MIB);
    await interruptedCommit(point, base, mountpoint);
    statusOf(mountpoint);
    mustCowfs(['commit', mountpoint]);
    expect(statusOf(mountpoint)).toMatchObject({ baseChanged: null, warnings: [] });
  },
);

test('SIGINT, SIGTERM and SIGHUP end a commit as a kill does', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 6), BYTES);
  const { base, mountpoint, picture } = disk;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    for (const point of ['logging', 'half', 'done'] as const) {
      picture.write(disk.disk, MIB);
      const old = hashOf(base);
      const child = await stoppedCommit(point, base, mountpoint);
      child.kill(signal);
      child.kill('SIGCONT');
      expect({ signal, point, end: await exitOf(child) }).toEqual({ signal, point, end: signal });
      expect(existsSync(redoLogOf(base))).toBe(point === 'half');
      if (point === 'logging') expect(hashOf(base)).toBe(old);
      if (point === 'done') expect(hashOf(base)).toBe(picture.hash);
      expect(hashOf(disk.disk)).toBe(picture.hash);
    }
    mustCowfs(['commit', mountpoint]);
    expect(hashOf(base)).toBe(picture.hash);
  }
});

test('two interrupted commits, a mount that goes, and the next command finishes the last', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 7), BYTES);
  const { base, directory, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  await interruptedCommit('half', base, mountpoint);
  picture.write(disk.disk, 3 * MIB);
  await interruptedCommit('begun', base, mountpoint);
  const last = picture.hash;
  picture.write(disk.disk, MIB);
  // That is discarded, as what was written to any disk.
  mustCowfs(['unmount', mountpoint]);
  const ran = cowfs(['run', base, '--', 'sha256sum', '{}']);
  expect(ran.stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
  expect(ran.stdout.split(' ')[0]).toBe(last);
  expect(hashOf(base)).toBe(last);
  expectNames(directory, 'base.img', 'mnt');
});

test('a commit that is killed while its log takes the place of another leaves nothing else', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 8), BYTES);
  const { base, directory, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  await interruptedCommit('half', base, mountpoint);
  const committed = picture.hash;
  picture.write(disk.disk, MIB);
  await interrupted(NAMING, base, 'commit', mountpoint);
  expect(hashOf(disk.disk)).toBe(picture.hash);
  mustCowfs(['unmount', mountpoint]);
  const ran = cowfs(['run', base, '--', 'sha256sum', '{}']);
  expect(ran.stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
  expect(ran.stdout.split(' ')[0]).toBe(committed);
  expectNames(directory, 'base.img', 'mnt');
});

test('a log that is about to take the place of another is not swept away by who looks at the base meanwhile', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 8), BYTES);
  const { base, directory, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  await interruptedCommit('half', base, mountpoint);
  // That one's is.
  picture.write(disk.disk, MIB);
  await interrupted(NAMING, base, 'commit', mountpoint);
  const child = await stoppedCommit(NAMING, base, mountpoint);
  const during = names(directory);
  expect(during).toHaveLength(4);
  expect(cowfs(['run', base, '--', 'true'])).toMatchObject({ status: 125, stderr: expect.stringMatching(/in use/) });
  expect(names(directory)).toEqual(during);
  child.kill('SIGCONT');
  expect(await exitOf(child)).toBe(0);
  expect(hashOf(base)).toBe(picture.hash);
  expectNames(directory, 'base.img', 'mnt');
});

test('as soon as the log is there, nobody else gets to see the base, although the command was killed at once', async () => {
  const disk = commitDisk(fastScratch(), randomOf(SEED + 9), BYTES);
  const { base, mountpoint, picture } = disk;
  picture.write(disk.disk, 3 * MIB);
  await interruptedCommit('published', base, mountpoint);
  // The daemon hears of it in its own time.
  await poll('the daemon has noticed', () =>
    /interrupted|^$/.test(cowfs(['commit', mountpoint, '--to', join(disk.directory, 'new.img'), '--force']).stderr),
  );
  expect(outcome(() => make(join(mountpoint, 'other.raw')))).toBe('EBUSY');
  expect(cowfs(['reset', '--force', disk.disk]).status).toBe(3);
});

/** An overlay whose commit was killed when half of the base was written. */
async function interruptedOverlay(): Promise<{
  directory: string;
  base: string;
  overlay: string;
  mountpoint: string;
  wanted: string;
}> {
  const directory = fastScratch();
  const base = join(directory, 'base.img');
  const overlay = join(directory, 'vm.cow');
  const mountpoint = makeMountpoint(directory);
  const random = randomOf(SEED + 10);
  makeHoledBase(base, random, BYTES);
  const picture = new Picture(readFileSync(base), random);
  const { disk } = mountDisk(base, mountpoint, ['--overlay', overlay]);
  picture.write(disk, 3 * MIB);
  mustCowfs(['unmount', mountpoint]);
  await interruptedCommit('half', base, overlay);
  return { directory, base, overlay, mountpoint, wanted: picture.hash };
}

/** What a next command on the base says and shows. */
function expectFinished(base: string, wanted: string): void {
  const ran = cowfs(['run', base, '--', 'sha256sum', '{}']);
  expect(ran.stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
  expect(ran.stdout.split(' ')[0]).toBe(wanted);
  expect(hashOf(base)).toBe(wanted);
  expect(existsSync(redoLogOf(base))).toBe(false);
}

test('an interrupted commit of an overlay that is gone', async () => {
  const { directory, base, overlay, wanted } = await interruptedOverlay();
  rmSync(overlay);
  expectFinished(base, wanted);
  expectNames(directory, 'base.img', 'mnt');
});

test('an interrupted commit of an overlay that was moved: it is refused, and with --force it shows the same', async () => {
  const { directory, base, overlay, wanted } = await interruptedOverlay();
  const moved = join(directory, 'moved.cow');
  renameSync(overlay, moved);
  expectFinished(base, wanted);
  const line = ['run', base, '--overlay', moved];
  expect(cowfs([...line, '--', 'true']).stderr).toMatch(/^cowfs: [^\n]*--force[^\n]*\n$/);
  expect(mustCowfs([...line, '--force', '--', 'sha256sum', '{}']).split(' ')[0]).toBe(wanted);
});

test.for(['no overlay', 'a new overlay'])(
  'an interrupted commit of an overlay in whose place there is %s',
  async (what) => {
    const { base, overlay, wanted, directory } = await interruptedOverlay();
    if (what === 'no overlay') writeFileSync(overlay, 'something else');
    else {
      rmSync(overlay);
      const other = makeBase(directory, MIB, 'other.img');
      mustCowfs([
        'run',
        other,
        '--overlay',
        overlay,
        '--',
        'sh',
        '-c',
        'echo mine | dd of="$0" conv=notrunc status=none',
        '{}',
      ]);
    }
    const before = hashOf(overlay);
    expectFinished(base, wanted);
    expect(hashOf(overlay)).toBe(before);
  },
);
