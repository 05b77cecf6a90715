/**
 * One disk, many workers: nobody's bytes are lost, and the counts add up.
 */
import { expect, test } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';
import { churnSteps } from './thread-jobs.ts';
import { runThreads, useThreads } from './threads.ts';

useThreads();

const BLOCK = 4096;

test('partial writes to the same clean blocks keep each other, and the base around them', async () => {
  const blocks = 1500;
  const content = nonZeroBytes(blocks * BLOCK - 77, 1);
  const fixture = useDisk({ directory: scratch(), content, sizeBytes: blocks * BLOCK });
  // All four walk the blocks in the same order, so that they meet in each.
  const parts = [0, 1000, 2003, 3001];
  const results = await runThreads(
    parts.map((inBlock, index) => ({
      kind: 'write-parts',
      disk: fixture.task(),
      blocks,
      inBlock,
      length: 900,
      fill: 200 + index,
    })),
  );
  expect(results).toEqual([OK, OK, OK, OK]);
  const expected = Buffer.alloc(blocks * BLOCK);
  content.copy(expected);
  for (let block = 0; block < blocks; block++) {
    parts.forEach((inBlock, index) => {
      expected.fill(200 + index, block * BLOCK + inBlock, block * BLOCK + inBlock + 900);
    });
  }
  expect(difference(readDisk(fixture.disk), expected)).toBe(undefined);
  expect([fixture.disk.account.writtenBytes, fixture.disk.account.occupiedBytes]).toEqual([
    blocks * BLOCK,
    blocks * BLOCK,
  ]);
});

test('partial writes and partial punches in the same clean blocks keep each other', async () => {
  const blocks = 1500;
  const content = nonZeroBytes((blocks + 1) * BLOCK, 1);
  const fixture = useDisk({ directory: scratch(), content });
  const results = await runThreads([
    { kind: 'write-parts', disk: fixture.task(), blocks, inBlock: 100, length: 500, fill: 201 },
    { kind: 'punch-parts', disk: fixture.task(), blocks, inBlock: 700, length: 1001 },
    { kind: 'write-parts', disk: fixture.task(), blocks, inBlock: 1701, length: 299, fill: 202 },
    // The end of one block and the start of the next.
    { kind: 'punch-parts', disk: fixture.task(), blocks, inBlock: 3000, length: 1101 },
  ]);
  expect(results).toEqual([OK, OK, OK, OK]);
  const expected = Buffer.from(content);
  for (let block = 0; block < blocks; block++) {
    const at = block * BLOCK;
    // The second byte counts for the next block: 3000 + 1101 ends 5 bytes into it.
    expected.fill(201, at + 100, at + 600);
    expected.fill(0, at + 700, at + 1701);
    expected.fill(202, at + 1701, at + 2000);
    expected.fill(0, at + 3000, at + 4101);
  }
  expect(difference(readDisk(fixture.disk), expected)).toBe(undefined);
});

test('writes, trims and allocations side by side add up to what each did', async () => {
  const threads = 4;
  const regions = 10;
  const content = nonZeroBytes(threads * regions * 65536, 1);
  const fixture = useDisk({ directory: scratch(), content });
  const steps = Array.from({ length: threads }, (_, thread) => ({
    seed: 7919,
    count: 500,
    thread,
    threads,
    regions,
  }));
  const results = await runThreads(steps.map((each) => ({ kind: 'churn', disk: fixture.task(), steps: each })));
  expect(results).toEqual(steps.map(() => OK));

  const alone = useDisk({ directory: scratch(), content });
  for (const each of steps) {
    for (const [what, offset, length, seed] of churnSteps(each)) {
      if (what === 'write') alone.disk.write(offset, length, nonZeroBytes(length, seed), 0);
      else if (what === 'discard') alone.disk.discard(offset, length);
      else alone.disk.allocate(offset, length, true);
    }
  }
  expect(difference(readDisk(fixture.disk), readDisk(alone.disk))).toBe(undefined);
  expect(fixture.disk.account.writtenBytes).toBe(alone.disk.account.writtenBytes);
  expect(fixture.disk.account.occupiedBytes).toBe(alone.disk.account.occupiedBytes);
  expect(fixture.disk.discard(0, content.length)).toBe(OK);
  expect([fixture.disk.account.writtenBytes, fixture.disk.account.occupiedBytes]).toEqual([0, 0]);
});

test('a read from the middle of a block whose state changes under it', async () => {
  const fixture = useDisk({ directory: scratch(), content: nonZeroBytes(4 * BLOCK, 1) });
  fixture.disk.write(0, BLOCK, nonZeroBytes(BLOCK, 2), 0);
  const stop = new SharedArrayBuffer(4);
  const [, seen] = await runThreads([
    { kind: 'flip', disk: fixture.task(), stop, times: 3_000_000 },
    { kind: 'read-unaligned', disk: fixture.task(), stop },
  ]);
  expect(seen).toBe('fine');
});
