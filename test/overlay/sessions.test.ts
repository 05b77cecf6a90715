/**
 * Forks, snapshots and ways back, one at a time: what each costs, what it counts, and what is left of it.
 */
import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ENOSPC, OK } from '../../src/lib/errno.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, difference, type FixtureOptions, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

const BLOCK = 4096;
const content = nonZeroBytes(16 * BLOCK - 9, 1);

function newDisk(options: Partial<FixtureOptions> = {}): DiskFixture {
  return useDisk({ directory: scratch(), content, ...options });
}

function write({ sessions }: DiskFixture, session: number, block: number, seed: number, blocks = 1): Buffer {
  const data = nonZeroBytes(blocks * BLOCK, seed);
  expect(sessions.open(session).write(block * BLOCK, data.length, data, 0)).toBe(OK);
  return data;
}

function read({ sessions }: DiskFixture, session: number): Buffer {
  return readDisk(sessions.open(session));
}

function depth({ sessions }: DiskFixture, session: number): number {
  return sessions.layers.depth(sessions.top(session));
}

/** Blocks that the session's quota counts. */
function occupied({ sessions }: DiskFixture, session: number): number {
  return sessions.open(session).account.occupiedBytes / BLOCK;
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

describe('a fork', () => {
  test('shows what the first shows, and from then on each has its own', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    const expected = Buffer.from(content);
    write(fixture, session, 2, 5).copy(expected, 2 * BLOCK);
    const fork = sessions.fork(session);
    expect(difference(read(fixture, fork), expected)).toBe(undefined);
    write(fixture, fork, 2, 6);
    expect(difference(read(fixture, session), expected)).toBe(undefined);
    const forked = read(fixture, fork);
    write(fixture, session, 3, 7);
    expect(difference(read(fixture, fork), forked)).toBe(undefined);
    closeStores(sessions.discard(fork));
    expect(
      read(fixture, session)
        .subarray(3 * BLOCK, 4 * BLOCK)
        .equals(nonZeroBytes(BLOCK, 7)),
    ).toBe(true);
  });

  test('outlives the session that it was made of', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    const first = sessions.create(content.length);
    const expected = Buffer.from(content);
    write(fixture, first, 2, 5).copy(expected, 2 * BLOCK);
    const fork = sessions.fork(first);
    closeStores(sessions.discard(first));
    expect(difference(read(fixture, fork), expected)).toBe(undefined);
    expect(difference(read(fixture, session), content)).toBe(undefined);
    closeStores(sessions.discard(fork));
    expect(sessions.occupiedBytes).toBe(0);
  });

  test('of a clean session adds no layer, however often, and no store', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    write(fixture, session, 2, 5);
    const descriptors = openDescriptors();
    const forks = [sessions.fork(session)];
    expect(depth(fixture, session)).toBe(2);
    for (let round = 0; round < 50; round++) forks.push(sessions.fork(forks.at(-1) as number), sessions.fork(session));
    expect(new Set([session, ...forks].map((each) => depth(fixture, each)))).toEqual(new Set([2]));
    expect(openDescriptors()).toBe(descriptors);
    for (const fork of forks) closeStores(sessions.discard(fork));
  });

  test('costs its records and no more, whatever was written', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    write(fixture, session, 0, 5, 16);
    const before = sessions.memoryBytes;
    const fork = sessions.fork(session);
    // A session with its locks, a layer for each of them.
    expect(sessions.memoryBytes - before).toBe(4 * (272 + 2 * 32));
    closeStores(sessions.discard(fork));
  });

  test('of a session that was only cut and grown shows the cut', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    sessions.open(session).truncate(3 * BLOCK + 1);
    sessions.open(session).truncate(8 * BLOCK);
    const fork = sessions.fork(session);
    const expected = Buffer.concat([content.subarray(0, 3 * BLOCK + 1), Buffer.alloc(5 * BLOCK - 1)]);
    expect(difference(read(fixture, fork), expected)).toBe(undefined);
    expect(depth(fixture, fork)).toBe(1);
    closeStores(sessions.discard(fork));
  });

  test('of a session that was only trimmed shows zeros', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    sessions.open(session).discard(0, 2 ** 50);
    const fork = sessions.fork(session);
    expect(read(fixture, fork).every((byte) => byte === 0)).toBe(true);
    closeStores(sessions.discard(fork));
  });
});

describe('a snapshot', () => {
  test('is what was, and going back to it takes all that came after', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    const expected = Buffer.from(content);
    write(fixture, session, 2, 5).copy(expected, 2 * BLOCK);
    const snapshot = sessions.snapshot(session);
    const descriptors = openDescriptors();
    write(fixture, session, 2, 6, 5);
    sessions.open(session).truncate(50 * BLOCK);
    sessions.rollback(session, snapshot);
    expect(difference(read(fixture, session), expected)).toBe(undefined);
    expect([openDescriptors(), sessions.occupiedBytes, occupied(fixture, session)]).toEqual([descriptors, BLOCK, 1]);
    // As often as one likes.
    write(fixture, session, 9, 7);
    sessions.rollback(session, snapshot);
    expect(difference(read(fixture, session), expected)).toBe(undefined);
    closeStores(sessions.layers.release(snapshot));
  });

  test('of what has not changed since the last one is that one', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    write(fixture, session, 2, 5);
    const [first, second] = [sessions.snapshot(session), sessions.snapshot(session)];
    expect(second).toBe(first);
    expect(depth(fixture, session)).toBe(2);
    closeStores(sessions.layers.release(first));
    expect(sessions.layers.open(second).extent.sizeBytes).toBe(content.length);
    sessions.open(session).truncate(5);
    const third = sessions.snapshot(session);
    expect(third).not.toBe(second);
    for (const layer of [second, third]) closeStores(sessions.layers.release(layer));
  });

  test('that was cut and grown to its old size in between is another one', () => {
    const fixture = newDisk();
    const { sessions, session } = fixture;
    const first = sessions.snapshot(session);
    sessions.open(session).truncate(5);
    sessions.open(session).truncate(content.length);
    const second = sessions.snapshot(session);
    expect(second).not.toBe(first);
    sessions.rollback(session, second);
    expect(
      read(fixture, session)
        .subarray(5)
        .every((byte) => byte === 0),
    ).toBe(true);
    for (const layer of [first, second]) closeStores(sessions.layers.release(layer));
  });
});

test('starting again gives the base and takes everything else, but what others stand on', () => {
  const fixture = newDisk();
  const { sessions, session } = fixture;
  write(fixture, session, 0, 5, 3);
  const descriptors = openDescriptors();
  sessions.reset(session, content.length + 7);
  expect(difference(read(fixture, session), Buffer.concat([content, Buffer.alloc(7)]))).toBe(undefined);
  expect([sessions.occupiedBytes, occupied(fixture, session)]).toEqual([0, 0]);
  expect(openDescriptors()).toBe(descriptors - 1);
  write(fixture, session, 0, 6, 2);
  const fork = sessions.fork(session);
  sessions.reset(session, content.length);
  expect(
    read(fixture, fork)
      .subarray(0, 2 * BLOCK)
      .equals(nonZeroBytes(2 * BLOCK, 6)),
  ).toBe(true);
  expect([sessions.occupiedBytes, occupied(fixture, session), occupied(fixture, fork)]).toEqual([2 * BLOCK, 0, 2]);
  closeStores(sessions.discard(fork));
});

describe('space set aside', () => {
  test.each(['fork', 'snapshot'] as const)('is given back by a %s: the promise ends there', (how) => {
    const fixture = newDisk();
    const { sessions, session, store } = fixture;
    const disk = sessions.open(session);
    const expected = Buffer.from(content);
    write(fixture, session, 5, 6).copy(expected, 5 * BLOCK);
    expect(disk.allocate(BLOCK, 8 * BLOCK, true)).toBe(OK);
    expect([occupied(fixture, session), sessions.occupiedBytes]).toEqual([8, 8 * BLOCK]);
    const made = how === 'fork' ? sessions.fork(session) : sessions.snapshot(session);
    expect([occupied(fixture, session), sessions.occupiedBytes]).toEqual([1, BLOCK]);
    expect(store.usedBytes).toBeLessThanOrEqual(2 * BLOCK);
    expect(difference(read(fixture, session), expected)).toBe(undefined);
    closeStores(how === 'fork' ? sessions.discard(made) : sessions.layers.release(made));
  });
});

describe('quotas', () => {
  test('a session is counted for what it shares, the mount once', () => {
    const fixture = newDisk({ maxStoreBytes: 6 * BLOCK, maxSessionStoreBytes: 4 * BLOCK });
    const { sessions, session } = fixture;
    write(fixture, session, 0, 5, 3);
    const fork = sessions.fork(session);
    expect([occupied(fixture, session), occupied(fixture, fork)]).toEqual([3, 3]);
    expect(sessions.occupiedBytes).toBe(3 * BLOCK);
    const data = nonZeroBytes(2 * BLOCK, 6);
    expect([sessions.open(fork).write(0, 2 * BLOCK, data, 0), occupied(fixture, fork)]).toEqual([ENOSPC, 4]);
    expect([sessions.open(session).write(0, 2 * BLOCK, data, 0), occupied(fixture, session)]).toEqual([ENOSPC, 4]);
    // Five are taken; another session may have the sixth.
    const other = sessions.create(content.length);
    expect([sessions.open(other).write(0, 2 * BLOCK, data, 0), occupied(fixture, other)]).toEqual([ENOSPC, 1]);
    expect(sessions.occupiedBytes).toBe(6 * BLOCK);
    for (const each of [fork, other]) closeStores(sessions.discard(each));
    expect(sessions.occupiedBytes).toBe(4 * BLOCK);
  });

  test('whoever goes back has room again', () => {
    const fixture = newDisk({ maxSessionStoreBytes: 4 * BLOCK });
    const { sessions, session } = fixture;
    const snapshot = sessions.snapshot(session);
    write(fixture, session, 0, 5, 4);
    expect(sessions.open(session).write(8 * BLOCK, 1, content, 0)).toBe(ENOSPC);
    sessions.rollback(session, snapshot);
    write(fixture, session, 4, 5, 4);
    closeStores(sessions.layers.release(snapshot));
  });
});

test('a thread that had a view before sees that it is old', () => {
  const fixture = newDisk();
  const { sessions, session } = fixture;
  const before = sessions.topology;
  sessions.create(5);
  expect(sessions.topology).toBe(before);
  write(fixture, session, 0, 5);
  const seen = [before];
  const snapshot = sessions.snapshot(session);
  seen.push(sessions.topology);
  sessions.rollback(session, snapshot);
  seen.push(sessions.topology);
  sessions.reset(session, content.length);
  seen.push(sessions.topology);
  expect(new Set(seen).size).toBe(4);
  closeStores(sessions.layers.release(snapshot));
});

test('a thousand sessions that nobody has written to take 1.2 KiB each, and no file', () => {
  const { sessions } = newDisk();
  const [memory, descriptors] = [sessions.memoryBytes, openDescriptors()];
  const made = Array.from({ length: 1000 }, () => sessions.create(content.length));
  for (const session of made) expect(sessions.open(session).sizeBytes).toBe(content.length);
  expect(sessions.memoryBytes - memory).toBeLessThanOrEqual(1000 * 1230);
  expect(openDescriptors()).toBe(descriptors);
  for (const session of made) expect(sessions.discard(session)).toEqual([]);
  expect(sessions.memoryBytes).toBe(memory);
});
