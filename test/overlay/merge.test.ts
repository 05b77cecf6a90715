/**
 * Two layers that become one: the disk shows what it showed, what the upper one hid has gone, and a merge that is given
 * up leaves nothing wrong.
 */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { ENOSPC, OK } from '../../src/lib/errno.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import { Merge } from '../../src/overlay/merge.ts';
import { Store } from '../../src/overlay/store.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, difference, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

const BLOCK = 4096;
const content = nonZeroBytes(16 * BLOCK - 9, 1);

afterEach(() => {
  vi.restoreAllMocks();
});

/** A disk of two layers, of which nothing stands on the lower but the upper. */
function twoLayers(lower: (fixture: DiskFixture) => void, upper: (fixture: DiskFixture) => void, bytes = content) {
  const fixture = useDisk({ directory: scratch(), content: bytes });
  const { sessions, session } = fixture;
  lower(fixture);
  const below = sessions.snapshot(session);
  closeStores(sessions.layers.release(below));
  upper(fixture);
  const above = sessions.top(session);
  expect([sessions.layers.backing(above), sessions.layers.references(below)]).toEqual([below, 1]);
  return { ...fixture, above, below, merge: new Merge(sessions.layers, above, below) };
}

type TwoLayers = ReturnType<typeof twoLayers>;

function write(block: number, blocks: number, seed: number): (fixture: DiskFixture) => void {
  return ({ sessions, session }) => {
    const data = nonZeroBytes(blocks * BLOCK, seed);
    expect(sessions.open(session).write(block * BLOCK, data.length, data, 0)).toBe(OK);
  };
}

function run({ merge }: TwoLayers): void {
  while (!merge.isDone) expect(merge.step()).toBe(OK);
}

/** Merges to the end; the disk, and how many blocks it has in its one store. */
function finish(fixture: TwoLayers): { bytes: Buffer; blocks: number; holes: number[] } {
  const { sessions, session, above, below, merge } = fixture;
  run(fixture);
  expect(merge.finish()).toBe(OK);
  const stores = sessions.layers.replace(above, below);
  sessions.layers.recount(below);
  sessions.lowerTop(session, below);
  closeStores(stores);
  expect([sessions.top(session), sessions.layers.depth(below)]).toEqual([below, 1]);
  const disk = sessions.open(session);
  const { writtenBytes, occupiedBytes } = disk.account;
  expect([occupiedBytes, sessions.occupiedBytes]).toEqual([writtenBytes, writtenBytes]);
  return { bytes: readDisk(disk), blocks: writtenBytes / BLOCK, holes: holesOf(fixture) };
}

/** Where data and holes begin, in turn. */
function holesOf({ sessions, session }: DiskFixture): number[] {
  const { layer, sizeBytes } = sessions.open(session);
  const found: number[] = [];
  for (let at = 0, isData = true; at < sizeBytes; isData = !isData) {
    at = isData ? layer.nextHole(at, sizeBytes) : layer.nextData(at, sizeBytes);
    found.push(at);
  }
  return found;
}

function shown({ sessions, session }: DiskFixture): Buffer {
  return readDisk(sessions.open(session));
}

describe('the disk is the same, where the upper layer', () => {
  test.each<[string, (fixture: DiskFixture) => void, blocks: number]>([
    ['has nothing', () => {}, 8],
    ['covers a part of the lower and of the base', write(6, 6, 3), 11],
    ['covers it all', write(0, 16, 3), 16],
    ['was trimmed', ({ sessions, session }) => sessions.open(session).discard(3 * BLOCK, 9 * BLOCK), 2],
    ['was trimmed as a whole', ({ sessions, session }) => sessions.open(session).discard(0, 2 ** 50), 0],
    ['grew', ({ sessions, session }) => sessions.open(session).truncate(40 * BLOCK), 8],
    ['was cut', ({ sessions, session }) => sessions.open(session).truncate(5 * BLOCK), 4],
    ['was cut within a block', ({ sessions, session }) => sessions.open(session).truncate(4 * BLOCK + 7), 4],
  ])('%s', (_, change, blocks) => {
    const fixture = twoLayers(write(1, 8, 2), change);
    const [before, holes] = [shown(fixture), holesOf(fixture)];
    const after = finish(fixture);
    expect(difference(after.bytes, before)).toBe(undefined);
    expect([after.blocks, after.holes]).toEqual([blocks, holes]);
  });

  test.each([4 * BLOCK, 4 * BLOCK + 7, 1, 0])(
    'was cut to %i bytes and grew again: nothing old comes to light',
    (size) => {
      const fixture = twoLayers(write(1, 8, 2), ({ sessions, session }) => {
        const disk = sessions.open(session);
        disk.truncate(size);
        disk.truncate(14 * BLOCK);
        // Another one in the midst of what is hidden.
        disk.write(6 * BLOCK, BLOCK, nonZeroBytes(BLOCK, 5), 0);
      });
      const before = shown(fixture);
      const after = finish(fixture);
      expect(difference(after.bytes, before)).toBe(undefined);
      expect(after.blocks).toBe(Math.max(0, Math.ceil(size / BLOCK) - 1) + 1);
      // Nor later.
      const disk = fixture.sessions.open(fixture.session);
      disk.truncate(20 * BLOCK);
      expect(difference(readDisk(disk), Buffer.concat([before, Buffer.alloc(6 * BLOCK)]))).toBe(undefined);
    },
  );
});

test('what is written while a frozen layer is merged below stays', () => {
  const fixture = twoLayers(write(1, 8, 2), write(4, 8, 3));
  const { sessions, session, above, below, merge } = fixture;
  sessions.freeze(session);
  write(5, 2, 4)(fixture);
  const before = shown(fixture);
  run(fixture);
  expect(difference(shown(fixture), before)).toBe(undefined);
  expect(merge.finish()).toBe(OK);
  closeStores(sessions.layers.replace(above, below));
  sessions.layers.recount(below);
  sessions.recount(session);
  expect(difference(shown(fixture), before)).toBe(undefined);
  const { layers } = sessions;
  expect([layers.depth(sessions.top(session)), layers.backing(sessions.top(session))]).toEqual([2, below]);
  expect([sessions.open(session).account.occupiedBytes, sessions.occupiedBytes]).toEqual([13 * BLOCK, 13 * BLOCK]);
});

describe('given up', () => {
  const large = nonZeroBytes(900 * BLOCK, 1);

  test('after some slices, it has taken nothing, and can be done again', () => {
    const fixture = twoLayers(write(100, 300, 2), write(0, 800, 3), large);
    const { sessions, session, above, below, merge } = fixture;
    const before = shown(fixture);
    expect([merge.step(), merge.isDone]).toEqual([OK, false]);
    expect(difference(shown(fixture), before)).toBe(undefined);
    expect(merge.giveUp()).toBe(OK);
    expect(difference(shown(fixture), before)).toBe(undefined);
    // What the upper one hides is gone: 256 blocks of it were looked at.
    expect(sessions.occupiedBytes).toBe((800 + 300 - 156) * BLOCK);
    expect(sessions.layers.ownBlocks(below)).toBe(300 - 156);
    const again = { ...fixture, merge: new Merge(sessions.layers, above, below) };
    expect(difference(finish(again).bytes, before)).toBe(undefined);
    expect(sessions.open(session).account.occupiedBytes).toBe(800 * BLOCK);
  });

  test('when the store is full', () => {
    const fixture = twoLayers(write(100, 10, 2), write(0, 800, 3), large);
    const { sessions, merge } = fixture;
    const before = shown(fixture);
    expect(merge.step()).toBe(OK);
    vi.spyOn(Store.prototype, 'write').mockReturnValue(ENOSPC);
    expect(merge.step()).toBe(ENOSPC);
    expect(merge.isDone).toBe(false);
    expect(merge.giveUp()).toBe(OK);
    expect(difference(shown(fixture), before)).toBe(undefined);
    expect(sessions.occupiedBytes).toBe(800 * BLOCK);
  });
});
