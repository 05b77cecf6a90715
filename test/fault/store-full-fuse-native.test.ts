/**
 * A store that runs full on a small file system under `--transport fuse-native`, which holds nothing back: ENOSPC at
 * write(2) whatever the cache mode, what was taken stays, and the disk goes on. No trim can make room here; a truncate
 * and more space where the store is can.
 */
import { randomBytes } from 'node:crypto';
import { constants, fsyncSync, truncateSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { CACHE_MODES } from '../../src/transport/transport.ts';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, statusOf } from '../harness.ts';
import { FUSE_NATIVE, needsFuseNative } from '../integration/fuse-native-support.ts';
import { finish, freeBytes, needsRoot } from '../integration/machine-support.ts';
import { FSYNC, MIB, pattern, smallStore, startWriter } from '../integration/store-full-support.ts';
import { BLOCK, expectContent, expectSame, opened, patched, readAt, writeAt } from './access.ts';

/** Of a store of 4 MiB, a page for its file system's own use is more than enough. */
const NEARLY_ALL = 3.9 * MIB;

/** No multiple of what a request carries, so that one is taken in part. */
const QUOTA = 250 * BLOCK;

/** Fills the store; the bytes from the start of the disk on that write(2) took. */
async function fill(disk: string): Promise<number> {
  const { stdout } = await finish(startWriter(disk, 0, 8 * MIB, 3, FSYNC));
  const [, taken = '', error = ''] = /^written (\d+) (\w*)$/m.exec(stdout) ?? [];
  expect(error).toBe('ENOSPC');
  expect(stdout).toContain('fsync OK');
  return Number(taken);
}

beforeEach(needsFuseNative);

describe.each(CACHE_MODES['fuse-native'])('--cache %s', (cache) => {
  const options = [...FUSE_NATIVE, '--cache', cache];

  beforeEach(needsRoot);

  test('ENOSPC at write(2), and nothing but what did not fit is missing', async () => {
    const { disk, mountpoint, original, store } = smallStore(options);
    const taken = await fill(disk);
    expect(taken).toBeGreaterThan(NEARLY_ALL);
    expect(taken).toBeLessThanOrEqual(4 * MIB);
    const content = patched(original, 0, pattern(3, 8 * MIB).subarray(0, taken));
    expectContent(disk, content);
    const status = statusOf(mountpoint);
    expect(status.store.heldBytes).toBe(0);
    expect(status.disks[0]?.writtenBytes).toBe(Math.ceil(taken / BLOCK) * BLOCK);
    expect(status.io.ioErrors).toBeGreaterThan(0);

    // Past the end of what fits: a whole block, a part of one, the same past the cache.
    for (const flags of [0, constants.O_DIRECT]) {
      const fd = opened(disk, flags);
      expect(writeAt(fd, randomBytes(BLOCK), 9 * MIB)).toBe('ENOSPC');
      expect(writeAt(fd, randomBytes(512), 9 * MIB + 512)).toBe('ENOSPC');
      expectSame(readAt(fd, 9 * MIB, BLOCK), original, 9 * MIB, BLOCK);
    }
    expectContent(disk, content);
    mustCowfs(['unmount', '--force', mountpoint]);
    expect(freeBytes(store)).toBe(4 * MIB);
  });

  test('what is in the store can be written again, in whole and in part', async () => {
    const { disk, original } = smallStore(options);
    const taken = await fill(disk);
    const fd = opened(disk);
    const [whole, part] = [randomBytes(MIB), randomBytes(99)];
    expect(writeAt(fd, whole, MIB)).toBe(MIB);
    expect(writeAt(fd, part, 3 * MIB + 50)).toBe(part.length);
    fsyncSync(fd);
    const content = patched(original, 0, pattern(3, 8 * MIB).subarray(0, taken));
    expectContent(disk, patched(patched(content, MIB, whole), 3 * MIB + 50, part));
  });

  test('when there is room where the store is, the same write succeeds', async () => {
    const { disk, mountpoint, store, original } = smallStore(options);
    await fill(disk);
    const fd = opened(disk);
    const data = randomBytes(3 * MIB + 99);
    expect(writeAt(fd, data.subarray(0, BLOCK), 9 * MIB + 7)).toBe('ENOSPC');
    must('mount', ['-o', 'remount,size=32M', store]);
    expect(writeAt(fd, data, 9 * MIB + 7)).toBe(data.length);
    expect((await finish(startWriter(disk, 0, 8 * MIB, 3, FSYNC))).stdout).toContain(`written ${8 * MIB} \nfsync OK`);
    expectContent(disk, patched(patched(original, 0, pattern(3, 8 * MIB)), 9 * MIB + 7, data));
    expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(8 * MIB + 769 * BLOCK);
  });

  test('a truncate makes room, too', async () => {
    const { disk, original } = smallStore(options);
    await fill(disk);
    truncateSync(disk, 2 * MIB);
    truncateSync(disk, original.length);
    const fd = opened(disk);
    const data = randomBytes(MIB);
    expect(writeAt(fd, data, 10 * MIB)).toBe(MIB);
    const cut = Buffer.alloc(original.length);
    expectContent(disk, patched(patched(cut, 0, pattern(3, 2 * MIB)), 10 * MIB, data));
  });
});

test.each(CACHE_MODES['fuse-native'])(
  '--cache %s: --max-store is ENOSPC at write(2), to the last block',
  async (cache) => {
    const directory = scratch();
    const base = makeBase(directory, 8 * MIB);
    const options = [...FUSE_NATIVE, '--cache', cache, '--max-store', String(QUOTA)];
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
    const { stdout } = await finish(startWriter(disk, 0, 4 * MIB, 5));
    expect(stdout).toContain(`written ${QUOTA} ENOSPC`);
    expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(QUOTA);
    const fd = opened(disk);
    expect(writeAt(fd, Buffer.from('x'), 8 * MIB)).toBe('ENOSPC');
    truncateSync(disk, QUOTA - BLOCK);
    expect(writeAt(fd, Buffer.from('x'), 8 * MIB)).toBe(1);
  },
);
