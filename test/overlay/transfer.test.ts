import { describe, expect, test } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import { PLAN, type Plan, Transfer, tryDiscard } from '../../src/overlay/transfer.ts';
import { bytesMoved, readAll, writeAll } from '../../src/sys/file-bytes.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, difference, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes, Random } from './random.ts';

const BLOCK = 4096;
const SEED = Number(process.env['COWFS_SEED'] ?? 20);

/** What a thread with a ring does: moves the bytes of a plan; false when they were not all moved. */
function move(plan: Plan, transfer: Transfer, bytes: Uint8Array): boolean {
  if (plan === PLAN.COPY_UP) {
    const block = new Uint8Array(BLOCK);
    if (readAll(transfer.sourceFd, transfer.sourceOffset, BLOCK, block, 0) !== OK || bytesMoved() < BLOCK) return false;
    block.set(bytes, transfer.inBlock);
    return writeAll(transfer.fd, transfer.offset, BLOCK, block, 0) === OK;
  }
  return writeAll(transfer.fd, transfer.offset, bytes.length, bytes, 0) === OK;
}

/** Writes as a ring does where that can be, else as a worker does; how it was done. */
function write(disk: Disk, offset: number, bytes: Uint8Array, fails = false): Plan {
  const transfer = new Transfer();
  const plan = transfer.planWrite(disk, offset, bytes.length);
  if (plan !== PLAN.ELSEWHERE && !fails && move(plan, transfer, bytes)) {
    transfer.finish();
    return plan;
  }
  if (plan !== PLAN.ELSEWHERE) transfer.abandon();
  expect(disk.write(offset, bytes.length, bytes, 0)).toBe(OK);
  return PLAN.ELSEWHERE;
}

function read(disk: Disk, offset: number, length: number): { plan: Plan; bytes: Buffer } {
  const transfer = new Transfer();
  const bytes = Buffer.alloc(length, 0xaa);
  const plan = transfer.planRead(disk, offset, length);
  if (plan === PLAN.ZEROS) bytes.fill(0);
  if (plan === PLAN.MOVE) expect(readAll(transfer.fd, transfer.offset, length, bytes, 0)).toBe(OK);
  if (plan === PLAN.MOVE) expect(bytesMoved()).toBe(length);
  if (plan === PLAN.ELSEWHERE) {
    expect(disk.read(offset, length, bytes, 0)).toBe(OK);
    return { plan, bytes: bytes.subarray(0, disk.transferred) };
  }
  return { plan, bytes };
}

function newDisk(options: { blocks?: number; maxStoreBytes?: number } = {}): DiskFixture {
  const { blocks = 16, maxStoreBytes } = options;
  const fixture = useDisk({
    directory: scratch(),
    content: nonZeroBytes(blocks * BLOCK, 1),
    ...(maxStoreBytes === undefined ? {} : { maxStoreBytes }),
  });
  // The store is there from the first write on.
  expect(fixture.disk.write(0, BLOCK, nonZeroBytes(BLOCK, 2), 0)).toBe(OK);
  return fixture;
}

describe('what is planned', () => {
  test('reads: from the base, from the store, of zeros; in several places or past the end, elsewhere', () => {
    const { disk, baseFd, store } = newDisk();
    expect(disk.discard(8 * BLOCK, BLOCK)).toBe(OK);
    const transfer = new Transfer();
    expect(transfer.planRead(disk, 5 * BLOCK + 3, 100)).toBe(PLAN.MOVE);
    expect([transfer.fd, transfer.offset]).toEqual([baseFd, 5 * BLOCK + 3]);
    expect(transfer.planRead(disk, 7, 100)).toBe(PLAN.MOVE);
    expect([transfer.fd, transfer.offset]).toEqual([store.fd, 7]);
    expect(transfer.planRead(disk, 8 * BLOCK, BLOCK)).toBe(PLAN.ZEROS);
    expect(transfer.planRead(disk, BLOCK - 1, 2)).toBe(PLAN.ELSEWHERE);
    expect(transfer.planRead(disk, 16 * BLOCK - 1, 1)).toBe(PLAN.MOVE);
    expect(transfer.planRead(disk, 16 * BLOCK - 1, 2)).toBe(PLAN.ELSEWHERE);
    expect(transfer.planRead(disk, 0, 0)).toBe(PLAN.ELSEWHERE);
  });

  test('writes: whole blocks, into blocks that are in the store, and parts of one block', () => {
    const { disk } = newDisk();
    const bytes = nonZeroBytes(3 * BLOCK, 3);
    expect(write(disk, 2 * BLOCK, bytes)).toBe(PLAN.MOVE);
    expect(write(disk, 2 * BLOCK + 100, bytes.subarray(0, 2 * BLOCK))).toBe(PLAN.MOVE);
    expect(write(disk, 10 * BLOCK + 100, bytes.subarray(0, 1000))).toBe(PLAN.COPY_UP);
    expect(write(disk, 10 * BLOCK + 7, bytes.subarray(0, 1000))).toBe(PLAN.MOVE);
    expect(write(disk, 12 * BLOCK + 100, bytes.subarray(0, BLOCK))).toBe(PLAN.ELSEWHERE);
  });

  test('a disk without a store, a range that somebody has, and a quota that is used up are for others', () => {
    const bare = useDisk({ directory: scratch(), content: nonZeroBytes(8 * BLOCK, 1) });
    const transfer = new Transfer();
    expect(transfer.planWrite(bare.disk, 0, BLOCK)).toBe(PLAN.ELSEWHERE);
    const { disk } = newDisk({ maxStoreBytes: 2 * BLOCK });
    disk.locks.lock(1, 1);
    expect(transfer.planWrite(disk, BLOCK, BLOCK)).toBe(PLAN.ELSEWHERE);
    disk.locks.unlock(1, 1);
    expect(write(disk, BLOCK, nonZeroBytes(BLOCK, 3))).toBe(PLAN.MOVE);
    expect(transfer.planWrite(disk, 5 * BLOCK, BLOCK)).toBe(PLAN.ELSEWHERE);
    // And nothing was kept back of it.
    expect(disk.locks.tryLock(0, 15)).toBe(true);
    disk.locks.unlock(0, 15);
    expect(disk.account.occupiedBytes).toBe(2 * BLOCK);
  });

  test('discards: whole blocks that are not in the store, to the end of the disk and past it; others are for others', () => {
    const { disk } = newDisk();
    expect(disk.truncate(16 * BLOCK - 100)).toBe(OK);
    expect(tryDiscard(disk, 4 * BLOCK, 2 * BLOCK)).toBe(true);
    expect(tryDiscard(disk, 4 * BLOCK, 3 * BLOCK)).toBe(true);
    expect(tryDiscard(disk, 15 * BLOCK, BLOCK - 100)).toBe(true);
    expect(tryDiscard(disk, 15 * BLOCK, BLOCK - 50)).toBe(true);
    expect(difference(readDisk(disk, 4 * BLOCK, 3 * BLOCK), Buffer.alloc(3 * BLOCK))).toBeUndefined();
    expect(difference(readDisk(disk, 15 * BLOCK, BLOCK - 100), Buffer.alloc(BLOCK - 100))).toBeUndefined();
    const before = readDisk(disk);
    // Parts of blocks; blocks in the store; more than can be looked at in no time; nothing.
    expect(tryDiscard(disk, 8 * BLOCK + 1, BLOCK)).toBe(false);
    expect(tryDiscard(disk, 8 * BLOCK, BLOCK + 1)).toBe(false);
    expect(tryDiscard(disk, 0, 2 * BLOCK)).toBe(false);
    expect(disk.allocate(9 * BLOCK, BLOCK, true)).toBe(OK);
    expect(tryDiscard(disk, 8 * BLOCK, 3 * BLOCK)).toBe(false);
    expect(tryDiscard(disk, 8 * BLOCK, 1024 ** 4)).toBe(false);
    expect(tryDiscard(disk, 8 * BLOCK, 0)).toBe(false);
    disk.locks.lock(12, 12);
    expect(tryDiscard(disk, 12 * BLOCK, BLOCK)).toBe(false);
    disk.locks.unlock(12, 12);
    expect(difference(readDisk(disk), before)).toBeUndefined();
    expect(disk.locks.tryLock(0, 15)).toBe(true);
    disk.locks.unlock(0, 15);
  });

  test('while one is under way others keep off its blocks, and the disk shows what was there', () => {
    const { disk } = newDisk();
    const [first, second] = [new Transfer(), new Transfer()];
    const before = readDisk(disk);
    expect(first.planWrite(disk, 4 * BLOCK, BLOCK)).toBe(PLAN.MOVE);
    expect(first.isPlain).toBe(false);
    expect(second.planWrite(disk, 4 * BLOCK, BLOCK)).toBe(PLAN.ELSEWHERE);
    expect(second.planWrite(disk, 4 * BLOCK + 5, 10)).toBe(PLAN.ELSEWHERE);
    expect(move(PLAN.MOVE, first, nonZeroBytes(BLOCK, 9))).toBe(true);
    expect(difference(readDisk(disk), before)).toBeUndefined();
    first.finish();
    expect(difference(readDisk(disk, 4 * BLOCK, BLOCK), nonZeroBytes(BLOCK, 9))).toBeUndefined();
    expect(second.planWrite(disk, 4 * BLOCK, BLOCK)).toBe(PLAN.MOVE);
    expect(second.isPlain).toBe(true);
  });

  test('the answer to what makes the disk grow waits for the end, and what was set aside is used', () => {
    const { disk } = newDisk();
    expect(disk.allocate(4 * BLOCK, BLOCK, true)).toBe(OK);
    const occupied = disk.account.occupiedBytes;
    expect(write(disk, 4 * BLOCK, nonZeroBytes(BLOCK, 4))).toBe(PLAN.MOVE);
    expect(disk.account.occupiedBytes).toBe(occupied);
    const transfer = new Transfer();
    expect(transfer.planWrite(disk, 16 * BLOCK, BLOCK)).toBe(PLAN.MOVE);
    expect(transfer.isPlain).toBe(false);
    expect(move(PLAN.MOVE, transfer, nonZeroBytes(BLOCK, 5))).toBe(true);
    expect(disk.sizeBytes).toBe(16 * BLOCK);
    transfer.finish();
    expect(disk.sizeBytes).toBe(17 * BLOCK);
  });
});

test('a disk that a ring writes to is the same, and takes as much, as one that workers write to', () => {
  const random = new Random(SEED);
  const [ring, plain] = [newDisk({ blocks: 400 }), newDisk({ blocks: 400 })];
  const plans = [0, 0, 0, 0];
  let discarded = 0;
  for (let step = 0; step < 3000; step++) {
    const offset = random.below(410 * BLOCK);
    const isWhole = random.below(3) === 0;
    const from = isWhole ? Math.floor(offset / BLOCK) * BLOCK : offset;
    const length = isWhole ? (1 + random.below(4)) * BLOCK : 1 + random.below(random.below(2) === 0 ? 900 : 9000);
    switch (random.below(8)) {
      case 0:
        if (tryDiscard(ring.disk, from, length)) discarded++;
        else expect(ring.disk.discard(from, length)).toBe(OK);
        expect(plain.disk.discard(from, length)).toBe(OK);
        break;
      case 1:
        // Not far from the end: what is cut off never shows the base again.
        expect(ring.disk.truncate(395 * BLOCK + (from % (20 * BLOCK)))).toBe(
          plain.disk.truncate(395 * BLOCK + (from % (20 * BLOCK))),
        );
        break;
      case 2:
        expect(ring.disk.allocate(from, length, true)).toBe(plain.disk.allocate(from, length, true));
        break;
      case 3:
      case 4: {
        const { plan, bytes } = read(ring.disk, from, length);
        plans[plan] = (plans[plan] as number) + 1;
        expect(difference(bytes, readDisk(plain.disk, from, length)), `step ${step}`).toBeUndefined();
        break;
      }
      default: {
        const bytes = nonZeroBytes(length, step);
        const plan = write(ring.disk, from, bytes, random.below(5) === 0);
        plans[plan] = (plans[plan] as number) + 1;
        expect(plain.disk.write(from, length, bytes, 0)).toBe(OK);
      }
    }
    expect(ring.disk.sizeBytes).toBe(plain.disk.sizeBytes);
    expect(ring.disk.account.occupiedBytes, `step ${step}`).toBe(plain.disk.account.occupiedBytes);
    expect(ring.disk.account.writtenBytes, `step ${step}`).toBe(plain.disk.account.writtenBytes);
  }
  expect(difference(readDisk(ring.disk), readDisk(plain.disk))).toBeUndefined();
  expect(ring.sessions.occupiedBytes).toBe(ring.disk.account.occupiedBytes);
  expect(ring.disk.locks.tryLock(0, 420)).toBe(true);
  ring.disk.locks.unlock(0, 420);
  console.log(
    `COWFS_SEED=${SEED}: ${plans[PLAN.MOVE]} moved, ${plans[PLAN.ZEROS]} zeros, ${plans[PLAN.COPY_UP]} copied up, ` +
      `${discarded} discarded, ${plans[PLAN.ELSEWHERE]} elsewhere`,
  );
  expect(discarded).toBeGreaterThan(10);
  for (const plan of Object.values(PLAN)) expect(plans[plan]).toBeGreaterThan(20);
});
