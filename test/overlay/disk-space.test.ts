/**
 * What a disk takes in its store, what it gives back, and what it does when there is no more.
 */
import { describe, expect, test } from 'vitest';
import { EFBIG, ENOSPC, ENXIO, OK } from '../../src/lib/errno.ts';
import { MAX_DISK_BYTES } from '../../src/overlay/block.ts';
import { LAYER } from '../../src/overlay/shared.ts';
import { lseek, SEEK_DATA } from '../../src/sys/libc.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;
const PLENTY = Number.POSITIVE_INFINITY;

/** One block more than the bytes: what a file system keeps for itself. */
function atMost(bytes: number): number {
  return bytes + BLOCK;
}

describe('what is given back', () => {
  test('a discard gives written blocks back to the host', () => {
    const { disk, store } = useDisk({ directory: scratch(), content: nonZeroBytes(3 * MIB, 1) });
    const data = nonZeroBytes(2 * MIB, 2);
    expect(disk.write(BLOCK, data.length, data, 0)).toBe(OK);
    expect(store.usedBytes).toBeGreaterThanOrEqual(2 * MIB);
    expect([disk.account.writtenBytes, disk.account.occupiedBytes]).toEqual([2 * MIB, 2 * MIB]);
    expect(disk.discard(BLOCK + 1, MIB)).toBe(OK);
    // The first and the last block are only zeroed in part.
    expect(disk.account.occupiedBytes).toBe(2 * MIB - (MIB - BLOCK));
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(disk.account.occupiedBytes));
    expect(disk.discard(0, PLENTY)).toBe(OK);
    expect([disk.account.writtenBytes, disk.account.occupiedBytes]).toEqual([0, 0]);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(0));
  });

  test('a cut gives everything behind it back', () => {
    const { disk, store } = useDisk({ directory: scratch(), content: nonZeroBytes(3 * MIB, 1) });
    const data = nonZeroBytes(2 * MIB, 2);
    disk.write(BLOCK, data.length, data, 0);
    expect(disk.truncate(3 * BLOCK + 5)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(3 * BLOCK);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(3 * BLOCK));
  });

  test('a discard of everything gives the last block back, too, where the store ends within it', () => {
    const { disk, sessions, session } = useDisk({ directory: scratch(), content: nonZeroBytes(3 * MIB, 1) });
    disk.write(0, 10 * BLOCK, nonZeroBytes(10 * BLOCK, 2), 0);
    disk.truncate(5 * BLOCK + 1);
    expect(disk.discard(0, PLENTY)).toBe(OK);
    const fd = Atomics.load(sessions.layers.control(sessions.top(session)), LAYER.STORE) - 1;
    expect(lseek(fd, 0, SEEK_DATA)).toBe(ENXIO);
  });

  test('a discard gives space back that was set aside where nothing was written yet', () => {
    const { disk, store } = useDisk({ directory: scratch(), content: nonZeroBytes(3 * MIB, 1) });
    expect(disk.allocate(MIB, MIB, true)).toBe(OK);
    expect(store.usedBytes).toBeGreaterThanOrEqual(MIB);
    expect(disk.discard(0, 3 * MIB)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(0);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(0));
  });

  test('a cut gives space back that was set aside, also where the store ends before the cut', () => {
    const { disk, store } = useDisk({ directory: scratch(), content: nonZeroBytes(3 * MIB, 1) });
    expect(disk.allocate(2 * MIB, MIB, true)).toBe(OK);
    expect(disk.truncate(MIB)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(0);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(0));
  });

  test('space set aside past the end of the disk goes with a discard there, and with a cut to the same size', () => {
    const { disk, store } = useDisk({ directory: scratch(), content: nonZeroBytes(100_001, 1) });
    expect(disk.allocate(200_000, 400_000, true)).toBe(OK);
    expect(disk.sizeBytes).toBe(100_001);
    expect(disk.discard(48 * BLOCK, 100 * BLOCK)).toBe(OK);
    expect([disk.account.occupiedBytes, disk.sizeBytes]).toEqual([0, 100_001]);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(0));

    expect(disk.allocate(200_000, 400_000, true)).toBe(OK);
    // As ext4 and XFS do: truncate(2) drops what lies past the end, whatever the size was.
    expect(disk.truncate(100_001)).toBe(OK);
    expect(disk.account.occupiedBytes).toBe(0);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(0));
  });
});

describe('what is set aside', () => {
  test('takes space, reads as before, and counts as written only where it is zeros for good', () => {
    const content = nonZeroBytes(10 * BLOCK + 100, 1);
    const { disk, store } = useDisk({ directory: scratch(), content });
    expect(disk.allocate(BLOCK + 1, 20 * BLOCK, true)).toBe(OK);
    expect(disk.sizeBytes).toBe(content.length);
    expect(disk.account.occupiedBytes).toBe(21 * BLOCK);
    // Blocks 1 to 10 show the base; 11 to 21 lie past it.
    expect(disk.account.writtenBytes).toBe(11 * BLOCK);
    expect(store.usedBytes).toBeGreaterThanOrEqual(21 * BLOCK);
    expect(difference(readDisk(disk), content)).toBe(undefined);
    expect(disk.allocate(0, 30 * BLOCK, false)).toBe(OK);
    expect(disk.sizeBytes).toBe(30 * BLOCK);
    expect(difference(readDisk(disk), Buffer.concat([content, Buffer.alloc(30 * BLOCK - content.length)]))).toBe(
      undefined,
    );
  });

  test('a later write needs no more room', () => {
    const { disk } = useDisk({ directory: scratch(), content: nonZeroBytes(10 * BLOCK, 1), maxStoreBytes: 4 * BLOCK });
    expect(disk.allocate(2 * BLOCK, 4 * BLOCK, true)).toBe(OK);
    const data = nonZeroBytes(4 * BLOCK, 2);
    expect(disk.write(0, 1, data, 0)).toBe(ENOSPC);
    expect(disk.write(2 * BLOCK, data.length, data, 0)).toBe(OK);
    expect([disk.account.writtenBytes, disk.account.occupiedBytes]).toEqual([4 * BLOCK, 4 * BLOCK]);
  });

  test('all or nothing within the quota', () => {
    const { disk, store } = useDisk({
      directory: scratch(),
      content: nonZeroBytes(10 * BLOCK, 1),
      maxStoreBytes: 4 * BLOCK,
    });
    disk.write(BLOCK, BLOCK, nonZeroBytes(BLOCK, 2), 0);
    expect(disk.allocate(0, 5 * BLOCK, true)).toBe(ENOSPC);
    expect(disk.account.occupiedBytes).toBe(BLOCK);
    expect(store.usedBytes).toBeLessThanOrEqual(atMost(BLOCK));
    expect(disk.allocate(0, 4 * BLOCK + 1, false)).toBe(ENOSPC);
    expect(disk.allocate(0, 4 * BLOCK, true)).toBe(OK);
  });

  test('nothing is taken of a store that says it has not enough', () => {
    const { disk, store, sessions } = useDisk({ directory: scratch(), content: nonZeroBytes(10 * BLOCK, 1) });
    Object.defineProperty(sessions.directory, 'freeBytes', { value: 3 * BLOCK - 1, configurable: true });
    expect(disk.allocate(0, 3 * BLOCK, false)).toBe(ENOSPC);
    expect([disk.account.occupiedBytes, store.usedBytes]).toEqual([0, 0]);
    Object.defineProperty(sessions.directory, 'freeBytes', { value: 3 * BLOCK });
    expect(disk.allocate(0, 3 * BLOCK, false)).toBe(OK);
  });

  test('old store bytes under zeroed blocks never come to light', () => {
    const { disk } = useDisk({ directory: scratch(), content: nonZeroBytes(6 * BLOCK, 1) });
    disk.write(0, 6 * BLOCK, nonZeroBytes(6 * BLOCK, 2), 0);
    disk.discard(0, 6 * BLOCK);
    expect(disk.allocate(0, 6 * BLOCK, true)).toBe(OK);
    expect(difference(readDisk(disk), Buffer.alloc(6 * BLOCK))).toBe(undefined);
  });
});

describe('a full quota', () => {
  const content = nonZeroBytes(MIB, 1);

  test.each([
    { offset: 0, room: 3, length: 10 * BLOCK, fits: 3 * BLOCK },
    { offset: 100, room: 3, length: 10 * BLOCK, fits: 3 * BLOCK - 100 },
    { offset: 100, room: 0, length: 10, fits: 0 },
    { offset: 4000, room: 1, length: 200, fits: 96 },
    { offset: 0, room: 1, length: BLOCK + 1, fits: BLOCK },
  ])('a write of $length at $offset with room for $room blocks puts down $fits', ({ offset, room, length, fits }) => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: room * BLOCK + 4095 });
    const data = nonZeroBytes(length, 2);
    expect([disk.write(offset, length, data, 0), disk.transferred]).toEqual([ENOSPC, fits]);
    const expected = Buffer.from(content);
    data.copy(expected, offset, 0, fits);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
    expect(disk.account.occupiedBytes).toBe(room * BLOCK);
  });

  test('what is in the store already can still be written, and a write goes past it as far as there is room', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: 4 * BLOCK });
    disk.write(2 * BLOCK, 3 * BLOCK, nonZeroBytes(3 * BLOCK, 2), 0);
    const data = nonZeroBytes(6 * BLOCK, 3);
    expect([disk.write(2 * BLOCK, data.length, data, 0), disk.transferred]).toEqual([ENOSPC, 4 * BLOCK]);
    expect(difference(readDisk(disk, 2 * BLOCK, 4 * BLOCK), data.subarray(0, 4 * BLOCK))).toBe(undefined);
  });

  test('a write that fails from its first byte does not grow the disk', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: 0 });
    expect(disk.write(2 * MIB, 5, nonZeroBytes(5, 2), 0)).toBe(ENOSPC);
    expect(disk.sizeBytes).toBe(MIB);
  });

  test('one that is cut short grows it by what is written', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: BLOCK });
    expect(disk.write(MIB + 100, BLOCK, nonZeroBytes(BLOCK, 2), 0)).toBe(ENOSPC);
    expect(disk.transferred).toBe(BLOCK - 100);
    expect(disk.sizeBytes).toBe(MIB + BLOCK);
  });

  test('a discard and a cut make room again', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: 2 * BLOCK });
    const data = nonZeroBytes(2 * BLOCK, 2);
    expect(disk.write(8 * BLOCK, 2 * BLOCK, data, 0)).toBe(OK);
    expect(disk.write(0, 1, data, 0)).toBe(ENOSPC);
    expect(disk.discard(8 * BLOCK, BLOCK)).toBe(OK);
    expect(disk.write(0, 1, data, 0)).toBe(OK);
    expect(disk.write(BLOCK, 1, data, 0)).toBe(ENOSPC);
    expect(disk.truncate(5 * BLOCK)).toBe(OK);
    expect(disk.write(BLOCK, 1, data, 0)).toBe(OK);
  });

  test('a discard that needs room for its ends finds it in its middle', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: 4 * BLOCK });
    disk.write(BLOCK, 4 * BLOCK, nonZeroBytes(4 * BLOCK, 2), 0);
    // Half of block 0 and of block 5 show the base: zeroing a part of them takes a copy of each.
    expect(disk.discard(2000, 5 * BLOCK)).toBe(OK);
    const expected = Buffer.from(content);
    expected.fill(0, 2000, 2000 + 5 * BLOCK);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
    expect(disk.account.occupiedBytes).toBe(2 * BLOCK);
  });

  test('a discard that finds no room for a copy says so and loses nothing', () => {
    const { disk } = useDisk({ directory: scratch(), content, maxStoreBytes: 0 });
    expect(disk.discard(10, 100)).toBe(ENOSPC);
    expect(difference(readDisk(disk), content)).toBe(undefined);
    expect(disk.account.occupiedBytes).toBe(0);
    // Whole blocks need none.
    expect(disk.discard(BLOCK, 2 * BLOCK)).toBe(OK);
  });
});

describe('limits', () => {
  test('nothing past 4 PiB', () => {
    const { disk } = useDisk({ directory: scratch(), content: nonZeroBytes(5000, 1) });
    const byte = nonZeroBytes(2, 1);
    expect(disk.write(MAX_DISK_BYTES, 1, byte, 0)).toBe(EFBIG);
    expect(disk.write(MAX_DISK_BYTES - 1, 2, byte, 0)).toBe(EFBIG);
    expect(disk.write(Number.POSITIVE_INFINITY, 1, byte, 0)).toBe(EFBIG);
    expect(disk.transferred).toBe(0);
    expect(disk.truncate(MAX_DISK_BYTES + 1)).toBe(EFBIG);
    expect(disk.truncate(Number.POSITIVE_INFINITY)).toBe(EFBIG);
    expect(disk.allocate(MAX_DISK_BYTES - 1, 2, true)).toBe(EFBIG);
    expect(disk.allocate(0, Number.POSITIVE_INFINITY, false)).toBe(EFBIG);
    expect([disk.sizeBytes, disk.account.occupiedBytes]).toEqual([5000, 0]);
    expect(disk.discard(MAX_DISK_BYTES, 5)).toBe(OK);
    expect(disk.read(Number.POSITIVE_INFINITY, 10, byte, 0)).toBe(OK);
    expect(disk.transferred).toBe(0);
  });

  test('a disk of 4 PiB is read, cut and searched without a walk through it', () => {
    const content = nonZeroBytes(5000, 1);
    const { disk, sessions } = useDisk({ directory: scratch(), content });
    const fresh = sessions.memoryBytes;
    expect(disk.truncate(MAX_DISK_BYTES)).toBe(OK);
    expect(disk.sizeBytes).toBe(MAX_DISK_BYTES);
    const last = Buffer.alloc(10, 0xee);
    expect(disk.read(MAX_DISK_BYTES - 3, 10, last, 0)).toBe(OK);
    expect(disk.transferred).toBe(3);
    expect([...last]).toEqual([0, 0, 0, ...new Array<number>(7).fill(0xee)]);
    expect([disk.seekHole(0), disk.found]).toEqual([OK, 5000]);
    expect(disk.discard(0, MAX_DISK_BYTES)).toBe(OK);
    expect(sessions.memoryBytes - fresh).toBeLessThan(64 * 1024);
    // More than the store's own file system lets a file have (16 TiB on ext4).
    expect(disk.truncate(2 ** 51)).toBe(OK);
    expect(disk.truncate(4097)).toBe(OK);
    expect(difference(readDisk(disk), Buffer.alloc(4097))).toBe(undefined);
  });

  test('memory of the map follows what is written, not the size', () => {
    const { disk, sessions } = useDisk({ directory: scratch(), content: nonZeroBytes(5000, 1), sizeBytes: 2 ** 43 });
    const fresh = sessions.memoryBytes;
    // The records, 1 KiB of range locks among them.
    expect(fresh).toBeLessThanOrEqual(1400);
    expect(disk.write(2 ** 42 + 1, 1, nonZeroBytes(1, 1), 0)).toBe(OK);
    expect(sessions.memoryBytes - fresh).toBeLessThanOrEqual(3 * 4096 + 256);
  });
});
