/** Writes over a base that cannot be read: those that need it fail and leave no trace, the others never ask it. */
import { randomBytes } from 'node:crypto';
import { constants, fsyncSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { must, run, statusOf } from '../harness.ts';
import { BLOCK, expectContent, expectSame, opened, outcome, patched, readAt, writeAt } from './access.ts';
import { faultyBase, mountOver } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

const SIZE = 400_001;
const BAD_BLOCK = 60;
const BAD_AT = BAD_BLOCK * BLOCK;
const bad = { from: BAD_AT + 1000, to: BAD_AT + 1001, errno: 'EIO' } as const;

function writtenBytes(mountpoint: string): number | undefined {
  return statusOf(mountpoint).disks[0]?.writtenBytes;
}

describe.each(MODES)(MODE_NAME, (mode) => {
  const { transport, options } = mode;
  const OPENERS = [
    ['cached', 0],
    ['O_DIRECT', constants.O_DIRECT],
  ] as const;

  beforeEach((context) => needsMode(context, mode));

  test.each(OPENERS)('%s: whole blocks over the bad one never read it', async (_name, flags) => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, options);
    base.setPlan({ bad });
    const fd = opened(disk, flags);
    const data = randomBytes(3 * BLOCK);
    expect(writeAt(fd, data, BAD_AT - BLOCK)).toBe(data.length);
    fsyncSync(fd);
    expectSame(readAt(fd, BAD_AT - BLOCK, data.length), data, 0, data.length);
    // Now a part of it needs no base either.
    const part = randomBytes(99);
    expect(writeAt(fd, part, BAD_AT + 950)).toBe(part.length);
    fsyncSync(fd);
    expectContent(disk, patched(patched(base.original, BAD_AT - BLOCK, data), BAD_AT + 950, part));
    expect(writtenBytes(mountpoint)).toBe(3 * BLOCK);
    expect(statusOf(mountpoint).io.ioErrors).toBe(0);
  });

  test.each(OPENERS)('%s: a part of the bad block is EIO at write(2), the block as it was', async (_name, flags) => {
    const base = await faultyBase(SIZE);
    // No room for one block too many: what fails must not be booked.
    const { disk, mountpoint } = mountOver(base, [...options, '--max-store', '8K']);
    base.setPlan({ bad });
    const fd = opened(disk, flags);
    for (const offset of [0, 512, 2048, BLOCK - 512])
      expect(writeAt(fd, randomBytes(512), BAD_AT + offset)).toBe('EIO');
    fsyncSync(fd);
    expect(writtenBytes(mountpoint)).toBe(0);
    expect(statusOf(mountpoint).io.ioErrors).toBeGreaterThanOrEqual(4);

    base.setPlan({});
    expectSame(readAt(fd, BAD_AT, BLOCK), base.original, BAD_AT, BLOCK);
    const [one, two] = [randomBytes(512), randomBytes(512)];
    expect(writeAt(fd, one, BAD_AT + 512)).toBe(512);
    expect(writeAt(fd, two, BAD_AT + BLOCK + 512)).toBe(512);
    fsyncSync(fd);
    expectContent(disk, patched(patched(base.original, BAD_AT + 512, one), BAD_AT + BLOCK + 512, two));
    expect(writtenBytes(mountpoint)).toBe(2 * BLOCK);
  });

  test.each(OPENERS)('%s: a write that ends in the bad block is short by that block', async (_name, flags) => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    base.setPlan({ bad });
    const fd = opened(disk, flags);
    const data = randomBytes(2 * BLOCK + 512);
    expect(writeAt(fd, data, BAD_AT - 2 * BLOCK)).toBe(2 * BLOCK);
    expect(writeAt(fd, data.subarray(2 * BLOCK), BAD_AT)).toBe('EIO');
    fsyncSync(fd);
    base.setPlan({});
    expectContent(disk, patched(base.original, BAD_AT - 2 * BLOCK, data.subarray(0, 2 * BLOCK)));
  });

  test('a hole over the bad block makes it zeros; over a part of it is EIO and changes nothing', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, options);
    base.setPlan({ bad });
    const punch = (offset: number, length: number): string =>
      run('fallocate', ['-p', '-o', String(offset), '-l', String(length), disk]).stderr;
    if (transport === 'fuse-native') {
      // It carries no fallocate(2): EOPNOTSUPP, in fallocate(1)'s words.
      expect(punch(BAD_AT, BLOCK)).toContain('unsupported');
      base.setPlan({});
      expectContent(disk, base.original);
      return;
    }
    expect(punch(BAD_AT + 100, 1000)).toContain('Input/output error');
    expect(writtenBytes(mountpoint)).toBe(0);
    base.setPlan({});
    expectContent(disk, base.original);

    base.setPlan({ bad });
    must('fallocate', ['-p', '-o', String(BAD_AT - BLOCK), '-l', String(3 * BLOCK), disk]);
    expectContent(disk, patched(base.original, BAD_AT - BLOCK, Buffer.alloc(3 * BLOCK)));
    const fd = opened(disk);
    const part = randomBytes(99);
    expect(writeAt(fd, part, BAD_AT + 950)).toBe(part.length);
    expect(outcome(() => fsyncSync(fd))).toBeUndefined();
    const holes = patched(base.original, BAD_AT - BLOCK, Buffer.alloc(3 * BLOCK));
    expectContent(disk, patched(holes, BAD_AT + 950, part));
  });
});
