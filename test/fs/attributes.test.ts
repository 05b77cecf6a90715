import { describe, expect, test } from 'vitest';
import { SharedAttributes } from '../../src/fs/attributes.ts';
import { Counters, totals } from '../../src/fs/counters.ts';
import { Inodes } from '../../src/fs/inodes.ts';
import { ROOT_NODE } from '../../src/fs/node.ts';

/** Two views of the root of one table, as two workers have them. */
function twoViews(mtimeMs = 1_700_000_000_250): [SharedAttributes, SharedAttributes] {
  const buffer = Inodes.create();
  const views = [buffer, buffer].map((each) => new SharedAttributes(new Inodes(each), ROOT_NODE));
  views[0]?.initialise(0o640, 1000, 4_294_967_294, mtimeMs);
  return views as [SharedAttributes, SharedAttributes];
}

test('what one worker changes every other sees', () => {
  const [one, other] = twoViews();
  expect([other.mode, other.uid, other.gid]).toEqual([0o640, 1000, 4_294_967_294]);
  one.setMode(0o7777);
  one.setOwner(3_000_000_000, 0);
  one.setTime('ATIME', -5, 999_999_999);
  expect([other.mode, other.uid, other.gid]).toEqual([0o7777, 3_000_000_000, 0]);
  expect([other.seconds('ATIME'), other.nanoseconds('ATIME')]).toEqual([-5, 999_999_999]);
  // The others stay.
  expect([other.seconds('MTIME'), other.seconds('CTIME')]).toEqual([1_700_000_000, 1_700_000_000]);
});

describe('times from milliseconds', () => {
  test.each([
    [0, 0, 0],
    [1, 0, 1_000_000],
    [1_700_000_000_250, 1_700_000_000, 250_000_000],
    [-1, -1, 999_000_000],
    [-1000, -1, 0],
    [1500.5, 1, 500_500_000],
    [2 ** 42, 4_398_046_511, 104_000_000],
  ])('%d ms', (milliseconds, seconds, nanoseconds) => {
    const [one] = twoViews(milliseconds);
    for (const name of ['ATIME', 'MTIME', 'CTIME'] as const) {
      expect([one.seconds(name), one.nanoseconds(name)]).toEqual([seconds, nanoseconds]);
    }
  });
});

test('open handles are counted, those for writing apart', () => {
  const [one, other] = twoViews();
  one.opened(true);
  other.opened(false);
  other.opened(true);
  expect([one.openHandles, one.writableHandles]).toEqual([3, 2]);
  one.closed(true);
  one.closed(false);
  expect([other.openHandles, other.writableHandles]).toEqual([1, 1]);
});

describe('counters', () => {
  test('rows of workers add up', () => {
    const shared = Counters.create(3);
    expect(totals(shared)).toMatchObject({ reads: 0, readLatencyMs: 0, writeLatencyMs: 0 });
    const [first, second, third] = [0, 1, 2].map((worker) => new Counters(shared, worker));
    first?.read(100, 2);
    second?.read(23, 4);
    third?.wrote(7, 1);
    third?.other(5);
    second?.failed();
    expect(totals(shared)).toEqual({
      reads: 2,
      readBytes: 123,
      readLatencyMs: 3,
      writes: 1,
      writeBytes: 7,
      writeLatencyMs: 1,
      otherRequests: 1,
      ioErrors: 1,
    });
  });
});
