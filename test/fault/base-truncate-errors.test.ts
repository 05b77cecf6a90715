/**
 * A disk cut in the middle of a block that cannot be read. The cut asks the base for nothing: what is cut off is hidden,
 * and reads as zeros when the disk grows again; what lies before it is as unreadable as ever.
 */
import { constants, truncateSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { statusOf } from '../harness.ts';
import { BLOCK, expectContent, expectSame, opened, patched, readAt } from './access.ts';
import { faultyBase, mountOver } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

const SIZE = 400_001;
const BLOCK_AT = 60 * BLOCK;
const CUT = BLOCK_AT + 2000;

describe.each(MODES)(MODE_NAME, (mode) => {
  const { cache, options } = mode;

  beforeEach((context) => needsMode(context, mode));

  test('a bad byte that is cut off is never wanted again: right before the cut, zeros behind it', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, options);
    base.setPlan({ bad: { from: CUT, to: SIZE, errno: 'EIO' } });
    truncateSync(disk, CUT);
    expectContent(disk, base.original.subarray(0, CUT));
    truncateSync(disk, SIZE);
    expectContent(disk, patched(base.original, CUT, Buffer.alloc(SIZE - CUT)));
    expect(statusOf(mountpoint).io.ioErrors).toBe(0);
  });

  test('a bad byte before the cut: EIO for its block, never old bytes behind it', async () => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    base.setPlan({ bad: { from: BLOCK_AT + 1000, to: BLOCK_AT + 1001, errno: 'EIO' } });
    truncateSync(disk, CUT);
    truncateSync(disk, SIZE);
    const zeros = Buffer.alloc(SIZE);
    const fd = opened(disk);
    const direct = opened(disk, constants.O_DIRECT);
    for (const each of [fd, direct]) {
      expect(readAt(each, BLOCK_AT, BLOCK)).toBe('EIO');
      expectSame(readAt(each, BLOCK_AT + BLOCK, BLOCK), zeros, 0, BLOCK);
    }
    // A page comes as a whole or not at all; past the cache the zeros need nothing of the base.
    if (cache === 'none') expectSame(readAt(fd, CUT, 1000), zeros, 0, 1000);
    else expect(readAt(fd, CUT, 1000)).toBe('EIO');
    expectSame(readAt(direct, CUT, 1000), zeros, 0, 1000);
    base.setPlan({});
    expectContent(disk, patched(base.original, CUT, zeros.subarray(CUT)));
  });
});
