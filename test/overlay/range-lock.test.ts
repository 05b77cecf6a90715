import { describe, expect, test } from 'vitest';
import { RangeLock, STRIPES } from '../../src/overlay/range-lock.ts';
import { rangeSteps } from './thread-jobs.ts';
import { runThreads, useThreads } from './threads.ts';

useThreads();

function newStripes(): SharedArrayBuffer {
  return new SharedArrayBuffer(STRIPES * 4);
}

/** Which stripes are held. */
function held(stripes: SharedArrayBuffer): number[] {
  return [...new Int32Array(stripes).keys()].filter((stripe) => new Int32Array(stripes)[stripe] !== 0);
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

describe('which stripes a range takes', () => {
  test.each<[string, first: number, last: number, stripes: number[]]>([
    ['one block', 17, 17, [1]],
    ['the blocks of one region', 16, 31, [1]],
    ['across a border of regions', 31, 32, [1, 2]],
    ['far out', 2 ** 40 - 1, 2 ** 40 - 1, [255]],
    ['around the end of the table', 254 * 16, 257 * 16 + 15, [0, 1, 254, 255]],
    ['around the end, far out', (3 * STRIPES - 1) * 16, 3 * STRIPES * 16, [0, 255]],
    ['all but two', 16 * 16, (15 + STRIPES - 1) * 16 - 1, [...range(0, 13), ...range(16, 255)]],
    ['all but one', 16 * 16, (15 + STRIPES) * 16 - 1, [...range(0, 14), ...range(16, 255)]],
    ['exactly all', 16 * 16, (15 + STRIPES + 1) * 16 - 1, range(0, 255)],
    ['the whole disk', 0, 2 ** 40 - 1, range(0, 255)],
  ])('%s', (_, first, last, expected) => {
    const stripes = newStripes();
    const locks = new RangeLock(new Int32Array(stripes));
    locks.lock(first, last);
    expect(held(stripes)).toEqual(expected);
    locks.unlock(first, last);
    expect(held(stripes)).toEqual([]);
  });
});

test.each([
  ['all of it is free', [100, 101], true],
  ['its first region is taken', [16, 16], false],
  ['its last region is taken', [48, 48], false],
  ['the end of the table lies in it', [STRIPES * 16 - 1, STRIPES * 16], true],
] as const)('tryLock where %s', (_, [first, last], expected) => {
  const stripes = newStripes();
  const locks = new RangeLock(new Int32Array(stripes));
  locks.lock(first, last);
  const before = held(stripes);
  expect(locks.tryLock(16, 63)).toBe(expected);
  if (expected) locks.unlock(16, 63);
  expect(held(stripes)).toEqual(before);
  locks.unlock(first, last);
  expect(locks.tryLock(255 * 16, 256 * 16 + 15)).toBe(true);
  expect(held(stripes)).toEqual([0, 255]);
});

test('threads exclude each other where their ranges meet, and never wait in a circle', async () => {
  const stripes = newStripes();
  const counters = new SharedArrayBuffer(STRIPES * 4);
  const steps = range(1, 4).map((seed) => ({ seed, count: 4000 }));
  await runThreads(steps.map((each) => ({ kind: 'ranges', stripes, counters, steps: each })));
  const expected = new Int32Array(STRIPES);
  for (const each of steps) {
    for (const [first, last] of rangeSteps(each)) {
      for (let region = first; region <= last; region++) {
        expected[region % STRIPES] = (expected[region % STRIPES] as number) + 1;
      }
    }
  }
  // Stripes 0 to 31 and the last ones are where nearly everybody is.
  expect([...new Int32Array(counters)]).toEqual([...expected]);
  expect(held(stripes)).toEqual([]);
});
