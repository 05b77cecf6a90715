/**
 * A store that may not grow: the daemon's limit on the size of a file (setrlimit(2), RLIMIT_FSIZE), which prlimit(1) sets
 * while it runs. An error of the store that is no lack of space: nobody waits for it to go, and QEMU does not pause.
 */
import { randomBytes } from 'node:crypto';
import { constants, fsyncSync, readFileSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { makeBase, makeMountpoint, mountDisk, must, scratch, statusOf } from '../harness.ts';
import { needs } from '../integration/machine-support.ts';
import { BLOCK, expectContent, expectSame, opened, outcome, patched, readAt, writeAt } from './access.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

const SIZE = 1_000_001;
const LIMIT = 100 * BLOCK;

function setLimit(pid: number, limit: number | 'unlimited'): void {
  must('prlimit', ['--pid', String(pid), `--fsize=${limit}:unlimited`]);
}

describe.each(MODES)(MODE_NAME, (mode) => {
  const { cache, options } = mode;

  beforeEach((context) => {
    needsMode(context, mode);
    needs(context, 'prlimit');
  });

  test('EFBIG for the writer past the limit, and for nobody else', async () => {
    const directory = scratch();
    const base = makeBase(directory, SIZE);
    const original = readFileSync(base);
    const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), ['--store', directory, ...options]);
    const { pid } = statusOf(mountpoint);
    setLimit(pid, LIMIT);
    const fd = opened(disk);
    const direct = opened(disk, constants.O_DIRECT);
    const data = randomBytes(2 * BLOCK);
    expect(writeAt(direct, data, LIMIT)).toBe('EFBIG');
    expect(writeAt(direct, randomBytes(512), LIMIT + 512)).toBe('EFBIG');
    // What fits is written.
    expect(writeAt(direct, data, LIMIT - BLOCK)).toBe(BLOCK);
    expect(writeAt(fd, data, 10 * BLOCK)).toBe(data.length);
    fsyncSync(fd);
    const content = patched(patched(original, LIMIT - BLOCK, data.subarray(0, BLOCK)), 10 * BLOCK, data);
    if (cache === 'writeback') {
      // Taken by the kernel; the next who asks whether it is down is told.
      expect(writeAt(fd, data, LIMIT)).toBe(data.length);
      expect(outcome(() => fsyncSync(fd))).toBe('EFBIG');
      expect(outcome(() => fsyncSync(fd))).toBeUndefined();
    } else expect(writeAt(fd, data, LIMIT)).toBe('EFBIG');
    expectSame(readAt(fd, 150 * BLOCK, BLOCK), original, 150 * BLOCK, BLOCK);
    const status = statusOf(mountpoint);
    expect(status.warnings.join()).toContain('file size limit');
    expect(status.pid).toBe(pid);
    expect(status.io.ioErrors).toBeGreaterThanOrEqual(2);

    setLimit(pid, 'unlimited');
    expect(writeAt(fd, data, LIMIT)).toBe(data.length);
    fsyncSync(fd);
    expectContent(disk, patched(content, LIMIT, data));
  });
});
