/** Quotas: `--max-store` for all disks of a mount together, `--max-session-store` for each. */
import { closeSync, fsyncSync, openSync, readFileSync, statSync, truncateSync, unlinkSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { cowfs, must, mustCowfs, run, statusOf } from '../harness.ts';
import { freeBytes } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  ALL_MODES,
  BLOCK,
  expectContent,
  filled,
  type Mode,
  make,
  mountSessions,
  outcome,
  patched,
  put,
  statusNow,
  untilOnly,
  WRITEBACK,
} from './sessions-support.ts';

/** Cached writes wait a second for room, then are lost and told of; the other modes say so at once. */
const quota = ({ transport }: Mode, ...options: string[]): string[] => [
  ...options,
  ...(transport === 'kernel' ? ['--enospc-timeout', '1s'] : []),
];

/** What comes of writing all of that and having it synced. */
function tryToPut(path: string, offset: number, bytes: Buffer): string {
  const fd = openSync(path, 'r+');
  const written = outcome(() => {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
  });
  const synced = outcome(() => fsyncSync(fd));
  const closed = outcome(() => closeSync(fd));
  return [written, synced, closed].find((each) => each !== 'OK') ?? 'OK';
}

/** Where these tests write what finds no room: the kernel goes on showing it from its cache after it was told. */
const LOST_AT = 60 * BLOCK;

function expectKept({ cache }: Mode, path: string, expected: Buffer): void {
  if (cache !== 'writeback') expectContent(path, expected);
  expect(readFileSync(path).subarray(0, LOST_AT).equals(expected.subarray(0, LOST_AT)), path).toBe(true);
}

test.for(ALL_MODES)(
  '$name: --max-store counts all disks together, and room comes back with a disk',
  async (mode, context) => {
    const mount = mountSessions(mode, context, quota(mode, '--empty', '--max-store', '256K'));
    const { at, mountpoint, original } = mount;
    for (const name of ['a.raw', 'b.raw', 'c.raw']) make(at(name));
    put(at('a.raw'), 0, filled(1, 32 * BLOCK));
    put(at('b.raw'), 0, filled(2, 24 * BLOCK));
    expect(freeBytes(mountpoint)).toBe(8 * BLOCK);
    expect(statusOf(mountpoint).store).toMatchObject({
      maxBytes: 64 * BLOCK,
      occupiedBytes: 56 * BLOCK,
      maxSessionBytes: null,
    });
    put(at('c.raw'), 0, filled(3, 8 * BLOCK));
    expect(freeBytes(mountpoint)).toBe(0);
    for (const name of ['a.raw', 'c.raw']) expect(tryToPut(at(name), LOST_AT, filled(4, BLOCK))).toBe('ENOSPC');
    // What is in the store already is written to as before.
    put(at('a.raw'), 5, filled(5, 20 * BLOCK));
    const a = patched(original, [0, filled(1, 32 * BLOCK)], [5, filled(5, 20 * BLOCK)]);
    expectKept(mode, at('a.raw'), a);
    expectKept(mode, at('b.raw'), patched(original, [0, filled(2, 24 * BLOCK)]));
    expectKept(mode, at('c.raw'), patched(original, [0, filled(3, 8 * BLOCK)]));
    // New disks, forks and snapshots need no room.
    make(at('d.raw'));
    mustCowfs(['fork', at('a.raw'), at('e.raw')]);
    mustCowfs(['snapshot', at('e.raw'), 'one']);
    expectKept(mode, at('d.raw'), original);
    expectKept(mode, at('e.raw'), a);
    expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(64 * BLOCK);

    unlinkSync(at('b.raw'));
    await untilOnly(mountpoint, ['a.raw', 'c.raw', 'd.raw', 'e.raw'], 40 * BLOCK);
    expect(freeBytes(mountpoint)).toBe(24 * BLOCK);
    put(at('d.raw'), 0, filled(6, 24 * BLOCK));
    expect(tryToPut(at('d.raw'), LOST_AT, filled(4, BLOCK))).toBe('ENOSPC');
    mustCowfs(['reset', at('d.raw')]);
    put(at('c.raw'), 20 * BLOCK, filled(7, 24 * BLOCK));
    expectKept(mode, at('c.raw'), patched(original, [0, filled(3, 8 * BLOCK)], [20 * BLOCK, filled(7, 24 * BLOCK)]));
  },
);

test.for(ALL_MODES)(
  '$name: --max-session-store is each disk’s own; others are not touched by one that is full',
  (mode, context) => {
    const mount = mountSessions(mode, context, quota(mode, '--empty', '--max-session-store', '64K'));
    const { at, mountpoint, original } = mount;
    for (const name of ['a.raw', 'b.raw', 'c.raw']) make(at(name));
    put(at('a.raw'), 0, filled(1, 16 * BLOCK));
    expect(tryToPut(at('a.raw'), LOST_AT, filled(2, BLOCK))).toBe('ENOSPC');
    expect(tryToPut(at('b.raw'), 0, filled(3, 16 * BLOCK))).toBe('OK');
    expect(tryToPut(at('a.raw'), LOST_AT, filled(2, BLOCK))).toBe('ENOSPC');
    expect(tryToPut(at('c.raw'), 40 * BLOCK, filled(4, 10 * BLOCK))).toBe('OK');
    expectKept(mode, at('a.raw'), patched(original, [0, filled(1, 16 * BLOCK)]));
    expectKept(mode, at('b.raw'), patched(original, [0, filled(3, 16 * BLOCK)]));
    expectKept(mode, at('c.raw'), patched(original, [40 * BLOCK, filled(4, 10 * BLOCK)]));
    expect(statusOf(mountpoint).store).toMatchObject({ maxBytes: null, maxSessionBytes: 16 * BLOCK });
    // Room comes back by what the disk itself gives up.
    truncateSync(at('a.raw'), 8 * BLOCK);
    put(at('a.raw'), 30 * BLOCK, filled(5, 7 * BLOCK));
    expect(tryToPut(at('a.raw'), LOST_AT, filled(6, 2 * BLOCK))).toBe('ENOSPC');
    mustCowfs(['reset', at('a.raw')]);
    expect(tryToPut(at('a.raw'), 0, filled(7, 16 * BLOCK))).toBe('OK');
    expectKept(mode, at('a.raw'), patched(original, [0, filled(7, 16 * BLOCK)]));
  },
);

test.for(ALL_MODES)(
  '$name: a fork counts what it shares as its own; what is shared takes its room once',
  async (mode, context) => {
    const mount = mountSessions(
      mode,
      context,
      quota(mode, '--empty', '--max-session-store', '64K', '--max-store', '1M'),
    );
    const { at, mountpoint, original } = mount;
    make(at('a.raw'));
    put(at('a.raw'), 0, filled(1, 12 * BLOCK));
    mustCowfs(['fork', at('a.raw'), at('b.raw')]);
    for (const name of ['a.raw', 'b.raw']) {
      expect(tryToPut(at(name), 40 * BLOCK, filled(2, 4 * BLOCK))).toBe('OK');
      expect(tryToPut(at(name), LOST_AT, filled(3, BLOCK))).toBe('ENOSPC');
      expectKept(mode, at(name), patched(original, [0, filled(1, 12 * BLOCK)], [40 * BLOCK, filled(2, 4 * BLOCK)]));
      expect(statSync(at(name)).blocks * 512).toBe(16 * BLOCK);
    }
    expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(20 * BLOCK);
    unlinkSync(at('a.raw'));
    await untilOnly(mountpoint, ['b.raw'], 16 * BLOCK);
    expectKept(mode, at('b.raw'), patched(original, [0, filled(1, 12 * BLOCK)], [40 * BLOCK, filled(2, 4 * BLOCK)]));
  },
);

test('under writeback, writes that wait for room get it when another disk is removed', async () => {
  const options = ['--empty', '--max-store', '256K', '--enospc-timeout', '60s'];
  const { at, mountpoint, original } = mountSessions(WRITEBACK, undefined, options);
  for (const name of ['a.raw', 'b.raw']) make(at(name));
  put(at('a.raw'), 0, filled(1, 60 * BLOCK));
  const script = 'dd if=/dev/zero of="$0" bs=4096 count=20 conv=notrunc,fsync status=none & sleep 1; rm "$1"; wait $!';
  must('sh', ['-c', script, at('b.raw'), at('a.raw')]);
  expectContent(at('b.raw'), patched(original, [0, Buffer.alloc(20 * BLOCK)]));
  await untilOnly(mountpoint, ['b.raw'], 20 * BLOCK);
  expect((await statusNow(mountpoint)).store.heldBytes).toBe(0);
});

test('fallocate is held to the quotas, and changes nothing where there is no room', async () => {
  const { at, mountpoint, original } = mountSessions(WRITEBACK, undefined, ['--empty', '--max-session-store', '64K']);
  make(at('a.raw'));
  expect(run('fallocate', ['-l', String(17 * BLOCK), at('a.raw')]).stderr).toContain('No space left');
  expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(0);
  must('fallocate', ['-l', String(16 * BLOCK), at('a.raw')]);
  expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(16 * BLOCK);
  put(at('a.raw'), 0, filled(1, 16 * BLOCK));
  expectContent(at('a.raw'), patched(original, [0, filled(1, 16 * BLOCK)]));
  // What was set aside and not used goes back when the layer is frozen.
  make(at('b.raw'));
  must('fallocate', ['-l', String(16 * BLOCK), at('b.raw')]);
  put(at('b.raw'), 0, filled(2, BLOCK));
  mustCowfs(['snapshot', at('b.raw'), 'one']);
  expect((await statusNow(mountpoint)).store.occupiedBytes).toBe(17 * BLOCK);
});

test('sizes that are none are refused, and nothing is mounted', () => {
  const { base, directory } = mountSessions(WRITEBACK, undefined);
  for (const option of ['--max-store', '--max-session-store']) {
    for (const size of ['-1', 'x', '1Q', '']) {
      expectRefusal(cowfs(['mount', base, directory, `${option}=${size}`]), 2, option);
    }
  }
});
