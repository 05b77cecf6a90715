import { describe, expect, test } from 'vitest';
import { GateClosed } from '../../src/overlay/gate.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';
import { GATE_FLAGS, openSessions } from './thread-jobs.ts';
import { runThreads, useThreads } from './threads.ts';

useThreads();

function newDisk(): DiskFixture {
  return useDisk({ directory: scratch(), content: nonZeroBytes(5000, 1) });
}

function newFlags(): SharedArrayBuffer {
  return new SharedArrayBuffer(GATE_FLAGS.COUNT * 4);
}

describe('one thread', () => {
  test('a gate that nobody is behind closes at once, and only once it is open can one enter again', () => {
    const { sessions, session, task } = newDisk();
    const { gate } = sessions;
    const { gate: other } = openSessions(task());
    other.enter(session);
    other.leave();
    expect(gate.close(session, 0)).toBe(true);
    gate.open(session);
    other.enter(session);
    other.leave();
  });

  test('whoever is inside of another session is not waited for, and not kept out', () => {
    const { sessions, session, task } = newDisk();
    const second = sessions.create(7);
    const { gate: other } = openSessions(task());
    other.enter(second);
    expect(sessions.gate.close(session, 0)).toBe(true);
    other.leave();
    other.enter(second);
    other.leave();
    sessions.gate.open(session);
    expect(sessions.discard(second)).toEqual([]);
  });

  test('closing gives up where somebody stays, with the gate open again', () => {
    const { sessions, session, task } = newDisk();
    const [first, second] = [openSessions(task()), openSessions(task())];
    first.gate.enter(session);
    expect(sessions.gate.close(session, 5)).toBe(false);
    second.gate.enter(session);
    expect(sessions.gate.close(session, 0)).toBe(false);
    first.gate.leave();
    expect(sessions.gate.close(session, 0)).toBe(false);
    second.gate.leave();
    expect(sessions.gate.close(session, 0)).toBe(true);
    sessions.gate.open(session);
  });
});

test('a row of its own is waited for like a thread, and a closed gate is no reason to wait', () => {
  const { sessions, session, task } = newDisk();
  const row = sessions.gateOf(9);
  const other = openSessions(task());
  expect(row.tryEnter(session)).toBe(true);
  expect(sessions.gate.close(session, 5)).toBe(false);
  row.leave();
  expect(sessions.gate.close(session, 5)).toBe(true);
  expect(row.tryEnter(session)).toBe(false);
  other.gate.waits = false;
  expect(() => other.gate.enter(session)).toThrow(GateClosed);
  // Whoever did not get in is not waited for.
  sessions.gate.open(session);
  expect(sessions.gate.close(session, 0)).toBe(true);
  sessions.gate.open(session);
  other.gate.enter(session);
  other.gate.leave();
  expect(row.tryEnter(session)).toBe(true);
  row.leave();
});

test('a thread closes and enters what another has made since it last looked, however far the memory has grown', () => {
  const { sessions, task } = newDisk();
  const [maker, visitor] = [openSessions(task()), openSessions(task())];
  // Each takes more than 1 KiB, and memory is committed by the 256.
  const made = Array.from({ length: 1000 }, () => maker.create(1));
  const last = made.at(-1) as number;
  expect(sessions.gate.close(last, 0)).toBe(true);
  sessions.gate.open(last);
  visitor.gate.enter(last);
  expect(sessions.gate.close(last, 0)).toBe(false);
  visitor.gate.leave();
  for (const session of made) expect(maker.discard(session)).toEqual([]);
});

describe('many threads', () => {
  test('nobody is ever inside while it is closed, and everybody gets in again', async () => {
    const fixture = newDisk();
    const flags = newFlags();
    const visitors = Array.from({ length: 4 }, () => ({ kind: 'visit' as const, disk: fixture.task(), flags }));
    const results = await runThreads([...visitors, { kind: 'close', disk: fixture.task(), flags, times: 1500 }]);
    expect(results.pop()).toEqual({ wrong: 0 });
    for (const result of results) expect(result).toMatchObject({ wrong: 0, visits: expect.any(Number) });
  });

  test('those who wait in front of a gate get in when closing is given up', async () => {
    const fixture = newDisk();
    const flags = newFlags();
    const [, isClosed, ...visits] = await runThreads([
      { kind: 'stay', disk: fixture.task(), flags },
      { kind: 'close-in-vain', disk: fixture.task(), flags },
      { kind: 'visit', disk: fixture.task(), flags },
      { kind: 'visit', disk: fixture.task(), flags },
    ]);
    expect(isClosed).toBe(false);
    for (const each of visits) expect(each).toMatchObject({ wrong: 0 });
    expect(fixture.sessions.gate.close(fixture.session, 0)).toBe(true);
    fixture.sessions.gate.open(fixture.session);
  });
});
