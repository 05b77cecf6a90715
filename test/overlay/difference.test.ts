/**
 * What sets a layer apart from the base, and where its bytes lie, over random stacks: against what the base shows, block by
 * block, and against what plain reads give.
 */
import { readSync, rmSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import { BASE, STORE, ZERO } from '../../src/overlay/block.ts';
import { differencesOf } from '../../src/overlay/export/source.ts';
import type { Layer } from '../../src/overlay/layer.ts';
import { scratch } from '../harness.ts';
import { difference, openDisk, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

vi.setConfig({ testTimeout: 120_000 });

const BLOCK = 4096;
const MOST_BLOCKS = 40;

const places = fc.oneof(
  fc.nat({ max: 30 * BLOCK }),
  fc.tuple(fc.nat({ max: 30 }), fc.integer({ min: -1, max: 1 })).map(([block, by]) => Math.max(0, block * BLOCK + by)),
);
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      offset: places,
      length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 4 * BLOCK })),
      seed: fc.nat({ max: 10_000 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('discard' as const),
      offset: places,
      length: fc.integer({ min: 1, max: 8 * BLOCK }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('truncate' as const), size: places }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('freeze' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('allocate' as const),
      offset: places,
      length: fc.integer({ min: 1, max: 4 * BLOCK }),
    }),
  },
);

/** Blocks that something happened to; of others nothing may be said. */
class Touched {
  readonly blocks = new Set<number>();

  add(offset: number, length: number): void {
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block++) this.blocks.add(block);
  }

  /** What was cut off does not come back. */
  cut(size: number): void {
    this.add(size, MOST_BLOCKS * BLOCK - size);
  }
}

interface Case {
  readonly layer: Layer;
  readonly bytes: Buffer;
  readonly content: Buffer;
  readonly touched: Touched;
}

function checkDifferences({ layer, bytes, content, touched }: Case): void {
  const base = Buffer.alloc(Math.max(bytes.length, content.length));
  content.copy(base);
  const end = Math.ceil(bytes.length / BLOCK);
  let next = 0;
  for (const { first, count, state } of differencesOf(layer)) {
    expect(first).toBe(next);
    expect(count).toBeGreaterThan(0);
    next = first + count;
    for (let block = first; block < next; block++) {
      const [from, to] = [block * BLOCK, Math.min(bytes.length, (block + 1) * BLOCK)];
      expect([BASE, STORE, ZERO]).toContain(state);
      if (state === BASE) expect([block, bytes.compare(base, from, to, from, to)]).toEqual([block, 0]);
      if (state === ZERO) expect([block, bytes.subarray(from, to).some((byte) => byte !== 0)]).toEqual([block, false]);
      if (!touched.blocks.has(block)) expect([block, state]).toEqual([block, BASE]);
    }
  }
  expect(next).toBe(end);
  // From anywhere on, and however far one looks.
  for (let block = 0; block < end; block++) {
    const whole = layer.differenceAt(block, end - block);
    const state = layer.difference;
    expect(whole).toBeGreaterThan(0);
    expect(whole).toBeLessThanOrEqual(end - block);
    expect(layer.differenceAt(block, 1)).toBe(1);
    expect(layer.difference).toBe(state);
  }
}

function checkPlaces({ layer, bytes }: Case): void {
  const placed = Buffer.alloc(bytes.length, 0xaa);
  const at = [0, 1, 4095, 4096, 4097, Math.floor(bytes.length / 2)];
  for (const start of at.filter((offset) => offset < bytes.length)) {
    for (let offset = start; offset < bytes.length; ) {
      const found = layer.locate(offset, bytes.length - offset);
      expect(found).toBeGreaterThan(0);
      expect(found).toBeLessThanOrEqual(bytes.length - offset);
      placed.fill(0, offset, offset + found);
      // Past the end of a store are zeros.
      if (layer.placeFd >= 0) readSync(layer.placeFd, placed, offset, found, layer.placeOffset);
      offset += found;
    }
    expect(difference(placed.subarray(start), bytes.subarray(start))).toBe(undefined);
  }
}

test.each([
  { baseBytes: 20 * BLOCK + 77, holes: [2, 3, 7] },
  { baseBytes: 12 * BLOCK, holes: [] },
  { baseBytes: 1, holes: [] },
])('random stacks over a base of $baseBytes bytes', ({ baseBytes, holes }) => {
  const directory = scratch();
  const content = nonZeroBytes(baseBytes, baseBytes);
  for (const block of holes) content.fill(0, block * BLOCK, (block + 1) * BLOCK);
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 25, size: 'max' }), (steps) => {
      const fixture = openDisk({ directory, content, holes });
      const { sessions, session } = fixture;
      const touched = new Touched();
      const check = (): void => {
        const disk = sessions.open(session);
        const found: Case = { layer: disk.layer, bytes: readDisk(disk), content, touched };
        checkDifferences(found);
        checkPlaces(found);
      };
      try {
        for (const each of steps) {
          const disk = sessions.open(session);
          const { sizeBytes } = disk;
          if (each.kind === 'freeze') {
            check();
            sessions.freeze(session);
          } else if (each.kind === 'truncate') {
            expect(disk.truncate(each.size)).toBe(OK);
            if (each.size < sizeBytes) touched.cut(each.size);
          } else if (each.kind === 'discard') {
            expect(disk.discard(each.offset, each.length)).toBe(OK);
            touched.add(each.offset, each.length);
          } else if (each.kind === 'allocate') {
            expect(disk.allocate(each.offset, each.length, true)).toBe(OK);
            touched.add(each.offset, each.length);
          } else {
            expect(disk.write(each.offset, each.length, nonZeroBytes(each.length, each.seed), 0)).toBe(OK);
            touched.add(each.offset, each.length);
          }
        }
        check();
      } finally {
        fixture.close();
        rmSync(fixture.basePath);
      }
    }),
    { numRuns: 150 },
  );
});

test('a run is as long as it can be seen to be', () => {
  const { sessions, session } = useDisk({ directory: scratch(), content: nonZeroBytes(1000 * BLOCK, 1) });
  const { layer } = sessions.open(session);
  expect([layer.differenceAt(0, 1000), layer.difference]).toEqual([1000, BASE]);
  const disk = sessions.open(session);
  disk.write(100 * BLOCK, 50 * BLOCK, nonZeroBytes(50 * BLOCK, 2), 0);
  disk.discard(500 * BLOCK, 100 * BLOCK);
  expect([...differencesOf(disk.layer)].map(({ first, state }) => [first, state])).toEqual([
    [0, BASE],
    [100, STORE],
    [150, BASE],
    [500, ZERO],
    [600, BASE],
  ]);
});

test('where the disk was cut within a block, the block is data, and the rest zeros', () => {
  const { sessions, session } = useDisk({ directory: scratch(), content: nonZeroBytes(10 * BLOCK, 1) });
  const disk = sessions.open(session);
  disk.truncate(4 * BLOCK + 7);
  disk.truncate(20 * BLOCK);
  sessions.freeze(session);
  const states = [...differencesOf(sessions.open(session).layer)];
  expect(states.at(0)).toEqual({ first: 0, count: 4, state: BASE });
  expect(states.at(1)).toEqual({ first: 4, count: 1, state: STORE });
  expect(states.slice(2).every(({ state }) => state === ZERO || state === BASE)).toBe(true);
});
