/** `cowfs fork`: a second disk with the present content of a first; from then on each goes its own way. */
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  readdirSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { cowfs, must, mustCowfs, poll } from '../harness.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  ALL_MODES,
  BLOCK,
  descriptors,
  diskStatus,
  expectContent,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  unchanging,
  untilOnly,
  untilStores,
  WRITEBACK,
} from './sessions-support.ts';

test.for(ALL_MODES)('$name: it starts with all of it, and neither sees what the other does', async (mode, context) => {
  const { mountpoint, disk, original, at, pid } = mountSessions(mode, context);
  mkdirSync(at('job'));
  put(disk, 5000, filled(1, 20_000));
  chmodSync(disk, 0o640);
  mustCowfs(['fork', disk, at('job/b.raw')]);
  const common = patched(original, [5000, filled(1, 20_000)]);
  expectContent(at('job/b.raw'), common);
  expect(statSync(at('job/b.raw'))).toMatchObject({ mode: 0o100640, uid: statSync(disk).uid });
  expect(statSync(at('job/b.raw')).ino).not.toBe(statSync(disk).ino);

  put(disk, 6001, filled(2, 10));
  truncateSync(at('job/b.raw'), 8000);
  put(at('job/b.raw'), 290_000, filled(3, 30_000));
  const second = patched(Buffer.alloc(320_000), [0, common.subarray(0, 8000)], [290_000, filled(3, 30_000)]);
  expectContent(disk, patched(common, [6001, filled(2, 10)]));
  expectContent(at('job/b.raw'), second);
  expect(diskStatus(mountpoint, 'job/b.raw')).toMatchObject({ size: 320_000, snapshots: [] });

  unlinkSync(disk);
  expectContent(at('job/b.raw'), second);
  await poll('it is gone', async () => (await statusNow(mountpoint)).disks.length === 1);
  unlinkSync(at('job/b.raw'));
  await untilOnly(mountpoint, [], 0);
  await untilStores(pid, 0);
});

test.for(KERNEL_MODES)(
  '$name: of an open disk, what write(2) took is in it, grown ends and holes included',
  (mode, context) => {
    const { disk, original, at } = mountSessions(mode, context);
    const fd = opened(disk);
    writeSync(fd, filled(1, 50_000), 0, 50_000, 123);
    writeSync(fd, filled(2, 50_000), 0, 50_000, 400_000);
    mustCowfs(['fork', disk, at('b.raw')]);
    const first = patched(original, [123, filled(1, 50_000)], [400_000, filled(2, 50_000)]);
    expectContent(at('b.raw'), first);
    must('fallocate', ['-p', '-o', '0', '-l', '20000', disk]);
    ftruncateSync(fd, 420_000);
    writeSync(fd, Buffer.from('later'), 0, 5, 300_000);
    mustCowfs(['fork', disk, at('c.raw')]);
    const second = patched(first.subarray(0, 420_000), [0, Buffer.alloc(20_000)], [300_000, Buffer.from('later')]);
    expectContent(at('c.raw'), second);
    expectContent(at('b.raw'), first);
    expectContent(fd, second);
  },
);

test.for(TRANSPORT_MODES)(
  '$name: a fork takes no space; what both still share is counted once',
  async (mode, context) => {
    const { mountpoint, disk, original, at } = mountSessions(mode, context, ['--max-store', '1M']);
    put(disk, 0, filled(1, 40 * BLOCK));
    mustCowfs(['fork', disk, at('b.raw')]);
    mustCowfs(['fork', at('b.raw'), at('c.raw')]);
    expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(40 * BLOCK);
    put(at('b.raw'), 0, filled(2, 10 * BLOCK));
    expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(50 * BLOCK);
    for (const name of ['disk.raw', 'c.raw']) expect(diskStatus(mountpoint, name).writtenBytes).toBe(40 * BLOCK);
    unlinkSync(disk);
    unlinkSync(at('c.raw'));
    // What is left of the first under the second is hidden by what that wrote itself, and freed.
    await untilOnly(mountpoint, ['b.raw'], 40 * BLOCK);
    expectContent(at('b.raw'), patched(original, [0, filled(1, 40 * BLOCK)], [0, filled(2, 10 * BLOCK)]));
    mustCowfs(['reset', at('b.raw')]);
    await untilOnly(mountpoint, ['b.raw'], 0);
  },
);

/** Every order in which four can go. */
const ORDERS = permutations([0, 1, 2, 3]);

function permutations(of: readonly number[]): number[][] {
  if (of.length === 0) return [[]];
  return of.flatMap((first) => permutations(of.filter((each) => each !== first)).map((rest) => [first, ...rest]));
}

test.for(TRANSPORT_MODES)(
  '$name: fork of fork of fork, removed in every order: space and descriptors come back',
  async (mode, context) => {
    const { mountpoint, original, at, pid } = mountSessions(mode, context, ['--empty']);
    make(at('warm.raw'));
    put(at('warm.raw'), 0, filled(0, 10));
    unlinkSync(at('warm.raw'));
    await untilOnly(mountpoint, [], 0);
    const before = descriptors(pid);
    // Enough of the orders for two transports on a small machine; all of them in a few runs.
    for (const order of ORDERS.filter((_, index) => index % 4 === (mode.transport === 'kernel' ? 0 : 1))) {
      const contents: Buffer[] = [];
      for (let index = 0; index < 4; index++) {
        const path = at(`${index}.raw`);
        if (index === 0) make(path);
        else mustCowfs(['fork', at(`${index - 1}.raw`), path]);
        const bytes = filled(index, 30_000);
        put(path, index * 20_000 + 7, bytes);
        contents.push(patched(contents[index - 1] ?? original, [index * 20_000 + 7, bytes]));
      }
      const left = new Set([0, 1, 2, 3]);
      for (const gone of order) {
        unlinkSync(at(`${gone}.raw`));
        left.delete(gone);
        for (const index of left) expectContent(at(`${index}.raw`), contents[index] as Buffer);
      }
      await untilOnly(mountpoint, [], 0);
      await poll('descriptors are back', () => descriptors(pid) === before);
    }
  },
);

test.for(TRANSPORT_MODES)('$name: refusals are one line, and change nothing', async (mode, context) => {
  const { mountpoint, disk, directory, at } = mountSessions(mode, context);
  put(disk, 0, filled(1, 5000));
  make(at('b.raw'));
  mkdirSync(at('job'));
  make(at('job/c.raw'));
  const before = await unchanging(mountpoint);
  const other = mountSessions(mode, context, ['--empty']);
  const refused: [code: number, from: string, to: string, says: string][] = [
    [3, disk, at('b.raw'), 'b.raw'],
    [3, disk, disk, 'disk.raw'],
    [3, disk, at('job'), 'job'],
    [3, disk, at('job/c.raw'), 'job/c.raw'],
    [3, disk, at('b.raw/x.raw'), 'b.raw'],
    [2, disk, at('nowhere/x.raw'), 'nowhere'],
    [2, at('nothing.raw'), at('x.raw'), 'nothing.raw'],
    [2, at('job'), at('x.raw'), 'job'],
    [2, mountpoint, at('x.raw'), mountpoint],
    [2, disk, mountpoint, 'name a new disk'],
    [2, disk, `${directory}/x.raw`, 'x.raw'],
    [2, disk, other.at('x.raw'), other.at('x.raw')],
    [2, `${directory}/base.img`, at('x.raw'), 'base.img'],
    [2, `${directory}/none/x.raw`, at('x.raw'), 'none'],
    [3, disk, at('.cowfs'), '.cowfs'],
    [2, disk, at('.cowfs/x.raw'), '.cowfs'],
    [3, disk, at(`${'n'.repeat(252)}.raw`), 'nnn'],
  ];
  for (const [code, from, to, says] of refused) expectRefusal(cowfs(['fork', from, to]), code, says);
  expect(await unchanging(mountpoint)).toEqual(before);
  expect(readdirSync(mountpoint).sort()).toEqual(['b.raw', 'disk.raw', 'job']);
  expect(readdirSync(at('job'))).toEqual(['c.raw']);
  expect(readdirSync(other.mountpoint)).toEqual([]);
});

test('paths are found through symlinks, from inside the mount, and with names that need care', () => {
  const { mountpoint, disk, directory, original, at } = mountSessions(WRITEBACK, undefined);
  put(disk, 0, filled(1, 5000));
  const link = `${directory}/link`;
  must('ln', ['-s', mountpoint, link]);
  mustCowfs(['fork', `${link}/disk.raw`, `${link}/by link.raw`]);
  mustCowfs(['fork', 'by link.raw', './ü "quoted".raw'], { cwd: mountpoint });
  mkdirSync(at('job'));
  mustCowfs(['fork', '../disk.raw', 'in job.raw'], { cwd: at('job') });
  const expected = patched(original, [0, filled(1, 5000)]);
  for (const name of ['by link.raw', 'ü "quoted".raw', 'job/in job.raw']) expectContent(at(name), expected);
  const dash = cowfs(['fork', '--', 'disk.raw', '-dash.raw'], { cwd: mountpoint });
  expect(dash).toMatchObject({ status: 0, stdout: '', stderr: '' });
  expectContent(at('-dash.raw'), expected);
});

test('a fork of a disk that was removed while open is refused', async () => {
  const { disk, at, mountpoint } = mountSessions(WRITEBACK, undefined);
  const fd = opened(disk);
  unlinkSync(disk);
  expectRefusal(cowfs(['fork', disk, at('b.raw')]), 2, disk);
  expectRefusal(cowfs(['fork', (await statusNow(mountpoint)).disks[0]?.pathByNumber ?? '', at('b.raw')]), 2, '.cowfs');
  closeSync(fd);
  await untilOnly(mountpoint, [], 0);
});
