/**
 * Requests that no kernel would send, a million of them, to two servers over equal mounts. Both get the same bytes, but
 * other sentinels behind them and in their reply buffers: any difference between replies or disks is a read past the
 * end of a request, or a reply that shows what lay there before. Nothing is ever thrown, nothing is answered that wants
 * no answer, every reply is one, and what the disks took goes with them. COWFS_SEED repeats a run, COWFS_FUZZ_REQUESTS says how many.
 */
import { isAscii } from 'node:buffer';
import { readdirSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import { INODE, KIND } from '../../src/fs/inodes.ts';
import type { NodeId } from '../../src/fs/node.ts';
import { FUSE_INIT_OUT, FUSE_OUT_HEADER, OPCODE } from '../../src/fuse/abi.ts';
import { RequestReader } from '../../src/fuse/decode.ts';
import { OPERATIONS } from '../../src/fuse/dispatch.ts';
import { handshake } from '../../src/fuse/init.ts';
import { ReplyWriter } from '../../src/fuse/reply.ts';
import { CowfsError } from '../../src/lib/error.ts';
import { scratch } from '../harness.ts';
import { readDisk } from '../overlay/disk-fixture.ts';
import { Random } from '../overlay/random.ts';
import { MAX_TRANSFER, quietBytes, someRequest } from './hostile-requests.ts';
import { body, request } from './requests.ts';
import { newServer, useFs } from './server-fixture.ts';

// A minute and a half on an idle machine; on a busy one others take their turn.
vi.setConfig({ testTimeout: 600_000 });

const REQUESTS = Number(process.env['COWFS_FUZZ_REQUESTS'] ?? 1_000_000);
const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** To the same servers; then fresh ones come. */
const LIFE_REQUESTS = 20_000;
const HEADER_BYTES = 40;
const SENTINELS = [0xee, 0xdd] as const;
const NO_ANSWER: readonly number[] = [OPCODE.FORGET, OPCODE.BATCH_FORGET, OPCODE.INTERRUPT, OPCODE.NOTIFY_REPLY];
const DEFERRED: readonly number[] = [OPCODE.LSEEK, OPCODE.READ, OPCODE.OPEN, OPCODE.RELEASE];

beforeEach(() => {
  // Times are in replies.
  vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_000 });
});

afterEach(() => {
  vi.useRealTimers();
});

const FIRST_BYTES = 60_000;

/** A server over disks of bytes below 0x80, of which nothing depends on the host. */
function newHostileServer(directory: string) {
  const content = quietBytes(new Random(4711), 50_001);
  const { fs } = useFs({ directory, content, maxStoreBytes: 12 * 4096, maxSessionStoreBytes: 8 * 4096 });
  Object.defineProperty(fs.sessions.directory, 'freeBytes', { value: 2 ** 20 });
  return { fs, ...newServer(fs, MAX_TRANSFER) };
}

/** Names, sizes, counts and the first bytes of all disks: sizes of terabytes come by. */
function contentOf({ inodes, sessions, namespace }: CowFs): { text: string; bytes: Buffer } {
  const disks = inodes.all(KIND.DISK).map((node) => {
    const disk = sessions.open(inodes.get(node, INODE.CONTENT));
    const { occupiedBytes } = disk.account;
    const text = `${node} ${namespace.path(node)} ${disk.sizeBytes} ${occupiedBytes}`;
    return { text, bytes: readDisk(disk, 0, Math.min(disk.sizeBytes, FIRST_BYTES)) };
  });
  const text = disks.map((disk) => disk.text).join('\n');
  return { text, bytes: Buffer.concat(disks.map(({ bytes }) => bytes)) };
}

/** Takes every name away, and whoever knows one; what is left of it all. */
function endAll(fs: CowFs): { nodes: number; occupiedBytes: number; memoryBytes: number } {
  const { inodes, namespace, sessions } = fs;
  const nodes = (): NodeId[] => [...inodes.all(KIND.DISK), ...inodes.all(KIND.DIRECTORY).filter((node) => node !== 1)];
  for (const node of nodes()) {
    inodes.set(node, INODE.OPEN_HANDLES, 0);
    inodes.set(node, INODE.LOOKUPS, 0);
  }
  for (const node of nodes()) {
    const [parent, name] = [inodes.parent(node), inodes.name(node)];
    if (parent === 0) namespace.dropIfUnused(node);
    else if (inodes.kind(node) === KIND.DIRECTORY) fs.removeDirectory(parent, name);
    else fs.remove(parent, name);
  }
  return { nodes: inodes.count, occupiedBytes: sessions.occupiedBytes, memoryBytes: sessions.memoryBytes };
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** One life of two servers; what was wrong, the first time something was, and the opcodes that succeeded. */
function live(seed: number, requests: number): { failures: string[]; seen: ReadonlySet<number> } {
  const directory = scratch();
  const servers = [newHostileServer(directory), newHostileServer(directory)] as const;
  const descriptors = openDescriptors();
  const random = new Random(seed);
  const seen = new Set<number>();
  const failures: string[] = [];
  let reports = 0;
  const check = (fine: boolean, what: string): void => {
    if (!fine) failures.push(`seed ${seed}, ${what}`);
  };
  for (let index = 0; index < requests && failures.length === 0; index++) {
    const bytes = someRequest(random);
    const whole = bytes.length >= HEADER_BYTES && bytes.readUInt32LE(0) === bytes.length;
    const opcode = whole ? bytes.readUInt32LE(4) : -1;
    const what = `request ${index}: opcode ${opcode}, ${bytes.length} bytes`;
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
      // Only a write-back without room, a question for the kernel's own size and the status go unanswered here.
      const { held, deferred } = servers[0];
      const taken = opcode === OPCODE.WRITE ? held.length : DEFERRED.includes(opcode) ? deferred.length : 0;
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
      if (opcode === OPCODE.LOOKUP && !bytes.includes(0, HEADER_BYTES))
        check(error === -5, `${what}: a name without end`);
      if (opcode === OPCODE.READ) check(isAscii(reply.subarray(16)), `${what}: read a sentinel`);
      if (error === 0) seen.add(opcode);
    }
    for (const { held, deferred } of servers) {
      check(
        held.every(({ data }) => isAscii(data)),
        `${what}: held a sentinel`,
      );
      held.length = 0;
      deferred.length = 0;
    }
    const { calls } = servers[0].report.mock;
    for (; reports < calls.length; reports++) check(calls[reports]?.[1] === undefined, `${what}: threw`);
    if (index % 500 === 0) {
      const [one, two] = servers.map(({ fs }) => contentOf(fs));
      check(one?.text === two?.text, `${what}: names, sizes or counts differ`);
      check(one?.bytes.equals(two?.bytes ?? Buffer.alloc(0)) === true, `${what}: disks differ`);
      check(one !== undefined && isAscii(one.bytes), `${what}: wrote a sentinel`);
      // At most a store for each disk.
      const disks = 2 * servers[0].fs.inodes.all(KIND.DISK).length;
      check(openDescriptors() <= descriptors + disks, `${what}: stores stay open`);
    }
  }
  const [one, two] = servers.map(({ report }) => report.mock.calls.map(([message]) => message));
  check(isDeepStrictEqual(one, two), 'the reports differ');
  for (const { fs } of servers) {
    const { nodes, occupiedBytes, memoryBytes } = endAll(fs);
    check(nodes === 1 && occupiedBytes === 0, `${nodes} nodes and ${occupiedBytes} bytes stay`);
    // The mount's record.
    check(memoryBytes <= 128, `${memoryBytes} bytes of memory stay`);
  }
  // The store of the first disk was not open yet.
  check(openDescriptors() === descriptors, 'stores stay open');
  return { failures, seen };
}

test('noise, near misses and real requests with something wrong', () => {
  const seen = new Set<number>();
  let requests = 0;
  for (let seed = SEED; requests < REQUESTS; seed++, requests += LIFE_REQUESTS) {
    const life = live(seed, LIFE_REQUESTS);
    expect(life.failures).toEqual([]);
    for (const opcode of life.seen) seen.add(opcode);
  }
  // It got somewhere: everything that can succeed did.
  expect([...seen].sort((a, b) => a - b)).toEqual([
    1, 3, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 27, 28, 29, 35, 38, 43, 45, 46,
  ]);
  console.log(`fuzz: ${requests} requests, seed ${SEED}, no exception, no byte out of bounds, no answer too many`);
});

test('greetings that no kernel would send', () => {
  const random = new Random(SEED);
  let sessions = 0;
  for (let index = 0; index < LIFE_REQUESTS; index++) {
    const requestBytes = new Uint8Array(256).fill(SENTINELS[0]);
    const replyBytes = new Uint8Array(FUSE_OUT_HEADER.BYTES + FUSE_INIT_OUT.BYTES + 32).fill(SENTINELS[1]);
    const [reader, writer] = [new RequestReader(requestBytes), new ReplyWriter(replyBytes)];
    const major = random.below(8) === 0 ? random.below(2 ** 31) : 7;
    const known = body(major, random.below(60), random.below(2 ** 31), random.below(2 ** 31), random.below(2 ** 31));
    const bytes = request(
      random.below(20) === 0 ? random.below(64) : OPCODE.INIT,
      Buffer.concat([known, quietBytes(random, 60)]),
    );
    const length = random.below(3) === 0 ? HEADER_BYTES + random.below(bytes.length - HEADER_BYTES) : bytes.length;
    bytes.writeUInt32LE(length, 0);
    requestBytes.set(bytes.subarray(0, length));
    expect(reader.start(length)).toBe(true);
    try {
      const { session, replyBytes: replied } = handshake(reader, writer, {
        writeback: random.below(2) === 0,
        passthrough: random.below(2) === 0,
      });
      expect(replied).toBe(FUSE_OUT_HEADER.BYTES + FUSE_INIT_OUT.BYTES);
      if (session === undefined) continue;
      sessions++;
      expect(session.maxTransferBytes % 4096).toBe(0);
      expect(session.maxTransferBytes).toBeLessThanOrEqual(2 ** 20);
    } catch (error) {
      // A refusal in words, and nothing else.
      expect(error).toBeInstanceOf(CowfsError);
    }
    // Nothing behind the reply was touched.
    expect(replyBytes.subarray(-32).every((byte) => byte === SENTINELS[1])).toBe(true);
  }
  expect(sessions).toBeGreaterThan(LIFE_REQUESTS / 10);
});
