import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { Counters, totals } from '../../src/fs/counters.ts';
import { OPCODE } from '../../src/fuse/abi.ts';
import { STEP, type Step, slotBytes, TransferServer } from '../../src/fuse/transfer-server.ts';
import { OK } from '../../src/lib/errno.ts';
import { bytesMoved, readAll, writeAll } from '../../src/sys/file-bytes.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../src/sys/libc.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk } from '../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../overlay/random.ts';
import { body, request } from './requests.ts';
import { type FsFixture, MAX_TRANSFER, useFs } from './server-fixture.ts';

const BLOCK = 4096;
const SLOTS = 3;
/** Rows of the gates that no thread of a test has. */
const FIRST_LANE = 10;
const NODE = 2;
const UNIQUE = 0x1234_5678_9abcn;

function useServer({ mayBeKept = false } = {}) {
  const fixture = useFs({ directory: scratch(), content: nonZeroBytes(64 * BLOCK, 1) });
  // The store is there from the first write on.
  expect(fixture.disk.write(0, BLOCK, nonZeroBytes(BLOCK, 2), 0)).toBe(OK);
  const slots = Array.from({ length: SLOTS }, () => new Uint8Array(slotBytes(MAX_TRANSFER)).fill(0xee));
  const counters = Counters.create(1);
  const lanes = Array.from({ length: SLOTS }, (_, index) => fixture.fs.lane(FIRST_LANE + index));
  const options = { maxTransferBytes: MAX_TRANSFER, counters: new Counters(counters, 0), mayBeKept };
  const server = new TransferServer(slots, lanes, options);
  const bytesOf = (slot: number): Uint8Array => slots[slot] as Uint8Array;
  return {
    ...fixture,
    server,
    totals: () => totals(counters),
    start: (bytes: Uint8Array, slot = 0): Step => {
      bytesOf(slot).set(bytes);
      return server.start(slot, bytes.length);
    },
    /** Does what the last step asks for; how much it moved. */
    move: (step: Step, slot = 0): number => {
      const { fd, offset, length, at } = server;
      const isRead = step === STEP.READ || step === STEP.READ_AND_REPLY;
      expect((isRead ? readAll : writeAll)(fd, offset, length, bytesOf(slot), at)).toBe(OK);
      return bytesMoved();
    },
    reply: (slot = 0): Buffer =>
      Buffer.from(bytesOf(slot).subarray(server.replyAt, server.replyAt + server.replyBytes)),
    request: (slot: number, length: number): Buffer => Buffer.from(bytesOf(slot).subarray(0, length)),
  };
}

const read = (offset: bigint, size: number): Buffer =>
  request(OPCODE.READ, body(0n, offset, size, 0, 0n, 0, 0), { nodeid: NODE, unique: UNIQUE });

const write = (offset: bigint, data: Uint8Array, flags = 0): Buffer =>
  request(OPCODE.WRITE, body(0n, offset, data.length, 0, 0n, flags, 0, data), { nodeid: NODE, unique: UNIQUE });

const fallocate = (mode: number, offset: bigint, length: bigint): Buffer =>
  request(OPCODE.FALLOCATE, body(0n, offset, length, mode, 0), { nodeid: NODE, unique: UNIQUE });

/** Nobody is in the session, and nothing of it is locked. */
function expectIdle({ sessions, session, disk }: FsFixture): void {
  expect(sessions.gate.close(session, 0)).toBe(true);
  sessions.gate.open(session);
  expect(disk.locks.tryLock(0, 63)).toBe(true);
  disk.locks.unlock(0, 63);
}

function expectReply(reply: Buffer, payloadBytes: number): Buffer {
  expect(reply.length).toBe(16 + payloadBytes);
  expect(reply.readUInt32LE(0)).toBe(16 + payloadBytes);
  expect(reply.readInt32LE(4)).toBe(0);
  expect(reply.readBigUInt64LE(8)).toBe(UNIQUE);
  return reply.subarray(16);
}

describe('READ', () => {
  test.each([
    ['of the base', 5n * 4096n + 3n, 1000],
    ['of the store', 10n, 4086],
    ['as large as can be', 4096n, MAX_TRANSFER],
  ])('%s is one move, and the reply behind it', (_, offset, size) => {
    const fixture = useServer();
    const { server, start, move, reply, disk } = fixture;
    const step = start(read(offset, size));
    expect(step).toBe(STEP.READ_AND_REPLY);
    expect(server.length).toBe(size);
    expect(move(step)).toBe(size);
    const payload = expectReply(reply(), size);
    expect(difference(payload, readDisk(disk, Number(offset), size))).toBeUndefined();
    server.replied(0, true);
    expect(fixture.totals()).toMatchObject({ reads: 1, readBytes: size, writes: 0 });
    expectIdle(fixture);
  });

  test('of zeros is a reply', () => {
    const fixture = useServer();
    expect(fixture.disk.discard(8 * BLOCK, 2 * BLOCK)).toBe(OK);
    expect(fixture.start(read(8n * 4096n + 5n, 4096))).toBe(STEP.REPLY);
    expect(expectReply(fixture.reply(), 4096).every((byte) => byte === 0)).toBe(true);
    fixture.server.replied(0, true);
    expectIdle(fixture);
  });

  test('that finds less than it should is handed over as it came', () => {
    const fixture = useServer();
    const bytes = read(5n * 4096n, 4096);
    expect(fixture.start(bytes)).toBe(STEP.READ_AND_REPLY);
    fixture.move(STEP.READ_AND_REPLY);
    expect(fixture.server.replied(0, false)).toBe(STEP.HAND_OVER);
    expect(fixture.request(0, bytes.length)).toEqual(bytes);
    expect(fixture.totals()).toMatchObject({ reads: 0 });
    expectIdle(fixture);
  });
});

describe('WRITE', () => {
  const data = nonZeroBytes(MAX_TRANSFER, 7);

  test('into blocks that are in the store is one move, and the reply behind it', () => {
    const fixture = useServer();
    const mtime = fixture.attributes.seconds('MTIME');
    const step = fixture.start(write(100n, data.subarray(0, 900)));
    expect(step).toBe(STEP.WRITE_AND_REPLY);
    expect(fixture.move(step)).toBe(900);
    expect(expectReply(fixture.reply(), 8).readUInt32LE(0)).toBe(900);
    fixture.server.replied(0, true);
    expect(difference(readDisk(fixture.disk, 100, 900), data.subarray(0, 900))).toBeUndefined();
    expect(fixture.attributes.seconds('MTIME')).toBeGreaterThan(mtime);
    expect(fixture.totals()).toMatchObject({ writes: 1, writeBytes: 900 });
    expectIdle(fixture);
  });

  test('of whole blocks is answered when the disk shows them', () => {
    const fixture = useServer();
    const step = fixture.start(write(4096n, data));
    expect(step).toBe(STEP.WRITE);
    const moved = fixture.move(step);
    expect(difference(readDisk(fixture.disk, BLOCK, BLOCK), data.subarray(0, BLOCK))).toBeDefined();
    expect(fixture.server.advance(0, moved)).toBe(STEP.REPLY);
    expect(difference(readDisk(fixture.disk, BLOCK, MAX_TRANSFER), data)).toBeUndefined();
    expect(expectReply(fixture.reply(), 8).readUInt32LE(0)).toBe(MAX_TRANSFER);
    fixture.server.replied(0, true);
    expect(fixture.totals()).toMatchObject({ writes: 1, writeBytes: MAX_TRANSFER });
    expectIdle(fixture);
  });

  test('of a part of a block reads the block, and writes it with that part replaced', () => {
    const fixture = useServer();
    const expected = readDisk(fixture.disk, 9 * BLOCK, BLOCK);
    data.copy(expected, 700, 0, 1024);
    expect(fixture.start(write(9n * 4096n + 700n, data.subarray(0, 1024)))).toBe(STEP.READ);
    const step = fixture.server.advance(0, fixture.move(STEP.READ));
    expect(step).toBe(STEP.WRITE);
    expect(fixture.server.length).toBe(BLOCK);
    expect(fixture.server.advance(0, fixture.move(step))).toBe(STEP.REPLY);
    expect(expectReply(fixture.reply(), 8).readUInt32LE(0)).toBe(1024);
    fixture.server.replied(0, true);
    expect(difference(readDisk(fixture.disk, 9 * BLOCK, BLOCK), expected)).toBeUndefined();
    expectIdle(fixture);
  });

  test.each([
    ['in place', 100n, 900, STEP.WRITE_AND_REPLY],
    ['of whole blocks', 4096n, 8192, STEP.WRITE],
    ['of a part of a block', 5000n, 100, STEP.READ],
  ])('%s that fails half-way is handed over as it came, and nothing is booked', (_, offset, length, first) => {
    const fixture = useServer();
    const occupied = fixture.disk.account.occupiedBytes;
    const bytes = write(offset, data.subarray(0, length));
    expect(fixture.start(bytes)).toBe(first);
    const step =
      first === STEP.WRITE_AND_REPLY
        ? fixture.server.replied(0, false)
        : fixture.server.advance(0, -constants.errno.EIO);
    expect(step).toBe(STEP.HAND_OVER);
    expect(fixture.request(0, bytes.length)).toEqual(bytes);
    expect(fixture.disk.account.occupiedBytes).toBe(occupied);
    expect(fixture.totals()).toMatchObject({ writes: 0 });
    expectIdle(fixture);
  });

  test('a copy-up whose second half moves too little is handed over as it came', () => {
    const fixture = useServer();
    const bytes = write(5000n, data.subarray(0, 100));
    expect(fixture.start(bytes)).toBe(STEP.READ);
    expect(fixture.server.advance(0, fixture.move(STEP.READ))).toBe(STEP.WRITE);
    expect(fixture.server.advance(0, BLOCK - 1)).toBe(STEP.HAND_OVER);
    expect(fixture.request(0, bytes.length)).toEqual(bytes);
    expectIdle(fixture);
  });

  test('several are under way at a time, each with its own reply', () => {
    const fixture = useServer();
    const { server, sessions, session } = fixture;
    for (const slot of [0, 1, 2]) {
      const step = fixture.start(
        write(BigInt((10 + slot) * BLOCK), data.subarray(slot, slot + (slot + 1) * BLOCK)),
        slot,
      );
      expect(step).toBe(slot === 0 ? STEP.WRITE : STEP.HAND_OVER);
      if (step !== STEP.HAND_OVER) fixture.move(step, slot);
    }
    // The others touch a region that the first has: read beside it.
    expect(fixture.start(read(40n * 4096n, 100), 1)).toBe(STEP.READ_AND_REPLY);
    fixture.move(STEP.READ_AND_REPLY, 1);
    expect(sessions.gate.close(session, 0)).toBe(false);
    expect(server.advance(0, BLOCK)).toBe(STEP.REPLY);
    expect(expectReply(fixture.reply(0), 8).readUInt32LE(0)).toBe(BLOCK);
    server.replied(0, true);
    expect(sessions.gate.close(session, 0)).toBe(false);
    server.replied(1, true);
    expect(fixture.totals()).toMatchObject({ writes: 1, writeBytes: BLOCK, reads: 1, readBytes: 100 });
    expectIdle(fixture);
  });

  test('that has to be durable is handed over where a disk may be kept, and only there', () => {
    expect(useServer({ mayBeKept: true }).start(write(0n, data.subarray(0, 10), fsConstants.O_DSYNC))).toBe(
      STEP.HAND_OVER,
    );
    expect(useServer().start(write(0n, data.subarray(0, 10), fsConstants.O_DSYNC))).toBe(STEP.WRITE_AND_REPLY);
  });
});

test.each<[string, Buffer]>([
  ['another request', request(OPCODE.GETATTR, body(0, 0, 0n))],
  ['a READ that ends early', request(OPCODE.READ, body(0n, 0n))],
  [
    'a WRITE that says it has more than it has',
    request(OPCODE.WRITE, body(0n, 0n, 100, 0, 0n, 0, 0, Buffer.alloc(99))),
  ],
  ['a READ of more than was agreed on', request(OPCODE.READ, body(0n, 0n, MAX_TRANSFER + 1, 0, 0n, 0, 0))],
  ['a READ of nothing', request(OPCODE.READ, body(0n, 0n, 0, 0, 0n, 0, 0))],
  ['a READ past every end', request(OPCODE.READ, body(0n, 2n ** 63n - 1n, 10, 0, 0n, 0, 0))],
  ['a READ of a node that is none', request(OPCODE.READ, body(0n, 0n, 10, 0, 0n, 0, 0), { nodeid: 77 })],
  [
    'a WRITE to a node that cannot be',
    request(OPCODE.WRITE, body(0n, 0n, 1, 0, 0n, 0, 0, Buffer.alloc(1)), { nodeid: 2n ** 63n }),
  ],
  ['what is shorter than it says', request(OPCODE.READ, body(0n, 0n, 10, 0, 0n, 0, 0), { len: 1000 })],
  ['nothing', Buffer.alloc(0)],
])('%s is for others', (_, bytes) => {
  const fixture = useServer();
  expect(fixture.start(bytes)).toBe(STEP.HAND_OVER);
  expectIdle(fixture);
});

describe('FALLOCATE', () => {
  const PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

  test.each([
    ['of a hole', PUNCH_HOLE],
    ['of zeros', FALLOC_FL_ZERO_RANGE],
  ])('%s where nothing is in the store is a reply', (_, mode) => {
    const fixture = useServer();
    expect(fixture.start(fallocate(mode, 8n * 4096n, 2n * 4096n))).toBe(STEP.REPLY);
    expectReply(fixture.reply(), 0);
    fixture.server.replied(0, true);
    expect(difference(readDisk(fixture.disk, 8 * BLOCK, 2 * BLOCK), Buffer.alloc(2 * BLOCK))).toBeUndefined();
    expect(fixture.totals()).toMatchObject({ reads: 0, writes: 0, otherRequests: 1 });
    expectIdle(fixture);
  });

  test.each([
    ['of space', 0, 8n, 2n],
    ['of space beyond the end', FALLOC_FL_KEEP_SIZE, 64n, 2n],
    ['of zeros that make the disk grow', FALLOC_FL_ZERO_RANGE, 63n, 2n],
    ['of a hole that may change the size', FALLOC_FL_PUNCH_HOLE, 8n, 2n],
    ['of a hole over what is in the store', PUNCH_HOLE, 0n, 2n],
    ['of nothing', PUNCH_HOLE, 8n, 0n],
    ['past what a disk can be', PUNCH_HOLE, 8n, 2n ** 50n],
    ['of a mode that there is none of', 0x40, 8n, 2n],
  ])('%s is handed over as it came', (_, mode, block, blocks) => {
    const fixture = useServer();
    const before = readDisk(fixture.disk);
    const bytes = fallocate(mode, block * 4096n, blocks * 4096n);
    expect(fixture.start(bytes)).toBe(STEP.HAND_OVER);
    expect(fixture.request(0, bytes.length)).toEqual(bytes);
    expect(difference(readDisk(fixture.disk), before)).toBeUndefined();
    expectIdle(fixture);
  });

  test('that is too short is handed over', () => {
    const fixture = useServer();
    const bytes = request(OPCODE.FALLOCATE, body(0n, 4096n), { nodeid: NODE, unique: UNIQUE });
    expect(fixture.start(bytes)).toBe(STEP.HAND_OVER);
    expectIdle(fixture);
  });
});

test('a session that is closed is for those who may wait', () => {
  const { start, sessions, session } = useServer();
  expect(sessions.gate.close(session, 0)).toBe(true);
  expect(start(read(0n, 10))).toBe(STEP.HAND_OVER);
  sessions.gate.open(session);
  expect(start(read(0n, 10))).toBe(STEP.READ_AND_REPLY);
});
