/**
 * Maps that go: all their nodes are memory for others again, which find nothing of them.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Arena } from '../../src/overlay/arena.ts';
import { BASE, type BlockState, STORE, ZERO } from '../../src/overlay/block.ts';
import { BlockMap } from '../../src/overlay/map.ts';
import { LAYER } from '../../src/overlay/shared.ts';
import { mapSteps } from './thread-jobs.ts';

const LIMIT = 2 ** 40;

function newMap(arena: Arena): { map: BlockMap; control: Int32Array } {
  const control = new Int32Array(new SharedArrayBuffer(LAYER.WORDS * 4));
  return { map: new BlockMap(arena, control), control };
}

function free(arena: Arena, map: BlockMap): void {
  arena.lock();
  map.free();
  arena.unlock();
}

test('of any content, by any view of it', () => {
  const arena = new Arena(Arena.create());
  const before = arena.usedBytes;
  const range = fc.tuple(
    fc.oneof(fc.nat({ max: 5000 }), fc.nat({ max: LIMIT - 1 })),
    fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.constant(2 ** 31)),
    fc.constantFrom<BlockState>(0, 1, 2, 3),
  );
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12, size: 'max' }), fc.boolean(), (ranges, hasCleared) => {
      const { map, control } = newMap(arena);
      for (const [first, count, state] of ranges) {
        // Only zeros come by the terabyte: all else takes a leaf each 4 MiB.
        const blocks = state === ZERO ? count : Math.min(count, 5000);
        map.set(first, Math.min(blocks, LIMIT - first), state);
      }
      if (hasCleared) map.clearFrom(100);
      free(arena, new BlockMap(arena, control));
      expect(arena.usedBytes).toBe(before);
      expect(map.runAt(0, LIMIT)).toBe(LIMIT);
      expect(map.runState).toBe(BASE);
    }),
    { numRuns: 100 },
  );
});

test('its memory serves the next one, which starts out empty, and its neighbour keeps what it has', () => {
  const buffer = Arena.create();
  const arena = new Arena(buffer);
  const { map: neighbour, control } = newMap(arena);
  const steps = { seed: 7, count: 300, threads: 2 };
  for (const [first, count, state] of mapSteps({ ...steps, thread: 0 })) neighbour.set(first, count, state);
  const used = arena.usedBytes;
  let committed = 0;
  for (let round = 0; round < 5; round++) {
    const { map } = newMap(arena);
    expect([map.runAt(0, LIMIT), map.runState]).toEqual([LIMIT, BASE]);
    for (const [first, count, state] of mapSteps({ ...steps, thread: 1 })) map.set(first, count, state);
    expect(map.occupied(0, LIMIT)).toBeGreaterThan(300 * 16);
    free(arena, map);
    expect(arena.usedBytes).toBe(used);
    if (round === 0) committed = buffer.byteLength;
    expect(buffer.byteLength).toBe(committed);
  }
  const other = newMap(new Arena(Arena.create()));
  for (const [first, count, state] of mapSteps({ ...steps, thread: 0 })) other.map.set(first, count, state);
  expect(neighbour.occupied(0, LIMIT)).toBe(other.map.occupied(0, LIMIT));
  expect(control[LAYER.WRITTEN_BLOCKS]).toBe(other.control[LAYER.WRITTEN_BLOCKS]);
  let at = 0;
  while (at < LIMIT) {
    const run = other.map.runAt(at, LIMIT - at);
    expect([at, neighbour.runAt(at, LIMIT - at), neighbour.runState]).toEqual([at, run, other.map.runState]);
    at += run;
  }
});

test('an answer at the root has no nodes to give back', () => {
  const arena = new Arena(Arena.create());
  const { map } = newMap(arena);
  map.set(0, LIMIT, ZERO);
  free(arena, map);
  expect(map.runAt(5, 1)).toBe(1);
  expect(map.runState).toBe(BASE);
  map.set(5, 1, STORE);
  free(arena, map);
  expect(arena.usedBytes).toBe(64);
});
