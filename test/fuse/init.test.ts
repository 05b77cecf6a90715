import { describe, expect, test } from 'vitest';
import { RequestReader } from '../../src/fuse/decode.ts';
import { type Handshake, handshake } from '../../src/fuse/init.ts';
import { ReplyWriter } from '../../src/fuse/reply.ts';
import { CowfsError } from '../../src/lib/error.ts';
import { body, hex, request } from './requests.ts';

const ASYNC_READ = 1 << 0;
const ATOMIC_O_TRUNC = 1 << 3;
const BIG_WRITES = 1 << 5;
const WRITEBACK_CACHE = 1 << 16;
const PARALLEL_DIROPS = 1 << 18;
const MAX_PAGES = 1 << 22;
const INIT_EXT = 1 << 30;
const DIRECT_IO_ALLOW_MMAP = 1 << 4;
const PASSTHROUGH = 1 << 5;
const EVERYTHING = 0xffffffff;

interface Answer extends Handshake {
  readonly bytes: Buffer;
  readonly payload: Buffer;
}

function answer(bytes: Buffer, writeback = true, passthrough = false): Answer {
  const reader = new RequestReader(Buffer.concat([bytes, Buffer.alloc(64, 0xee)]));
  expect(reader.start(bytes.length)).toBe(true);
  const reply = new ReplyWriter(Buffer.alloc(80, 0xaa));
  const result = handshake(reader, reply, { writeback, passthrough });
  const all = Buffer.from(reply.bytes.subarray(0, result.replyBytes));
  return { ...result, bytes: all, payload: all.subarray(16) };
}

function init(major: number, minor: number, flags: number, flags2?: number): Buffer {
  const rest = flags2 === undefined ? Buffer.alloc(0) : body(flags2, Buffer.alloc(44));
  return request(26, body(major, minor, 131_072, flags, rest), { nodeid: 0 });
}

function flagsOf({ payload }: Answer): [number, number] {
  return [payload.readUInt32LE(12), payload.readUInt32LE(32)];
}

test('passthrough takes the place of the write-back cache, where the kernel has it', () => {
  const offered = answer(init(7, 45, EVERYTHING, DIRECT_IO_ALLOW_MMAP | PASSTHROUGH), true, true);
  expect(offered.session).toMatchObject({ passthrough: true, writebackCache: false });
  const [flags, flags2] = flagsOf(offered);
  expect([flags & WRITEBACK_CACHE, flags2]).toEqual([0, DIRECT_IO_ALLOW_MMAP | PASSTHROUGH]);
  // max_stack_depth
  expect(offered.payload.readUInt32LE(36)).toBe(1);
  const missing = answer(init(7, 39, EVERYTHING, DIRECT_IO_ALLOW_MMAP), true, true);
  expect(missing.session).toMatchObject({ passthrough: false, writebackCache: true });
  expect(missing.payload.readUInt32LE(36)).toBe(0);
});

test('the offer of Linux 6.18, byte by byte', () => {
  const offer = hex(
    '68 00 00 00', // len 104
    '1a 00 00 00', // INIT
    '02 00 00 00 00 00 00 00', // unique
    '00 00 00 00 00 00 00 00', // nodeid 0
    '00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00', // uid, gid, pid, padding
    '07 00 00 00 2d 00 00 00', // 7.45
    '00 00 02 00', // max_readahead 128 KiB
    'fb ff ff 73', // flags
    'ff 07 00 00', // flags2
    ...new Array<string>(11).fill('00 00 00 00'), // unused
  );
  const result = answer(offer);
  expect(result.replyBytes).toBe(80);
  expect(result.session).toEqual({
    protocol: '7.45',
    maxTransferBytes: 1_048_576,
    writebackCache: true,
    directIoAllowMmap: true,
    passthrough: false,
  });
  expect(result.bytes).toEqual(
    hex(
      '50 00 00 00', // len 80
      '00 00 00 00', // no error
      '02 00 00 00 00 00 00 00', // unique
      '07 00 00 00 2d 00 00 00', // 7.45
      '00 00 02 00', // max_readahead, as offered
      '21 80 45 42', // ASYNC_READ BIG_WRITES ASYNC_DIO WRITEBACK_CACHE PARALLEL_DIROPS MAX_PAGES EXPLICIT_INVAL_DATA INIT_EXT
      '40 00 30 00', // max_background 64, congestion_threshold 48
      '00 00 10 00', // max_write 1 MiB
      '01 00 00 00', // time_gran
      '00 01 00 00', // max_pages 256, map_alignment
      '10 00 00 00', // flags2: DIRECT_IO_ALLOW_MMAP, never PASSTHROUGH
      '00 00 00 00', // max_stack_depth
      '00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00', // unused
    ),
  );
});

describe('older kernels', () => {
  test('7.31 sends 16 bytes and no second word of flags', () => {
    const result = answer(init(7, 31, ASYNC_READ | BIG_WRITES | WRITEBACK_CACHE | MAX_PAGES));
    expect(result.session).toEqual({
      protocol: '7.31',
      maxTransferBytes: 1_048_576,
      writebackCache: true,
      passthrough: false,
      directIoAllowMmap: false,
    });
    expect(flagsOf(result)).toEqual([ASYNC_READ | BIG_WRITES | WRITEBACK_CACHE | MAX_PAGES, 0]);
  });

  test('a second word of flags counts only where INIT_EXT says so', () => {
    const without = answer(init(7, 36, MAX_PAGES, DIRECT_IO_ALLOW_MMAP));
    expect(flagsOf(without)).toEqual([MAX_PAGES, 0]);
    expect(without.session?.directIoAllowMmap).toBe(false);
    const short = answer(init(7, 36, MAX_PAGES | INIT_EXT));
    expect(flagsOf(short)[1]).toBe(0);
    const extended = answer(init(7, 40, MAX_PAGES | INIT_EXT, DIRECT_IO_ALLOW_MMAP | PASSTHROUGH));
    expect(flagsOf(extended)).toEqual([MAX_PAGES | INIT_EXT, DIRECT_IO_ALLOW_MMAP]);
    expect(extended.session?.directIoAllowMmap).toBe(true);
  });

  test('without MAX_PAGES a request has 32 pages', () => {
    const result = answer(init(7, 45, EVERYTHING & ~MAX_PAGES, 0));
    expect(result.session?.maxTransferBytes).toBe(131_072);
    expect(result.payload.readUInt32LE(20)).toBe(131_072);
    expect(result.payload.readUInt16LE(28)).toBe(32);
    expect(flagsOf(result)[0] & MAX_PAGES).toBe(0);
  });

  test.each([
    [7, 30],
    [7, 0],
    [6, 45],
    [0, 0],
  ])('%i.%i is too old: refused in words, with EIO ready to be sent', (major, minor) => {
    const reader = new RequestReader(init(major, minor, EVERYTHING, 0));
    reader.start(104);
    const reply = new ReplyWriter(Buffer.alloc(80, 0xaa));
    let error: unknown;
    try {
      handshake(reader, reply, { writeback: true, passthrough: false });
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(CowfsError);
    expect((error as CowfsError).kind).toBe('missing');
    expect((error as CowfsError).message).toBe(
      `the kernel speaks FUSE ${major}.${minor}; cowfs needs 7.31 (Linux 5.4) or newer`,
    );
    expect(Buffer.from(reply.bytes.subarray(0, 8))).toEqual(hex('10 00 00 00 fb ff ff ff'));
  });
});

describe('newer kernels', () => {
  test('a newer minor version: ours is the smaller', () => {
    const result = answer(init(7, 99, EVERYTHING, EVERYTHING));
    expect(result.session?.protocol).toBe('7.45');
    expect(result.payload.readUInt32LE(4)).toBe(45);
  });

  test('a newer major version: our version and nothing else; the kernel asks again', () => {
    const result = answer(init(8, 3, EVERYTHING, EVERYTHING));
    expect(result.session).toBe(undefined);
    expect(result.replyBytes).toBe(80);
    expect(result.payload).toEqual(Buffer.concat([hex('07 00 00 00 2d 00 00 00'), Buffer.alloc(56)]));
  });
});

describe('the write-back cache', () => {
  test.each([
    { wanted: true, offered: true, got: true },
    { wanted: true, offered: false, got: false },
    { wanted: false, offered: true, got: false },
  ])('wanted $wanted, offered $offered', ({ wanted, offered, got }) => {
    const result = answer(init(7, 45, MAX_PAGES | (offered ? WRITEBACK_CACHE : 0), 0), wanted);
    expect(result.session?.writebackCache).toBe(got);
    expect((flagsOf(result)[0] & WRITEBACK_CACHE) !== 0).toBe(got);
  });
});

test('no flag is answered that was not offered, and none that was not wanted', () => {
  for (let bit = 0; bit < 64; bit++) {
    const flags = bit < 32 ? (1 << bit) >>> 0 : 0;
    const flags2 = bit < 32 ? 0 : (1 << (bit - 32)) >>> 0;
    const [only, only2] = flagsOf(answer(init(7, 45, (flags | INIT_EXT) >>> 0, flags2)));
    expect([bit, (only & ~(flags | INIT_EXT)) >>> 0, (only2 & ~flags2) >>> 0]).toEqual([bit, 0, 0]);
    const [all, all2] = flagsOf(
      answer(init(7, 45, bit === 30 ? EVERYTHING : (EVERYTHING & ~flags) >>> 0, (EVERYTHING & ~flags2) >>> 0)),
    );
    if (bit !== 30) expect([bit, (all & flags) >>> 0, (all2 & flags2) >>> 0]).toEqual([bit, 0, 0]);
  }
  // Each of these has a meaning that the dispatcher does not serve.
  const [flags] = flagsOf(answer(init(7, 45, EVERYTHING, EVERYTHING)));
  expect(flags & (ATOMIC_O_TRUNC | (1 << 13) | (1 << 21))).toBe(0);
  expect(flags & PARALLEL_DIROPS).toBe(PARALLEL_DIROPS);
});

describe('a connection that does not open as one', () => {
  test.each([
    ['another opcode', request(3, Buffer.alloc(64))],
    ['an INIT too short for flags', request(26, body(7, 45, 131_072))],
    ['an INIT without anything', request(26)],
  ])('%s', (_, bytes) => {
    expect(() => answer(bytes)).toThrow(CowfsError);
  });
});
