import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Base } from '../../src/base/base.ts';
import { scratch } from '../harness.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const { EBADF, EIO } = constants.errno;
const content = nonZeroBytes(130_000, 1);

/** Data in the first 64 KiB and from 96 KiB on, a hole between. */
function openBase(hasHoles = true): { base: Base; fd: number } {
  const fd = openSync(join(scratch(), 'base.img'), 'w+');
  onTestFinished(() => closeSync(fd));
  writeSync(fd, content, 0, 65_536, 0);
  writeSync(fd, content, 98_304, 130_000 - 98_304, 98_304);
  return { base: new Base({ fd, sizeBytes: 130_000, hasHoles }), fd };
}

describe('reading', () => {
  test('gives exactly what was asked for', () => {
    const { base } = openBase();
    const into = Buffer.alloc(1000, 0xee);
    expect(base.read(129_300, 700, into, 100)).toBe(0);
    expect(into.subarray(100, 800).equals(content.subarray(129_300))).toBe(true);
    expect([into[99], into[800]]).toEqual([0xee, 0xee]);
  });

  test('past what is left of a base is EIO, never less', () => {
    const { base, fd } = openBase();
    ftruncateSync(fd, 129_999);
    expect(base.read(129_300, 700, Buffer.alloc(700), 0)).toBe(EIO);
    expect(base.read(129_300, 699, Buffer.alloc(700), 0)).toBe(0);
  });

  test('what the file system says else comes out: a descriptor that is none', () => {
    const base = new Base({ fd: 1_000_000, sizeBytes: 10, hasHoles: true });
    expect(base.read(0, 1, Buffer.alloc(1), 0)).toBe(EBADF);
  });
});

describe('data and holes', () => {
  test.each([
    { from: 0, end: 130_000, data: 0, hole: 65_536 },
    { from: 1, end: 130_000, data: 1, hole: 65_536 },
    { from: 1, end: 500, data: 1, hole: 500 },
    { from: 65_536, end: 130_000, data: 98_304, hole: 65_536 },
    { from: 70_000, end: 98_304, data: 98_304, hole: 70_000 },
    { from: 70_000, end: 80_000, data: 80_000, hole: 70_000 },
    { from: 98_305, end: 130_000, data: 98_305, hole: 130_000 },
  ])('from $from, looking no further than $end', ({ from, end, data, hole }) => {
    const { base } = openBase();
    expect([base.nextData(from, end), base.nextHole(from, end)]).toEqual([data, hole]);
  });

  test('a block device is all data', () => {
    const { base } = openBase(false);
    expect([base.nextData(70_000, 130_000), base.nextHole(70_000, 130_000)]).toEqual([70_000, 130_000]);
  });

  test('a hole at the very end is one', () => {
    const { base, fd } = openBase();
    ftruncateSync(fd, 0);
    ftruncateSync(fd, 130_000);
    expect([base.nextData(0, 130_000), base.nextHole(0, 130_000)]).toEqual([130_000, 0]);
  });

  test('what a base has lost is no hole: who skips it would not see the error', () => {
    const { base, fd } = openBase();
    ftruncateSync(fd, 65_536);
    expect(base.nextData(98_304, 130_000)).toBe(98_304);
  });
});
