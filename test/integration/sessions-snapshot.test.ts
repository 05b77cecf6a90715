/** `cowfs snapshot` and `cowfs rollback`: named moments of a disk, the way back to them, and their space. */
import { closeSync, fstatSync, readFileSync, statSync, truncateSync, unlinkSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { SnapshotStatus } from '../../src/daemon/status.ts';
import { cowfs, must, mustCowfs, sha256 } from '../harness.ts';
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

/** Names as the command lists them for programs. */
function listed(disk: string): SnapshotStatus[] {
  return JSON.parse(mustCowfs(['snapshot', disk, '--json'])) as SnapshotStatus[];
}

test.for(ALL_MODES)('$name: back to each moment, in any order, byte and size', async (mode, context) => {
  const { mountpoint, disk, original, base } = mountSessions(mode, context);
  const before = await sha256(base);
  const moments = new Map<string, Buffer>();
  const remember = (name: string): void => {
    mustCowfs(['snapshot', disk, name]);
    moments.set(name, readFileSync(disk));
  };
  remember('fresh');
  put(disk, 5001, filled(1, 30_000));
  remember('written');
  truncateSync(disk, 20_000);
  remember('shrunk');
  truncateSync(disk, 350_000);
  put(disk, 349_000, filled(2, 40_000));
  remember('grown');
  truncateSync(disk, 0);
  remember('empty');
  expect(moments.get('fresh')?.equals(original)).toBe(true);
  expect(listed(disk).map(({ name, size }) => `${name} ${size}`)).toEqual(
    [...moments].map(([name, content]) => `${name} ${content.length}`),
  );
  for (const name of ['shrunk', 'fresh', 'grown', 'written', 'empty', 'fresh', 'shrunk']) {
    mustCowfs(['rollback', disk, name]);
    const content = moments.get(name) as Buffer;
    expect(statSync(disk).size).toBe(content.length);
    expectContent(disk, content);
    // What is written after is gone at the next way back.
    put(disk, 100, filled(3, 50_000));
    expectContent(disk, patched(content, [100, filled(3, 50_000)]));
  }
  mustCowfs(['reset', disk]);
  expectContent(disk, original);
  expect(listed(disk)).toHaveLength(5);
  mustCowfs(['rollback', disk, 'grown']);
  expectContent(disk, moments.get('grown') as Buffer);
  expect(diskStatus(mountpoint, 'disk.raw').snapshots.map(({ name }) => name)).toEqual([...moments.keys()]);
  expect(await sha256(base)).toBe(before);
});

test.for(KERNEL_MODES)('$name: of an open disk, what write(2) took is in it; the writer goes on', (mode, context) => {
  const { disk, original } = mountSessions(mode, context);
  const fd = opened(disk);
  writeSync(fd, filled(1, 50_000), 0, 50_000, 123);
  writeSync(fd, filled(2, 50_000), 0, 50_000, 400_000);
  mustCowfs(['snapshot', disk, 'then']);
  const then = patched(original, [123, filled(1, 50_000)], [400_000, filled(2, 50_000)]);
  writeSync(fd, filled(3, 60_000), 0, 60_000, 420_000);
  writeSync(fd, filled(4, 10), 0, 10, 200);
  const now = patched(then, [420_000, filled(3, 60_000)], [200, filled(4, 10)]);
  expectContent(fd, now);
  expect(fstatSync(fd).size).toBe(480_000);
  closeSync(fd);
  expectContent(disk, now);
  mustCowfs(['rollback', disk, 'then']);
  expectContent(disk, then);
});

test.for(TRANSPORT_MODES)(
  '$name: a chain of 40 with writes in between: back to each of them',
  async (mode, context) => {
    const { mountpoint, disk, original, pid } = mountSessions(mode, context);
    const contents = [original];
    for (let index = 1; index <= 40; index++) {
      const bytes = filled(index, 3000 + index * 100);
      const offset = (index * 37_003) % 280_000;
      put(disk, offset, bytes);
      contents.push(patched(contents[index - 1] as Buffer, [offset, bytes]));
      mustCowfs(['snapshot', disk, `s${index}`]);
    }
    await untilStores(pid, 40);
    expectContent(disk, contents[40] as Buffer);
    for (let index = 40; index >= 1; index -= 3) {
      mustCowfs(['rollback', disk, `s${index}`]);
      expectContent(disk, contents[index] as Buffer);
    }
    // Every other one is forgotten; the rest still is what it was.
    for (let index = 1; index <= 40; index += 2) mustCowfs(['snapshot', disk, `s${index}`, '--delete']);
    for (let index = 2; index <= 40; index += 6) {
      mustCowfs(['rollback', disk, `s${index}`]);
      expectContent(disk, contents[index] as Buffer);
    }
    unlinkSync(disk);
    await untilOnly(mountpoint, [], 0);
    await untilStores(pid, 0);
  },
);

test.for(TRANSPORT_MODES)('$name: --delete frees what nothing else needs, at once', async (mode, context) => {
  const { mountpoint, disk, at, original, pid } = mountSessions(mode, context);
  const occupied = async (): Promise<number> => (await statusNow(mountpoint)).store.occupiedBytes;
  put(disk, 0, filled(1, 20 * BLOCK));
  mustCowfs(['snapshot', disk, 'first']);
  put(disk, 0, filled(2, 10 * BLOCK));
  mustCowfs(['snapshot', disk, 'second']);
  expect(await occupied()).toBe(30 * BLOCK);
  mustCowfs(['reset', disk]);
  expect(await occupied()).toBe(30 * BLOCK);
  mustCowfs(['snapshot', disk, 'second', '--delete']);
  expect(await occupied()).toBe(20 * BLOCK);
  expect(listed(disk).map(({ name }) => name)).toEqual(['first']);
  mustCowfs(['rollback', disk, 'first']);
  expectContent(disk, patched(original, [0, filled(1, 20 * BLOCK)]));
  // The fork has what the snapshot had, and keeps it.
  mustCowfs(['fork', disk, at('b.raw')]);
  mustCowfs(['snapshot', disk, 'first', '--delete']);
  mustCowfs(['reset', disk]);
  expect(await occupied()).toBe(20 * BLOCK);
  expectContent(at('b.raw'), patched(original, [0, filled(1, 20 * BLOCK)]));
  unlinkSync(at('b.raw'));
  await untilOnly(mountpoint, ['disk.raw'], 0);
  await untilStores(pid, 0);
  expect(listed(disk)).toEqual([]);
});

test('snapshots go with their disk, also one that is replaced or removed while open; forks have none', async () => {
  const { mountpoint, at, original, pid } = mountSessions(WRITEBACK, undefined, ['--empty']);
  for (const name of ['a.raw', 'b.raw', 'c.raw']) {
    make(at(name));
    put(at(name), 0, filled(1, 5 * BLOCK));
    mustCowfs(['snapshot', at(name), 'one']);
    put(at(name), 0, filled(2, 5 * BLOCK));
  }
  mustCowfs(['fork', at('a.raw'), at('d.raw')]);
  expect(listed(at('d.raw'))).toEqual([]);
  expectRefusal(cowfs(['rollback', at('d.raw'), 'one']), 2, 'd.raw', 'one');
  unlinkSync(at('d.raw'));
  must('mv', [at('a.raw'), at('b.raw')]);
  expect(listed(at('b.raw')).map(({ name }) => name)).toEqual(['one']);
  mustCowfs(['rollback', at('b.raw'), 'one']);
  expectContent(at('b.raw'), patched(original, [0, filled(1, 5 * BLOCK)]));
  const fd = opened(at('c.raw'));
  unlinkSync(at('b.raw'));
  unlinkSync(at('c.raw'));
  make(at('c.raw'));
  expect(listed(at('c.raw'))).toEqual([]);
  closeSync(fd);
  await untilOnly(mountpoint, ['c.raw'], 0);
  await untilStores(pid, 0);
});

test('snapshots that come and go leave neither layers nor descriptors behind', async () => {
  const { mountpoint, disk, original, pid } = mountSessions(WRITEBACK, undefined);
  put(disk, 0, filled(0, BLOCK));
  mustCowfs(['reset', disk]);
  const before = descriptors(pid);
  let content = original;
  for (let round = 0; round < 12; round++) {
    put(disk, round * BLOCK, filled(round, 2 * BLOCK));
    content = patched(content, [round * BLOCK, filled(round, 2 * BLOCK)]);
    mustCowfs(['snapshot', disk, 'only']);
    mustCowfs(['snapshot', disk, 'only', '--delete']);
  }
  expectContent(disk, content);
  await untilOnly(mountpoint, ['disk.raw'], 13 * BLOCK);
  expect(diskStatus(mountpoint, 'disk.raw').layers).toBeLessThanOrEqual(2);
  expectContent(disk, content);
  mustCowfs(['reset', disk]);
  await untilOnly(mountpoint, ['disk.raw'], 0);
  expect(descriptors(pid)).toBe(before);
});

test.for(TRANSPORT_MODES)('$name: refusals are one line, and change nothing', async (mode, context) => {
  const { mountpoint, disk, directory, at } = mountSessions(mode, context);
  put(disk, 0, filled(1, 5000));
  mustCowfs(['snapshot', disk, 'one']);
  put(disk, 0, filled(2, 50_000));
  must('mkdir', [at('job')]);
  const before = await unchanging(mountpoint);
  const content = readFileSync(disk);
  const refused: [code: number, args: string[], says: string][] = [
    [3, ['snapshot', disk, 'one'], 'one'],
    [3, ['snapshot', disk, 'x'.repeat(256)], 'xxx'],
    [3, ['snapshot', disk, ''], disk],
    [2, ['snapshot', disk, 'two', '--delete'], 'two'],
    [2, ['snapshot', disk, '--delete'], '--delete'],
    [2, ['snapshot', disk, 'one', '--json'], '--json'],
    [2, ['snapshot', at('none.raw'), 'two'], 'none.raw'],
    [2, ['snapshot', at('none.raw')], 'none.raw'],
    [2, ['snapshot', at('job'), 'two'], 'job'],
    [2, ['snapshot', mountpoint, 'two'], mountpoint],
    [2, ['snapshot', `${directory}/base.img`, 'two'], 'base.img'],
    [2, ['rollback', disk, 'two'], 'two'],
    [2, ['rollback', at('none.raw'), 'one'], 'none.raw'],
    [2, ['rollback', mountpoint, 'one'], mountpoint],
  ];
  for (const [code, args, says] of refused) expectRefusal(cowfs(args), code, says);
  expect(await unchanging(mountpoint)).toEqual(before);
  const fd = opened(disk, 'r');
  expectRefusal(cowfs(['rollback', disk, 'one']), 3, disk, 'open');
  closeSync(fd);
  expect(await unchanging(mountpoint)).toEqual(before);
  expectContent(disk, content);
});

test('names of snapshots may be any text; the list is a table for people', () => {
  const { disk } = mountSessions(WRITEBACK, undefined);
  expect(mustCowfs(['snapshot', disk])).toBe(`${disk} has no snapshots\n`);
  const names = ['a b', 'ü', 'with/slash', '2024-01-01T00:00:00Z', 'x'.repeat(255), '.', '..', '"'];
  for (const name of names) mustCowfs(['snapshot', disk, name]);
  expect(listed(disk).map(({ name }) => name)).toEqual(names);
  const table = mustCowfs(['snapshot', disk]);
  expect(table).toMatch(/^NAME +SIZE +MADE\n/);
  for (const name of names) expect(table).toContain(name);
  for (const { createdAt } of listed(disk)) expect(Math.abs(Date.parse(createdAt) - Date.now())).toBeLessThan(600_000);
  for (const name of names) mustCowfs(['rollback', disk, name]);
  for (const name of names) mustCowfs(['snapshot', disk, name, '--delete']);
  expect(listed(disk)).toEqual([]);
});
