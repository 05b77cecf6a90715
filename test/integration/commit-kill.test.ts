/**
 * A commit that is killed at any instant: the base is the old one, or the next command makes it the new one by itself; never
 * anything else, and the disk always shows what was written to it.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { askDaemon } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import { cowfs, exitOf, makeMountpoint, mountDisk, mustCowfs, poll, type Result, scratch } from '../harness.ts';
import {
  type CommitDisk,
  commitDisk,
  contentOf,
  expectNames,
  fastScratch,
  hashOf,
  isGone,
  makeHoledBase,
  measured,
  type Phases,
  Picture,
  randomInstant,
  redoLogOf,
  restore,
  startCommit,
} from './commit-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { isAlive } from './nothing-left-support.ts';
import { lookInto, MIB, randomOf, SEED } from './overlay-support.ts';
import { make, outcome } from './sessions-support.ts';

const BASE_BYTES = 40 * MIB + 1234;
const WRITTEN_BYTES = 32 * MIB;
const OVERLAY_KILLS = 17;
const LIVE_KILLS = { kernel: 34, 'fuse-native': 18 };
const DAEMON_KILLS = 16;

/** Whom it hits, and what is there then. */
const kills = { beforeLog: 0, withLog: 0, afterLog: 0, ended: 0 };

console.log(`commit-kill: COWFS_SEED=${SEED}`);

afterAll(() => console.log(`kills ${JSON.stringify(kills)}`));

function count(old: boolean, log: boolean, ended: boolean): void {
  if (ended) kills.ended++;
  else if (log) kills.withLog++;
  else if (old) kills.beforeLog++;
  else kills.afterLog++;
}

function phasesText({ writing, logged, applied, ended }: Phases): string {
  return [writing, logged, applied, ended].map(Math.round).join(', ');
}

/** Says in one line that it has finished what was interrupted, if there was anything, and nothing else. */
function expectTold({ status, stderr }: Result, log: boolean): void {
  expect(stderr).toMatch(log ? /^cowfs: [^\n]*commit that was interrupted is finished now\n$/ : /^$/);
  expect({ status }).toEqual({ status: 0 });
}

const SHAPES = [
  { shape: 'of the same size', size: BASE_BYTES },
  { shape: 'that has grown', size: BASE_BYTES + 9 * MIB + 77 },
  { shape: 'that has shrunk', size: BASE_BYTES - 7 * MIB - 99 },
];
const PLACES = [
  { place: 'in memory', directoryOf: fastScratch },
  { place: 'on a disk', directoryOf: scratch },
];
const OVERLAY_CASES = PLACES.flatMap((place) => SHAPES.map((shape) => ({ ...place, ...shape })));

test.for(OVERLAY_CASES)('an overlay $shape, $place', { timeout: 300_000 }, async (each) => {
  const { directoryOf, size, place, shape } = each;
  const random = randomOf(SEED + size + place.length);
  const directory = directoryOf();
  const aside = directoryOf();
  const base = join(directory, 'base.img');
  const overlay = join(directory, 'vm.cow');
  const mountpoint = makeMountpoint(directory);
  makeHoledBase(base, random, BASE_BYTES);
  const picture = new Picture(readFileSync(base), random);
  const { disk } = mountDisk(base, mountpoint, ['--overlay', overlay]);
  picture.write(disk, WRITTEN_BYTES);
  picture.truncate(disk, size);
  picture.write(disk, MIB);
  picture.trim(disk, 20);
  mustCowfs(['unmount', mountpoint]);
  const states = { old: hashOf(base), new: picture.hash };
  for (const name of ['base.img', 'vm.cow']) restore(join(directory, name), join(aside, name));
  const { writtenBytes } = lookInto(overlay);
  const phases = await measured(base, overlay);
  expect(contentOf(base, states)).toBe('new');
  console.log(`${shape}, ${place}: writes, has log, has applied, ended after ${phasesText(phases)} ms`);

  const exported = join(aside, 'exported.img');
  const shows = {
    mount: () => {
      const result = cowfs(['mount', base, mountpoint, '--overlay', overlay]);
      if (result.status === 0) {
        expect(contentOf(disk, states)).toBe('new');
        mustCowfs(['unmount', mountpoint]);
      }
      return result;
    },
    run: () => {
      const result = cowfs(['run', base, '--overlay', overlay, '--', 'sha256sum', '{}']);
      if (result.status === 0) expect(result.stdout.split(' ')[0]).toBe(states.new);
      return result;
    },
    export: () => {
      const result = cowfs(['export', overlay, exported]);
      if (result.status === 0) expect(contentOf(exported, states)).toBe('new');
      rmSync(exported, { force: true });
      return result;
    },
    bare: () => {
      const wanted = existsSync(redoLogOf(base)) ? 'new' : contentOf(base, states);
      const result = cowfs(['mount', base, mountpoint]);
      if (result.status === 0) {
        expect(contentOf(disk, states)).toBe(wanted);
        mustCowfs(['unmount', mountpoint]);
      }
      return result;
    },
    diff: () => cowfs(['diff', overlay]),
    commit: () => {
      const result = cowfs(['commit', overlay]);
      if (result.status === 0) expect(contentOf(base, states)).toBe('new');
      return result;
    },
  };
  const followers = Object.keys(shows) as (keyof typeof shows)[];
  for (let round = 0; round < OVERLAY_KILLS; round++) {
    for (const name of ['base.img', 'vm.cow']) restore(join(aside, name), join(directory, name));
    const child = startCommit(overlay);
    await randomInstant(child, base, phases, random);
    child.kill('SIGKILL');
    const end = await exitOf(child);
    const log = existsSync(redoLogOf(base));
    const found = contentOf(base, states);
    count(found === 'old', log, end === 0);
    if (!log) expect(found).toMatch(/^(old|new)$/);
    // Which may be looked at in any state.
    if (round % 4 === 0) expect(cowfs(['info', overlay])).toMatchObject({ status: 0, stderr: '' });
    const follower = followers[round % followers.length] ?? 'mount';
    expectTold(shows[follower](), log);
    const now = contentOf(base, states);
    if (log || follower === 'commit') expect(now).toBe('new');
    else expect(now).toBe(found);
    const { problems, writtenBytes: left } = lookInto(overlay);
    expect(problems.filter(({ kind }) => kind !== 'leftover')).toEqual([]);
    expect({ now, left }).toEqual({ now, left: now === 'new' ? 0 : writtenBytes });
    expectNames(directory, 'base.img', 'vm.cow', 'mnt');
    if (round % 2 === 0 && follower !== 'mount' && follower !== 'run') expectTold(shows.run(), false);
  }
});

/** What may change a disk between two commits. */
function change(random: (below: number) => number, { picture, disk }: CommitDisk, canTrim: boolean): void {
  const size = picture.content.length;
  const way = random(6);
  if (way === 0) picture.truncate(disk, size + random(8 * MIB));
  if (way === 1) picture.truncate(disk, Math.max(24 * MIB, size - random(12 * MIB)));
  if (way === 2) {
    picture.truncate(disk, Math.max(24 * MIB, size - random(12 * MIB)));
    picture.truncate(disk, picture.content.length + random(12 * MIB));
  }
  picture.write(disk, way === 3 ? WRITTEN_BYTES / 8 : WRITTEN_BYTES);
  if (canTrim) picture.trim(disk, 1 + random(20));
}

function ask(mountpoint: string, request: Parameters<typeof askDaemon>[1]): Promise<unknown> {
  return askDaemon(findEntry(mountpoint)?.socket ?? '', request);
}

/** Fails unless everything is refused that would show the base as it is now. */
async function expectGuarded({ mountpoint, disk, directory }: CommitDisk, throughCommand: boolean): Promise<void> {
  const other = join(mountpoint, 'other.raw');
  expect(outcome(() => make(other))).toBe('EBUSY');
  expect(existsSync(other)).toBe(false);
  const name = 'disk.raw';
  const requests = [
    { command: 'reset', disk: name, force: true },
    { command: 'fork', disk: name, to: 'other.raw' },
    { command: 'snapshot', disk: name, name: 'here' },
  ] as const;
  for (const request of requests) await expect(ask(mountpoint, request)).rejects.toMatchObject({ kind: 'refused' });
  if (!throughCommand) return;
  for (const args of [
    ['reset', disk, '--force'],
    ['fork', disk, other],
    ['snapshot', disk, 'here'],
  ]) {
    const { status, stderr } = cowfs(args);
    expect({ args, status }).toEqual({ args, status: 3 });
    expect(stderr).toMatch(/^cowfs: [^\n]*commit[^\n]*\n$/);
  }
  expectNames(
    directory,
    ...(existsSync(redoLogOf(join(directory, 'base.img'))) ? ['.base.img.cowfs-redo'] : []),
    'base.img',
    'mnt',
  );
}

/** Whether disks may be made again, once the daemon has noticed that the command is gone. */
async function isGuarded(mountpoint: string): Promise<boolean> {
  const other = join(mountpoint, 'other.raw');
  const made = (): boolean => outcome(() => make(other)) === 'OK';
  const isFree = await poll('free', made, 300).then(
    () => true,
    () => false,
  );
  if (isFree) {
    rmSync(other);
    await poll('the other disk is gone', async () => {
      const { disks } = (await ask(mountpoint, { command: 'status' })) as { disks: unknown[] };
      return disks.length === 1;
    });
  }
  return !isFree;
}

test.for(['kernel', 'fuse-native'] as const)(
  'a mounted disk, through %s, whose command is killed',
  { timeout: 300_000 },
  async (transport, context) => {
    if (transport === 'fuse-native') needsFuseNative(context);
    const random = randomOf(SEED + transport.length);
    const disk = commitDisk(fastScratch(), random, BASE_BYTES, ['--transport', transport]);
    const { base, directory, mountpoint, picture } = disk;
    const canTrim = transport === 'kernel';
    change(random, disk, canTrim);
    const phases = await measured(base, mountpoint);
    console.log(`${transport}: writes, has log, has applied, ended after ${phasesText(phases)} ms`);
    let old = picture.hash;
    expect(contentOf(base, { old })).toBe('old');
    let chained = 0;
    for (let round = 0; round < LIVE_KILLS[transport]; round++) {
      change(random, disk, canTrim);
      const states = { old, new: picture.hash };
      const child = startCommit(mountpoint);
      await randomInstant(child, base, phases, random);
      child.kill('SIGKILL');
      const end = await exitOf(child);
      const log = existsSync(redoLogOf(base));
      const found = contentOf(base, states);
      count(found === 'old', log, end === 0);
      // Of a chain, the base may be anything between while there is a log; without one it has come to its end.
      if (!log) expect(found).toMatch(chained === 0 ? /^(old|new)$/ : /^new$/);
      expect(hashOf(disk.disk)).toBe(states.new);
      const isUnfinished = log && (chained > 0 || found !== 'old');
      if (isUnfinished) await expectGuarded(disk, random(4) === 0);
      else if (await isGuarded(mountpoint)) expect(found === 'new' || log).toBe(true);
      picture.write(disk.disk, MIB);
      expect(hashOf(disk.disk)).toBe(picture.hash);
      if (isUnfinished && random(3) > 0 && round < LIVE_KILLS[transport] - 1) {
        chained++;
        continue;
      }
      chained = 0;
      expect(cowfs(['commit', mountpoint])).toEqual({ status: 0, stdout: '', stderr: '' });
      old = picture.hash;
      expect(contentOf(base, { old })).toBe('old');
      expect(hashOf(disk.disk)).toBe(old);
      expectNames(directory, 'base.img', 'mnt');
      expect(await isGuarded(mountpoint)).toBe(false);
    }
    picture.write(disk.disk, MIB);
    mustCowfs(['commit', mountpoint]);
    mustCowfs(['unmount', mountpoint]);
    expect(hashOf(base)).toBe(picture.hash);
    expectNames(directory, 'base.img', 'mnt');
  },
);

test.for(['the daemon', 'the daemon and the command', 'the command and then the daemon'])(
  'a mounted disk: %s killed',
  { timeout: 300_000 },
  async (victims) => {
    const random = randomOf(SEED + victims.length);
    const directory = fastScratch();
    const elsewhere = join(directory, 'elsewhere');
    mkdirSync(elsewhere);
    let disk = commitDisk(directory, random, BASE_BYTES);
    const { base, mountpoint } = disk;
    change(random, disk, true);
    const phases = await measured(base, mountpoint);
    for (let round = 0; round < DAEMON_KILLS; round++) {
      const old = hashOf(base);
      change(random, disk, true);
      const states = { old, new: disk.picture.hash };
      const daemon = findEntry(mountpoint)?.pid ?? 0;
      const child = startCommit(mountpoint);
      await randomInstant(child, base, phases, random);
      if (victims.startsWith('the command')) {
        child.kill('SIGKILL');
        await exitOf(child);
        expect(hashOf(disk.disk)).toBe(states.new);
      }
      process.kill(daemon, 'SIGKILL');
      if (victims.endsWith('the command')) child.kill('SIGKILL');
      const end = await exitOf(child);
      await poll('nothing of the mount is left', () => !isAlive(daemon) && isGone(mountpoint));
      const log = existsSync(redoLogOf(base));
      const found = contentOf(base, states);
      count(found === 'old', log, end === 0);
      if (!log) expect(found).toMatch(/^(old|new)$/);
      if (end === 0) expect({ log, found }).toEqual({ log: false, found: 'new' });
      if (round % 2 === 0) {
        const ran = cowfs(['run', base, '--', 'sha256sum', '{}']);
        expectTold(ran, log);
        expect(ran.stdout.split(' ')[0]).toBe(log ? states.new : states[found as 'old' | 'new']);
      }
      const mounted = cowfs(['mount', base, mountpoint]);
      expectTold(mounted, log && round % 2 !== 0);
      const now = contentOf(base, states);
      expect(now).toBe(log ? 'new' : found);
      expect(contentOf(disk.disk, states)).toBe(now);
      expectNames(directory, 'base.img', 'elsewhere', 'mnt');
      disk = { ...disk, picture: new Picture(readFileSync(base), random) };
    }
    mustCowfs(['unmount', mountpoint]);
  },
);
