/** A base that gives less than it is asked for: nobody notices, unless it gives nothing where it said that there is more. */
import { randomBytes } from 'node:crypto';
import { constants, fsyncSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { statusOf } from '../harness.ts';
import { BLOCK, expectContent, expectSame, opened, patched, readAt, writeAt } from './access.ts';
import { faultyBase, mountOver } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

const SIZE = 400_001;
/** Before it a whole number of neither blocks nor pages. */
const END = 130_000;

describe.each(MODES)(MODE_NAME, (mode) => {
  const { options } = mode;

  beforeEach((context) => needsMode(context, mode));

  test.each([511, 4095, 65_519])('at most %i bytes a read: every byte right, and every copy-up', async (mostBytes) => {
    const base = await faultyBase(SIZE, { mostBytes });
    const { disk, mountpoint } = mountOver(base, options);
    expectContent(disk, base.original);
    let expected = base.original;
    for (const flags of [0, constants.O_DIRECT]) {
      const fd = opened(disk, flags);
      // Within a block, over a border, many blocks with two partial ones, up to the end.
      for (const [offset, length] of [
        [10_000, 5],
        [8190, 7],
        [100_001, 65_519],
        [SIZE - 99, 99],
      ] as const) {
        const data = randomBytes(length);
        const at = flags === 0 ? offset : offset - 5 * BLOCK + 77;
        expect(writeAt(fd, data, Math.max(0, at))).toBe(length);
        expected = patched(expected, Math.max(0, at), data);
      }
      fsyncSync(fd);
      expectContent(disk, expected);
    }
    expect(statusOf(mountpoint).io.ioErrors).toBe(0);
  });

  test('a base that ends before its size: EIO from the block with its end on, never bytes that are none', async () => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    base.setPlan({ endBytes: END });
    const fd = opened(disk);
    const lastWhole = Math.floor(END / BLOCK);
    for (let block = 0; block < Math.ceil(SIZE / BLOCK); block++) {
      const got = readAt(fd, block * BLOCK, BLOCK);
      if (block < lastWhole) expectSame(got, base.original, block * BLOCK, BLOCK);
      else expect(got, `block ${block}`).toBe('EIO');
    }
    const direct = opened(disk, constants.O_DIRECT);
    expectSame(readAt(direct, END - 1000, 1000), base.original, END - 1000, 1000);
    expect(readAt(direct, END - 1000, 1001)).toBe('EIO');
    for (const at of [END + 100, SIZE - 100]) expect(writeAt(fd, randomBytes(50), at)).toBe('EIO');
    const data = randomBytes(2 * BLOCK);
    expect(writeAt(fd, data, lastWhole * BLOCK)).toBe(data.length);
    fsyncSync(fd);
    expectSame(readAt(fd, lastWhole * BLOCK, data.length), data, 0, data.length);
    base.setPlan({});
    expectContent(disk, patched(base.original, lastWhole * BLOCK, data));
  });
});
