/**
 * Files that share blocks, on the file systems that can: what the extents say of every byte, asked for in any order.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/sys/libc.ts';
import { CONTENT, cloneInto, Extents } from '../../src/sys/reflink.ts';
import { scratch } from '../harness.ts';
import { formatted, needsRoot } from '../integration/machine-support.ts';
import { nonZeroBytes, Random } from '../overlay/random.ts';

const BLOCK = 4096;
/** More extents than are asked for at a time. */
const BLOCKS = 1500;

interface Looked {
  readonly content: number;
  readonly place: number;
  readonly isShared: boolean;
}

function look(extents: Extents, block: number): Looked {
  const end = extents.at(block * BLOCK, BLOCKS * BLOCK);
  expect(end).toBeGreaterThan(block * BLOCK);
  const { content, place, isShared } = extents;
  return { content, place: content === CONTENT.PLACED ? place : 0, isShared };
}

describe.each(['xfs', 'btrfs'] as const)('%s', (type) => {
  test('a clone has the places of the original but where it was written, in whatever order one asks', (context) => {
    needsRoot(context);
    const directory = formatted(scratch(), type, context);
    const [one, other] = ['one', 'other'].map((name) => openSync(join(directory, name), 'w+')) as [number, number];
    try {
      // Every third block is a hole: more than 256 extents.
      for (let block = 0; block < BLOCKS; block += 3) {
        writeSync(one, nonZeroBytes(2 * BLOCK, block + 1), 0, 2 * BLOCK, block * BLOCK);
      }
      ftruncateSync(one, BLOCKS * BLOCK);
      expect(cloneInto(one, other)).toBe(OK);
      const written = [0, 7, 8, 500, 502, 1499];
      for (const block of written) writeSync(other, nonZeroBytes(BLOCK, 1), 0, BLOCK, block * BLOCK);
      const punched = [3, 600];
      for (const block of punched) {
        expect(fallocate(other, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, block * BLOCK, BLOCK)).toBe(OK);
      }
      const before = new Extents(one, true);
      const after = new Extents(other, true);
      const isHole = (block: number): boolean => block % 3 === 2;
      const expectBlock = (block: number): void => {
        const was = look(before, block);
        const is = look(after, block);
        expect({ block, content: was.content }).toEqual({
          block,
          content: isHole(block) ? CONTENT.NOTHING : CONTENT.PLACED,
        });
        if (punched.includes(block))
          expect({ block, content: is.content }).toEqual({ block, content: CONTENT.NOTHING });
        else if (written.includes(block)) {
          expect({ block, content: is.content, isShared: is.isShared }).toEqual({
            block,
            content: CONTENT.PLACED,
            isShared: false,
          });
          expect(is.place).not.toBe(was.place);
        } else expect({ block, ...is }).toEqual({ block, ...was });
      };
      for (let block = 0; block < BLOCKS; block++) expectBlock(block);
      const random = new Random(7);
      for (let times = 0; times < 500; times++) expectBlock(random.below(BLOCKS));
      for (let block = BLOCKS - 1; block >= 0; block -= 37) expectBlock(block);
    } finally {
      closeSync(one);
      closeSync(other);
    }
  });
});

test('a file system that shares no blocks says so, and nothing was written', (context) => {
  needsRoot(context);
  const directory = formatted(scratch(), 'ext4', context);
  const [one, other] = ['one', 'other'].map((name) => openSync(join(directory, name), 'w+')) as [number, number];
  try {
    writeSync(one, nonZeroBytes(BLOCK, 1));
    // EOPNOTSUPP
    expect(cloneInto(one, other)).toBe(95);
    const extents = new Extents(other, true);
    expect(look(extents, 0).content).toBe(CONTENT.NOTHING);
    expect(look(new Extents(one, true), 0).content).toBe(CONTENT.PLACED);
  } finally {
    closeSync(one);
    closeSync(other);
  }
});
