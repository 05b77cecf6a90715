/**
 * A block device with a bad sector as the base: a loop device over a file that fails, so that the error comes through the
 * kernel's block layer, as from a disk. The device's page cache may keep the sector's neighbours back, too, where its
 * pages are larger ones (Linux 6.18: 64 KiB); so the measure is what a reader of the device itself gets.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { makeMountpoint, mountDisk, must, statusOf } from '../harness.ts';
import { loopDevice } from '../integration/machine-support.ts';
import { BLOCK, expectContent, expectSame, opened, patched, readAt, writeAt } from './access.ts';
import { faultyBase } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

/** A whole number of sectors, not of blocks. */
const SIZE = 401_408 + 1024;
const BAD_BLOCK = 60;
const BAD_AT = BAD_BLOCK * BLOCK;
/** Blocks of one large page: the most that may go with the bad one. */
const NEIGHBOURS = 32;
const bad = { from: BAD_AT + 1024, to: BAD_AT + 1536, errno: 'EIO' } as const;

describe.each(MODES)(MODE_NAME, (mode) => {
  beforeEach((context) => needsMode(context, mode));

  test('EIO where the device itself gives it, all else right, and a whole block over it makes it good', async () => {
    const base = await faultyBase(SIZE);
    const device = loopDevice(base.path, '--read-only');
    const options = ['--store', base.directory, ...mode.options];
    const { disk, mountpoint } = mountDisk(device, makeMountpoint(base.directory), options);
    base.setPlan({ bad });
    const fd = opened(disk);
    const plain = openSync(device, 'r');
    onTestFinished(() => closeSync(plain));
    const failed: number[] = [];
    for (let block = 0; block < Math.ceil(SIZE / BLOCK); block++) {
      const got = readAt(fd, block * BLOCK, BLOCK);
      if (typeof got !== 'string') expectSame(got, base.original, block * BLOCK, BLOCK);
      else {
        expect(got).toBe('EIO');
        expect(readAt(plain, block * BLOCK, BLOCK), `block ${block}`).toBe('EIO');
        failed.push(block);
      }
    }
    expect(failed).toContain(BAD_BLOCK);
    expect(failed.length).toBeLessThanOrEqual(NEIGHBOURS);
    for (const flags of [0, constants.O_DIRECT]) {
      expect(writeAt(opened(disk, flags), randomBytes(512), BAD_AT + 3072)).toBe('EIO');
    }
    const { io, disks, baseChanged } = statusOf(mountpoint);
    expect(io.ioErrors).toBeGreaterThan(0);
    expect(disks[0]?.writtenBytes).toBe(0);
    expect(baseChanged).toBeNull();

    const data = randomBytes(BLOCK);
    expect(writeAt(fd, data, BAD_AT)).toBe(BLOCK);
    fsyncSync(fd);
    expectSame(readAt(fd, BAD_AT, BLOCK), data, 0, BLOCK);
    base.setPlan({});
    expectContent(disk, patched(base.original, BAD_AT, data));
    // The device itself is as it was.
    must('cmp', [device, `${base.directory}/content.img`]);
  });
});
