/** The path operations over a real file system: results, errnos negated, one answer each. */
import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { CowFsOptions } from '../../../src/fs/options.ts';
import type { Stat } from '../../../src/transport/fuse-native/addon.ts';
import { useFs } from '../../fuse/server-fixture.ts';
import { scratch } from '../../harness.ts';
import { difference, readDisk } from '../../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../../overlay/random.ts';
import { newOperations } from './operations-fixture.ts';

const { EBADF, EISDIR, ENOENT, ENOSPC, ENOTDIR, EROFS } = constants.errno;
const { O_RDONLY, O_RDWR, O_WRONLY } = fsConstants;
const BLOCK = 4096;
const SIZE = 65_519;
const SAME = 2 ** 32 - 1;

function atMost(maxStoreBytes: number): Partial<CowFsOptions> {
  return { quotas: { maxStoreBytes, maxSessionStoreBytes: undefined } };
}

function mounted(options: Partial<CowFsOptions> = {}) {
  const content = nonZeroBytes(SIZE, 1);
  const fixture = useFs({ directory: scratch(), content }, options);
  const operations = newOperations(fixture.fs);
  const stat = (path = '/disk.raw'): Stat => operations.call('getattr', path)[1] as Stat;
  return { ...fixture, ...operations, content, stat };
}

describe('names', () => {
  test('getattr tells of the root and of the disk, ENOENT of anything else', () => {
    const { call } = mounted();
    expect(call('getattr', '/')).toEqual([0, expect.objectContaining({ ino: 1, mode: 0o40700, nlink: 2, uid: 1000 })]);
    const disk = { ino: 2, mode: 0o100640, size: SIZE, uid: 1000, gid: 1001, mtime: 1_600_000_000_500, blocks: 8 };
    expect(call('getattr', '/disk.raw')).toEqual([0, expect.objectContaining(disk)]);
    for (const path of ['/none', '/disk', '/disk.raw2', '/Disk.raw']) expect(call('getattr', path)).toEqual([-ENOENT]);
  });

  test('readdir gives names and what they are', () => {
    const { call } = mounted();
    const [result, names, stats] = call('readdir', '/');
    expect([result, names]).toEqual([0, ['.', '..', 'disk.raw']]);
    expect((stats as Stat[]).map(({ ino, mode }) => [ino, mode])).toEqual([
      [1, 0o40700],
      [1, 0o40700],
      [2, 0o100640],
    ]);
    expect(call('readdir', '/disk.raw')).toEqual([-ENOTDIR]);
    expect(call('readdir', '/none')).toEqual([-ENOENT]);
  });

  test('statfs tells of the store', () => {
    const { call } = mounted(atMost(10 * BLOCK));
    const room = { bsize: BLOCK, blocks: 10, bfree: 10, bavail: 10, files: 2, namemax: 255 };
    expect(call('statfs', '/')).toEqual([0, expect.objectContaining(room)]);
    expect(call('statfs', '/none')).toEqual([-ENOENT]);
  });

  test('what is not there is ENOENT to every operation on a path', () => {
    const { call, setTimes } = mounted();
    expect(call('open', '/none', O_RDONLY)).toEqual([-ENOENT, 0]);
    expect(call('truncate', '/none', 1)).toEqual([-ENOENT]);
    expect(call('ftruncate', '/none', 1, 1)).toEqual([-ENOENT]);
    expect(call('chmod', '/none', 0o600)).toEqual([-ENOENT]);
    expect(call('chown', '/none', 1, 1)).toEqual([-ENOENT]);
    expect(setTimes('/none', 1, 1)).toEqual([-ENOENT]);
  });
});

describe('open and release', () => {
  test('each open has a handle of its own, counted until its release', () => {
    const { call, open, attributes } = mounted();
    const [reader, writer] = [open(O_RDONLY), open(O_RDWR)];
    expect(reader).not.toBe(writer);
    expect([attributes.openHandles, attributes.writableHandles]).toEqual([2, 1]);
    expect(call('release', '/disk.raw', writer)).toEqual([0]);
    expect([attributes.openHandles, attributes.writableHandles]).toEqual([1, 0]);
    expect(call('release', '/disk.raw', reader)).toEqual([0]);
    expect(attributes.openHandles).toBe(0);
  });

  test('what cannot be opened leaves no handle', () => {
    const { call, attributes } = mounted({ readOnly: true });
    expect(call('open', '/', O_RDONLY)).toEqual([-EISDIR, 0]);
    expect(call('open', '/disk.raw', O_WRONLY)).toEqual([-EROFS, 0]);
    expect(attributes.openHandles).toBe(0);
  });

  test('a handle that is not one is EBADF, and so is one that was released', () => {
    const { call, open, attributes } = mounted();
    const handle = open(O_RDWR);
    call('release', '/disk.raw', handle);
    for (const stale of [handle, 0, 77, SAME]) {
      expect(call('read', '/disk.raw', stale, Buffer.alloc(10), 10, 0)).toEqual([-EBADF]);
      expect(call('write', '/disk.raw', stale, Buffer.alloc(10), 10, 0)).toEqual([-EBADF]);
      expect(call('release', '/disk.raw', stale)).toEqual([-EBADF]);
    }
    expect(attributes.openHandles).toBe(0);
  });
});

describe('read and write', () => {
  test('bytes and their number; short at the end and 0 behind it', () => {
    const { call, open, content } = mounted();
    const handle = open(O_RDONLY);
    const into = Buffer.alloc(SIZE + 100, 0xaa);
    expect(call('read', '/disk.raw', handle, into, 1000, 4000)).toEqual([1000]);
    expect(difference(into.subarray(0, 1000), content.subarray(4000, 5000))).toBe(undefined);
    expect(into[1000]).toBe(0xaa);
    expect(call('read', '/disk.raw', handle, into, SIZE + 100, 0)).toEqual([SIZE]);
    expect(difference(into.subarray(0, SIZE), content)).toBe(undefined);
    expect(call('read', '/disk.raw', handle, into, 100, SIZE)).toEqual([0]);
    expect(call('read', '/disk.raw', handle, into, 100, 2 ** 51)).toEqual([0]);
  });

  test('what is written is read, on any offset, and grows the disk', () => {
    const { call, open, content, disk, stat } = mounted();
    const handle = open(O_RDWR);
    const bytes = nonZeroBytes(9001, 2);
    expect(call('write', '/disk.raw', handle, bytes, 9001, 4095)).toEqual([9001]);
    const far = 5 * 2 ** 40 + 3;
    expect(call('write', '/disk.raw', handle, bytes, 500, far)).toEqual([500]);
    expect(stat().size).toBe(far + 500);
    const into = Buffer.alloc(500);
    expect(call('read', '/disk.raw', handle, into, 500, far)).toEqual([500]);
    expect(difference(into, bytes.subarray(0, 500))).toBe(undefined);
    bytes.copy(content, 4095);
    expect(difference(readDisk(disk, 0, SIZE), content)).toBe(undefined);
  });

  test('a write that finds room for a part tells how much; then it is ENOSPC, and the rest is as it was', () => {
    const { call, open, content, disk } = mounted(atMost(2 * BLOCK));
    const handle = open(O_RDWR);
    const bytes = nonZeroBytes(4 * BLOCK, 3);
    expect(call('write', '/disk.raw', handle, bytes, 4 * BLOCK, 0)).toEqual([2 * BLOCK]);
    expect(call('write', '/disk.raw', handle, bytes, BLOCK, 8 * BLOCK)).toEqual([-ENOSPC]);
    bytes.copy(content, 0, 0, 2 * BLOCK);
    expect(difference(readDisk(disk), content)).toBe(undefined);
  });
});

describe('attributes', () => {
  test('truncate and ftruncate set the size, beyond 2^32 too', () => {
    const { call, disk } = mounted();
    for (const size of [10, 2 ** 32 + 1, 2 ** 45 + 7, 0]) {
      expect(call('truncate', '/disk.raw', size)).toEqual([0]);
      expect(disk.sizeBytes).toBe(size);
      expect(call('ftruncate', '/disk.raw', 1, size + 1)).toEqual([0]);
      expect(disk.sizeBytes).toBe(size + 1);
    }
  });

  test('chmod keeps the type', () => {
    const { call, stat } = mounted();
    expect(call('chmod', '/disk.raw', 0o100604)).toEqual([0]);
    expect(stat().mode).toBe(0o100604);
  });

  test('chown changes what is given and leaves what is 2^32 - 1', () => {
    const { call, stat } = mounted();
    const owner = (): readonly number[] => [stat().uid, stat().gid];
    expect(call('chown', '/disk.raw', 5, SAME)).toEqual([0]);
    expect(owner()).toEqual([5, 1001]);
    expect(call('chown', '/disk.raw', SAME, 4_000_000_000)).toEqual([0]);
    expect(owner()).toEqual([5, 4_000_000_000]);
    expect(call('chown', '/disk.raw', SAME, SAME)).toEqual([0]);
    expect(owner()).toEqual([5, 4_000_000_000]);
    expect(call('chown', '/disk.raw', 0, 0)).toEqual([0]);
    expect(owner()).toEqual([0, 0]);
  });

  test.each([
    ['apart', 1_600_000_000_123, 1_234_567_890_987],
    ['the epoch and far ahead', 0, 253_402_300_799_999],
  ])('times: %s', (_, atimeMs, mtimeMs) => {
    const { setTimes, stat } = mounted();
    expect(setTimes('/disk.raw', atimeMs, mtimeMs)).toEqual([0]);
    expect(stat()).toMatchObject({ atime: atimeMs, mtime: mtimeMs });
  });

  test.each([
    ['both', -315_619_200_000, -315_619_200_000],
    ['the access', -1, 1_234_567_890_987],
    ['the modification', 1_234_567_890_987, -86_400_001],
  ])('%s time before 1970 is never another than it was set to, and is shown as 1970', (_, atimeMs, mtimeMs) => {
    const { setTimes, stat, attributes } = mounted();
    expect(setTimes('/disk.raw', atimeMs, mtimeMs)).toEqual([0]);
    const ms = (name: 'ATIME' | 'MTIME'): number =>
      attributes.seconds(name) * 1000 + attributes.nanoseconds(name) / 1e6;
    expect({ atime: ms('ATIME'), mtime: ms('MTIME') }).toEqual({ atime: atimeMs, mtime: mtimeMs });
    expect(stat()).toMatchObject({ atime: Math.max(0, atimeMs), mtime: Math.max(0, mtimeMs) });
  });

  test('the root’s change, but for its size; and nothing does on a read-only mount', () => {
    const { call, stat } = mounted();
    expect(call('chmod', '/', 0o777)).toEqual([0]);
    expect(stat('/').mode).toBe(0o40777);
    expect(call('truncate', '/', 0)).toEqual([-EISDIR]);
    const readOnly = mounted({ readOnly: true });
    expect(readOnly.call('chmod', '/disk.raw', 0o777)).toEqual([-EROFS]);
    expect(readOnly.call('truncate', '/disk.raw', 0)).toEqual([-EROFS]);
    expect(readOnly.call('chown', '/disk.raw', 1, 1)).toEqual([-EROFS]);
    expect(readOnly.setTimes('/disk.raw', 1, 1)).toEqual([-EROFS]);
    expect(readOnly.disk.sizeBytes).toBe(SIZE);
  });
});
