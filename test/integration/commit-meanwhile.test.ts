/** What others do while a commit is under way: the mount ends, disks go, exports begin, other commands come to the base. */
import { closeSync, existsSync, mkdirSync, renameSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openBase } from '../../src/base/open.ts';
import { DaemonConnection } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import { openFinished } from '../../src/overlay/commit/open-finished.ts';
import { cowfs, exitOf, makeBase, makeMountpoint, mountDisk, mustCowfs, poll, run, scratch } from '../harness.ts';
import {
  type CommitDisk,
  contentOf,
  hashOf,
  interruptedCommit,
  type Point,
  redoLogOf,
  SMALL_BYTES,
  smallDisk,
  stoppedCommit,
} from './commit-support.ts';
import { expectRefusal, isAlive, watcherOf } from './nothing-left-support.ts';
import { type KeptDisk, keptDisk, MIB, SEED, unmounted } from './overlay-support.ts';
import { filled, make, outcome, put } from './sessions-support.ts';

console.log(`commit-meanwhile: COWFS_SEED=${SEED}`);

/** An overlay that is closed, and what its base will be. */
async function smallOverlay(): Promise<{ kept: KeptDisk; states: { new: string } }> {
  const kept = keptDisk([], SMALL_BYTES);
  put(kept.disk, 5000, filled(3, MIB));
  const states = { new: hashOf(kept.disk) };
  await unmounted(kept);
  return { kept, states };
}

const ENDS: Readonly<Record<string, (disk: CommitDisk) => Promise<void>>> = {
  'is unmounted': async ({ mountpoint }) => void mustCowfs(['unmount', mountpoint]),
  'dies with its daemon': async ({ mountpoint }) => {
    const pid = findEntry(mountpoint)?.pid ?? 0;
    process.kill(pid, 'SIGKILL');
    await poll('the daemon is gone', () => !isAlive(pid));
  },
};
const LATE: readonly Point[] = ['begun', 'half', 'applied'];

test.for(Object.keys(ENDS).flatMap((end) => LATE.map((point): [string, Point] => [end, point])))(
  'the mount %s at the point "%s": nobody gets at the base before the commit has come to its end',
  async ([end, point]) => {
    const disk = smallDisk();
    const states = { new: disk.picture.hash };
    const commit = await stoppedCommit(point, disk.base, disk.mountpoint);
    await ENDS[end]?.(disk);
    const second = makeMountpoint(disk.directory, 'second');
    expectRefusal(cowfs(['mount', disk.base, second]), 3, `pid ${commit.pid}`);
    const io = run('qemu-io', ['-f', 'raw', '-r', '-c', 'read 0 512', disk.base]);
    expect(io).toMatchObject({ status: 1, stderr: expect.stringContaining('lock') });
    commit.kill('SIGCONT');
    expect(await exitOf(commit)).toBe(0);
    expect(contentOf(disk.base, states)).toBe('new');
    expect(existsSync(redoLogOf(disk.base))).toBe(false);
    const { disk: again } = mountDisk(disk.base, second);
    expect(hashOf(again)).toBe(states.new);
  },
);

test('the mount ends before there is a log: the commit fails, and the base is as it was', async () => {
  const disk = smallDisk();
  const before = hashOf(disk.base);
  const commit = await stoppedCommit('logging', disk.base, disk.mountpoint);
  mustCowfs(['unmount', disk.mountpoint]);
  commit.kill('SIGCONT');
  expect(await exitOf(commit)).toBe(1);
  expect(hashOf(disk.base)).toBe(before);
  expect(existsSync(redoLogOf(disk.base))).toBe(false);
});

test('a disk that is being committed cannot be removed', async () => {
  const disk = smallDisk();
  const commit = await stoppedCommit('half', disk.base, disk.mountpoint);
  expect(outcome(() => unlinkSync(disk.disk))).toBe('EBUSY');
  expect(outcome(() => make(join(disk.mountpoint, 'new.raw')))).toBe('EBUSY');
  commit.kill('SIGKILL');
  await exitOf(commit);
  expect(outcome(() => unlinkSync(disk.disk))).toBe('EBUSY');
  mustCowfs(['commit', disk.mountpoint]);
  expect(hashOf(disk.base)).toBe(disk.picture.hash);
  unlinkSync(disk.disk);
});

test('an export that begins during a commit reads what it was lent after that has ended', async () => {
  const disk = smallDisk();
  const commit = await stoppedCommit('half', disk.base, disk.mountpoint);
  put(disk.disk, 0, filled(9, 5000));
  const daemon = new DaemonConnection(findEntry(disk.mountpoint)?.socket ?? '');
  onTestFinished(() => daemon.close());
  const lent = await daemon.ask({ command: 'hold', disk: 'disk.raw', purpose: 'read' });
  expect(lent.layers.length).toBe(2);
  commit.kill('SIGCONT');
  expect(await exitOf(commit)).toBe(0);
  for (const { id, storeFd } of lent.layers) {
    const { runs } = await daemon.ask({ command: 'map', layer: id, from: 0 });
    expect(runs.length).toBeGreaterThan(1);
    expect(existsSync(`/proc/${lent.pid}/fd/${storeFd}`)).toBe(true);
  }
  daemon.close();
  // It is given back, and with it the store of the layer that the base has now.
  const [committed] = lent.layers;
  await poll('its store is closed', () => !existsSync(`/proc/${lent.pid}/fd/${committed?.storeFd}`));
  const image = join(disk.directory, 'image.raw');
  mustCowfs(['export', disk.mountpoint, image]);
  expect(hashOf(image)).toBe(hashOf(disk.disk));
});

test.for(['published', 'begun', 'half', 'applied'] as const)(
  'other commands come while a commit of an overlay is at the point "%s": they are told to wait, and it ends well',
  async (point) => {
    const { kept, states } = await smallOverlay();
    const commit = await stoppedCommit(point, kept.base, kept.overlay);
    for (const args of [
      ['mount', kept.base, kept.mountpoint],
      ['run', kept.base, '--overlay', kept.overlay, '--', 'true'],
      ['commit', kept.overlay],
      ['export', kept.overlay, join(kept.directory, 'image.raw')],
    ]) {
      expectRefusal(cowfs(args), args[0] === 'run' ? 125 : 3, 'a commit is under way', `pid ${commit.pid}`);
    }
    commit.kill('SIGCONT');
    expect(await exitOf(commit)).toBe(0);
    expect(contentOf(kept.base, states)).toBe('new');
    expect(existsSync(redoLogOf(kept.base))).toBe(false);
  },
);

test('a log of another disk, under a live mount: the commit is refused, and that log stays', async () => {
  const { kept, states } = await smallOverlay();
  await interruptedCommit('half', kept.base, kept.overlay);
  const log = redoLogOf(kept.base);
  renameSync(log, `${log}.hidden`);
  const { mountpoint, disk } = mountDisk(kept.base, kept.mountpoint);
  renameSync(`${log}.hidden`, log);
  put(disk, 0, filled(7, 4096));
  expectRefusal(cowfs(['commit', mountpoint]), 3, log, '--to');
  expect(existsSync(log)).toBe(true);
  // It serves on as before.
  put(disk, 8192, filled(8, 4096));
  mustCowfs(['unmount', mountpoint]);
  expect(cowfs(['run', kept.base, '--', 'true'])).toMatchObject({ status: 0 });
  expect(contentOf(kept.base, states)).toBe('new');
});

test('a log that comes to light between the first look and the lock is seen', async () => {
  const { kept, states } = await smallOverlay();
  await interruptedCommit('half', kept.base, kept.overlay);
  const log = redoLogOf(kept.base);
  renameSync(log, `${log}.hidden`);
  let opens = 0;
  const { opened, finished } = await openFinished(
    kept.base,
    () => {
      if (opens++ === 0) renameSync(`${log}.hidden`, log);
      return openBase(kept.base, false);
    },
    ({ descriptor }) => closeSync(descriptor.fd),
  );
  closeSync(opened.descriptor.fd);
  expect(opens).toBe(2);
  expect(finished).toContain('is finished now');
  expect(contentOf(kept.base, states)).toBe('new');
});

test('what is no disk is told what it is', async () => {
  const directory = scratch();
  const image = join(directory, 'image.raw');
  mkdirSync(join(directory, 'plain'));
  expectRefusal(cowfs(['diff', join(directory, 'plain')]), 2, 'is in no live cowfs mount');
  expectRefusal(cowfs(['export', join(directory, 'plain'), image]), 2, 'is in no live cowfs mount');
  // A mount that nobody serves, nor takes away.
  const { mountpoint, disk } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory, 'dead'));
  const { pid = 0 } = findEntry(mountpoint) ?? {};
  for (const each of [watcherOf(mountpoint), pid]) process.kill(each, 'SIGKILL');
  await poll('the daemon is gone', () => !isAlive(pid));
  expectRefusal(cowfs(['export', disk, image]), 2, 'is in no live cowfs mount');
});

test('an overlay whose base was moved: the message says what to do', async () => {
  const { kept } = await smallOverlay();
  renameSync(kept.base, `${kept.base}.moved`);
  expectRefusal(cowfs(['diff', kept.overlay]), 2, kept.base, '--base');
  expect(cowfs(['diff', kept.overlay, '--base', `${kept.base}.moved`])).toMatchObject({ status: 0 });
});
