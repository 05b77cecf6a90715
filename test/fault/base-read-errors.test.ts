/** A base with bytes that cannot be read: the error comes out where they are wanted, and nothing else is affected. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { cowfs, makeMountpoint, mustCowfs, PROJECT, poll, statusOf } from '../harness.ts';
import { needsRoot } from '../integration/machine-support.ts';
import { expectNothingLeft, expectRefusal } from '../integration/nothing-left-support.ts';
import { BLOCK, expectContent, expectSame, opened, patched, readAt, writeAt } from './access.ts';
import { faultyBase, mountOver } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

/** Neither a whole number of blocks nor of reads. */
const SIZE = 1_000_001;
const BAD_BLOCK = 60;
const BAD_BYTE = BAD_BLOCK * BLOCK + 1000;
const BLOCKS = Math.ceil(SIZE / BLOCK);
const bad = { from: BAD_BYTE, to: BAD_BYTE + 1, errno: 'EIO' } as const;

/** How a program ends that reads a page of the disk through a mapping, and what it saw. */
function readMapped(disk: string, page: number): { signal: string | null; bytes: Buffer } {
  const program = `
    import fs from 'node:fs';
    import { load, MAP_PRIVATE, mmap, PAGE } from ${JSON.stringify(join(PROJECT, 'test/system-calls.mjs'))};
    const bytes = Buffer.alloc(PAGE);
    load(bytes, mmap(fs.openSync(process.argv[1], 'r'), ${page} * PAGE, PAGE, MAP_PRIVATE));
    fs.writeSync(1, bytes);`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program, '--', disk], { timeout: 60_000 });
  return { signal: child.signal, bytes: child.stdout };
}

describe.each(MODES)(MODE_NAME, (mode) => {
  const { cache, options } = mode;

  beforeEach((context) => needsMode(context, mode));

  test('EIO for the block with the bad byte, every time, and every other block right', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, options);
    base.setPlan({ bad });
    const fd = opened(disk);
    for (let round = 0; round < 2; round++) {
      for (let block = 0; block < BLOCKS; block++) {
        const got = readAt(fd, block * BLOCK, BLOCK);
        if (block === BAD_BLOCK) expect(got).toBe('EIO');
        else expectSame(got, base.original, block * BLOCK, BLOCK);
      }
    }
    const { io, warnings, baseChanged } = statusOf(mountpoint);
    expect(io.ioErrors).toBeGreaterThanOrEqual(2);
    expect(warnings.filter((warning) => warning.includes('reads or writes of the disk failed'))).toHaveLength(1);
    expect(baseChanged).toBeNull();

    base.setPlan({});
    expectSame(readAt(fd, BAD_BLOCK * BLOCK, BLOCK), base.original, BAD_BLOCK * BLOCK, BLOCK);
    expectContent(disk, base.original);
    expect(statusOf(mountpoint).io.ioErrors).toBe(io.ioErrors);
  });

  test('past the page cache a read that touches the bad byte fails as a whole, with the errno of the base', async () => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    // What Linux says of a disk's medium error (block/blk-core.c, BLK_STS_MEDIUM).
    base.setPlan({ bad: { ...bad, errno: 'ENODATA' } });
    const from = (BAD_BLOCK - 5) * BLOCK;
    const direct = opened(disk, constants.O_DIRECT);
    // What comes before is in part from the store: an answer that ended there would be taken for the end of the file.
    const data = randomBytes(2 * BLOCK);
    expect(writeAt(direct, data, from + BLOCK)).toBe(data.length);
    const content = patched(base.original, from + BLOCK, data);
    expect(readAt(direct, from, 10 * BLOCK)).toBe('ENODATA');
    expectSame(readAt(direct, from, 5 * BLOCK), content, from, 5 * BLOCK);
    const fd = opened(disk);
    if (cache === 'none') {
      expect(readAt(fd, from, 10 * BLOCK)).toBe('ENODATA');
      return;
    }
    // The page cache gives what comes before, and some kernels have no error of a page but EIO.
    expectSame(readAt(fd, from, 10 * BLOCK), content, from, 5 * BLOCK);
    expect(['EIO', 'ENODATA']).toContain(readAt(fd, BAD_BLOCK * BLOCK, BLOCK));
  });

  test('a mapping gives SIGBUS for the page with the bad byte, and the right bytes for those beside it', async () => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    base.setPlan({ bad });
    expect(readMapped(disk, BAD_BLOCK).signal).toBe('SIGBUS');
    for (const page of [BAD_BLOCK - 1, BAD_BLOCK + 1]) {
      const { signal, bytes } = readMapped(disk, page);
      expect(signal).toBeNull();
      expectSame(bytes, base.original, page * BLOCK, BLOCK);
    }
    base.setPlan({});
    expectSame(readMapped(disk, BAD_BLOCK).bytes, base.original, BAD_BLOCK * BLOCK, BLOCK);
  });

  test('a base whose file system dies: errors for what it held, what is written stays, and the unmount works', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, options);
    const fd = openSync(disk, constants.O_RDWR | constants.O_DIRECT);
    const data = randomBytes(BLOCK);
    expect(writeAt(fd, data, 5 * BLOCK)).toBe(BLOCK);
    await base.die();
    expect(readAt(fd, 4 * BLOCK, BLOCK)).toBe('ENOTCONN');
    expectSame(readAt(fd, 5 * BLOCK, BLOCK), data, 0, BLOCK);
    expect(writeAt(fd, data, 6 * BLOCK)).toBe(BLOCK);
    expectSame(readAt(fd, 6 * BLOCK, BLOCK), data, 0, BLOCK);
    closeSync(fd);
    // The kernel believes for a second what it knows of the file.
    await poll('status says so', () => statusOf(mountpoint).baseChanged?.includes('ENOTCONN') === true);
    mustCowfs(['unmount', mountpoint]);
    await expectNothingLeft(mountpoint);
  });
});

test('a base whose first bytes cannot be read is refused in one line, and nothing stays', async (context) => {
  needsRoot(context);
  const base = await faultyBase(SIZE, { bad: { from: 0, to: 1, errno: 'EIO' } });
  const mountpoint = makeMountpoint(base.directory);
  expectRefusal(cowfs(['mount', base.path, mountpoint]), 1, base.path, 'EIO');
  await expectNothingLeft(mountpoint);
});
