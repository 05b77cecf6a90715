/**
 * Exports and commits to where files have neither hard links nor a time without a name, as on FAT and much of FUSE. Mounts
 * of cowfs itself are such a place: through the kernel transport one can rename without replacing in one step
 * (renameat2), through fuse-native one cannot.
 */
import { linkSync, readdirSync, readFileSync } from 'node:fs';
import { expect, type TestContext, test } from 'vitest';
import { cowfs, exitOf, makeBase, makeMountpoint, mountDisk, mustCowfs } from '../harness.ts';
import { killedNaming, stoppedNaming } from './commit-support.ts';
import { BLOCK, exported, MIB } from './export-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  expectContent,
  filled,
  type Mode,
  mountSessions,
  outcome,
  patched,
  put,
  type SessionsMount,
  TRANSPORT_MODES,
} from './sessions-support.ts';

/** Of the first disk: in its mount files may end as names aside do. */
const NAME = 'first.cowfs-new';

interface Places {
  /** What is exported, and what it contains. */
  readonly disk: string;
  readonly content: Buffer;
  /** A mount that has one disk so far; a new file there would have the content of its base. */
  readonly target: SessionsMount;
}

function places(mode: Mode, context: TestContext): Places {
  const target = mountSessions(mode, context, ['--name', NAME], 2 * MIB);
  expect(outcome(() => linkSync(target.disk, target.at('link')))).toMatch(/^E/);
  const { directory } = target;
  const { disk } = mountDisk(makeBase(directory, MIB + 5, 'other.img'), makeMountpoint(directory, 'other'));
  const bytes = filled(1, 10_000);
  put(disk, 5000, bytes);
  put(disk, 20 * BLOCK, Buffer.alloc(10 * BLOCK));
  return { disk, content: patched(readFileSync(disk), [5000, bytes]), target };
}

function expectFiles({ target }: Places, ...names: readonly string[]): void {
  expect(readdirSync(target.mountpoint).sort()).toEqual([NAME, ...names].sort());
}

test.for(TRANSPORT_MODES)('$name: export and commit --to, with and without --force', (mode, context) => {
  const all = places(mode, context);
  const { disk, content, target } = all;
  const image = target.at('image.raw');
  exported(disk, image, 'raw');
  expectContent(image, content);
  expectRefusal(cowfs(['export', disk, image]), 3, image, '--force');
  put(disk, 0, filled(2, 1000));
  exported(disk, image, 'raw', ['--force']);
  const now = patched(content, [0, filled(2, 1000)]);
  expectContent(image, now);
  mustCowfs(['commit', disk, '--to', target.at('committed.raw')]);
  expectContent(target.at('committed.raw'), now);
  expectFiles(all, 'image.raw', 'committed.raw');
});

test.for(TRANSPORT_MODES)('$name: one that is killed leaves a name that the next sweeps', async (mode, context) => {
  const all = places(mode, context);
  const { disk, content, target } = all;
  const image = target.at('image.raw');
  exported(disk, image, 'raw');
  await killedNaming(image, 'export', disk, image, '--force');
  expect(readdirSync(target.mountpoint)).toHaveLength(3);
  const stopped = await stoppedNaming(image, 'export', disk, image, '--force');
  expect(readdirSync(target.mountpoint)).toHaveLength(3);
  exported(disk, image, 'raw', ['--force']);
  expect(readdirSync(target.mountpoint)).toHaveLength(3);
  stopped.kill('SIGCONT');
  expect(await exitOf(stopped)).toBe(0);
  expectContent(image, content);
  expectFiles(all, 'image.raw');
});
