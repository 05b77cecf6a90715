/**
 * Requests that no kernel would send, tens of thousands of them, to two servers over equal disks. Both get the same
 * bytes, but other sentinels behind them and in their reply buffers: any difference between replies or disks is a read
 * past the end of a request, or a reply that shows what lay there before. Nothing is ever thrown, nothing is answered that wants no answer, and every reply is one.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { OPCODE } from '../../src/fuse/abi.ts';
import { OPERATIONS } from '../../src/fuse/dispatch.ts';
import { scratch } from '../harness.ts';
import { difference, readDisk } from '../overlay/disk-fixture.ts';
import { Random } from '../overlay/random.ts';
import { body, request } from './requests.ts';
import { FS_OPTIONS, newServer, useFs } from './server-fixture.ts';

// Seconds on an idle machine; the others on a busy one wait their turn.
vi.setConfig({ testTimeout: 60_000 });

const REQUESTS = 50_000;
const MAX_TRANSFER = 16_384;
const SENTINELS = [0xee, 0xdd] as const;
const NO_ANSWER: readonly number[] = [OPCODE.FORGET, OPCODE.BATCH_FORGET, OPCODE.INTERRUPT, OPCODE.NOTIFY_REPLY];

beforeEach(() => {
  // Times are in replies.
  vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_000 });
});

afterEach(() => {
  vi.useRealTimers();
});

/** Bytes below 0x80, so that no sentinel is among them. */
function quietBytes(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = random.below(0x80);
  return bytes;
}

/** Small, near a limit, or anything. */
function someOffset(random: Random): bigint {
  switch (random.below(8)) {
    case 0:
      return BigInt.asUintN(64, -BigInt(random.below(10_000)));
    case 1:
      return BigInt.asUintN(64, 2n ** BigInt(random.below(64)) - BigInt(random.below(3)));
    case 2:
      return (BigInt(random.below(2 ** 31)) << 32n) | BigInt(random.below(2 ** 31));
    default:
      return BigInt(random.below(100_000));
  }
}

function someSize(random: Random): number {
  switch (random.below(6)) {
    case 0:
      return 0xffffffff - random.below(3);
    case 1:
      return MAX_TRANSFER - 1 + random.below(3);
    default:
      return random.below(6000);
  }
}

/** Half of what comes is made to get far into a handler; the other half is noise. */
function someBody(random: Random, opcode: number): Buffer {
  if (random.below(2) === 0) return quietBytes(random, random.below(random.below(2) === 0 ? 100 : 600));
  const data = quietBytes(random, random.below(5000));
  const size = random.below(3) === 0 ? someSize(random) : data.length;
  let bytes: Buffer;
  switch (opcode) {
    case OPCODE.LOOKUP:
      bytes = random.below(2) === 0 ? body('disk.raw') : Buffer.from('disk.raw');
      break;
    case OPCODE.SETATTR:
      bytes = body(random.below(2048), 0, 0n, someOffset(random), quietBytes(random, 64));
      break;
    case OPCODE.READ:
    case OPCODE.READDIR:
      bytes = body(0n, someOffset(random), someSize(random), 0, 0n, 0, 0);
      break;
    case OPCODE.WRITE:
      bytes = body(0n, someOffset(random), size, random.below(8), 0n, 0, 0, data);
      break;
    case OPCODE.FALLOCATE:
      bytes = body(0n, someOffset(random), someOffset(random), random.below(64), 0);
      break;
    case OPCODE.LSEEK:
      bytes = body(0n, someOffset(random), random.below(7), 0);
      break;
    default:
      bytes = quietBytes(random, random.below(120));
  }
  // Cut short now and then.
  return random.below(6) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

const KNOWN = [...new Set(Object.values(OPCODE))];

function someRequest(random: Random): Buffer {
  const opcode = random.below(4) === 0 ? random.below(256) : (KNOWN[random.below(KNOWN.length)] as number);
  const nodeid = random.below(4) === 0 ? someOffset(random) : BigInt([1, 2, 2, 2, 2, 3, 0][random.below(7)] as number);
  const unique = BigInt(random.below(2 ** 31)) * 2n ** BigInt(random.below(34));
  const bytes = request(opcode, someBody(random, opcode), { nodeid, unique });
  if (random.below(40) === 0) bytes.writeUInt32LE(someSize(random), 0);
  return bytes;
}

/** A server over a disk of bytes below 0x80, of which nothing depends on the host. */
function newHostileServer(directory: string) {
  const { disk, store, fs } = useFs(
    { directory, content: quietBytes(new Random(4711), 50_001), maxStoreBytes: 12 * 4096 },
    { ...FS_OPTIONS, maxStoreBytes: 12 * 4096 },
  );
  Object.defineProperty(store, 'usedBytes', { value: 4096 });
  Object.defineProperty(store, 'freeBytes', { value: 2 ** 20 });
  return { disk, ...newServer(fs, MAX_TRANSFER) };
}

test.each([1, 2])('noise and near misses, seed %i', (seed) => {
  const directory = scratch();
  const servers = [newHostileServer(directory), newHostileServer(directory)] as const;
  const random = new Random(seed);
  const seen = new Set<number>();
  const failures: string[] = [];
  const check = (fine: boolean, what: string): void => {
    if (!fine) failures.push(what);
  };
  for (let index = 0; index < REQUESTS / 2 && failures.length === 0; index++) {
    const bytes = someRequest(random);
    const opcode = bytes.readUInt32LE(4);
    const what = `request ${index}: opcode ${opcode}, ${bytes.length} bytes`;
    const whole = bytes.readUInt32LE(0) === bytes.length;
    const lengths = servers.map(({ server }, which) => {
      server.requestBytes.fill(SENTINELS[which] as number, bytes.length, bytes.length + 8192);
      server.requestBytes.set(bytes);
      server.replyBytes.fill(SENTINELS[which] as number);
      return server.serve(bytes.length);
    });
    const [length = 0] = lengths;
    const [reply, other] = servers.map(({ server }, which) =>
      Buffer.from(server.replyBytes.buffer, 0, lengths[which] as number),
    ) as [Buffer, Buffer];
    check(reply.equals(other), `${what}: the reply depends on what lay in the buffers before`);
    if (!whole) check(length === 0, `${what}: an answer to what is no request`);
    else if (NO_ANSWER.includes(opcode)) check(length === 0, `${what}: an answer that nobody wants`);
    else if (length === 0) {
      // Only a write-back without room and a question for the kernel's own size go unanswered.
      const { held, deferred } = servers[0];
      const taken = opcode === OPCODE.WRITE ? held.length : opcode === OPCODE.LSEEK ? deferred.length : 0;
      check(taken === 1, `${what}: no answer`);
    } else {
      const error = reply.readInt32LE(4);
      check(length >= 16 && length <= 16 + MAX_TRANSFER, `${what}: a reply of ${length} bytes`);
      check(reply.readUInt32LE(0) === length, `${what}: its header says ${reply.readUInt32LE(0)}, it has ${length}`);
      check(error <= 0 && error > -512, `${what}: error ${error}`);
      check(error === 0 || length === 16, `${what}: an error with a payload`);
      check(reply.readBigUInt64LE(8) === bytes.readBigUInt64LE(8), `${what}: another unique`);
      const operation = OPERATIONS[opcode];
      if (operation !== undefined && bytes.length - 40 < operation.inBytes) check(error === -5, `${what}: no EIO`);
      if (opcode === OPCODE.READ) check(!reply.subarray(16).some((byte) => byte >= 0x80), `${what}: read a sentinel`);
      if (error === 0) seen.add(opcode);
    }
    for (const { held, deferred } of servers) {
      check(!held.some(({ data }) => data.some((byte) => byte >= 0x80)), `${what}: held a sentinel`);
      held.length = 0;
      deferred.length = 0;
    }
    check(!servers[0].report.mock.calls.some(([, error]) => error !== undefined), `${what}: threw`);
    if (index % 500 === 0) {
      // Sizes of terabytes come by: of each disk the first part and the counts.
      const [one, two] = servers.map(({ disk }) => readDisk(disk, 0, Math.min(disk.sizeBytes, 200_000)));
      check(difference(one as Buffer, two as Buffer) === undefined, `${what}: disks differ`);
      check(!one?.some((byte) => byte >= 0x80), `${what}: wrote a sentinel`);
      check(servers[0].disk.account.occupiedBytes === servers[1].disk.account.occupiedBytes, `${what}: counts differ`);
    }
  }
  expect(failures).toEqual([]);
  expect(servers[0].report.mock.calls.map(([message]) => message)).toEqual(
    servers[1].report.mock.calls.map(([message]) => message),
  );
  // The noise got somewhere: everything that can succeed did.
  expect([...seen].sort((a, b) => a - b)).toEqual([1, 3, 4, 14, 15, 16, 17, 18, 27, 28, 29, 38, 43, 46]);
});
