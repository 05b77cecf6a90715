import { describe, expect, test } from 'vitest';
import { RequestReader } from '../../src/fuse/decode.ts';
import { body, hex, request } from './requests.ts';

/** A reader over a buffer with something else behind the request. */
function reader(bytes: Uint8Array, behind: Uint8Array = Buffer.alloc(64, 0xee)): RequestReader {
  return new RequestReader(Buffer.concat([bytes, behind]));
}

test('a LOOKUP as the kernel sends it', () => {
  const bytes = hex(
    '31 00 00 00', // len 49
    '01 00 00 00', // opcode LOOKUP
    'fe ff ff ff ff ff ff ff', // unique
    '01 00 00 00 00 00 00 00', // nodeid: the root
    'e8 03 00 00', // uid 1000
    'e9 03 00 00', // gid 1001
    '92 10 00 00', // pid
    '00 00 00 00', // total_extlen, padding
    '64 69 73 6b 2e 72 61 77 00', // "disk.raw"
  );
  const reading = reader(bytes);
  expect(reading.start(49)).toBe(true);
  expect(reading.opcode).toBe(1);
  expect([reading.uniqueLow, reading.uniqueHigh]).toEqual([0xfffffffe, 0xffffffff]);
  expect(reading.nodeid).toBe(1);
  expect(reading.argumentBytes).toBe(9);
  expect(reading.name()).toBe('disk.raw');
});

describe('what is not one whole request', () => {
  const whole = request(3, Buffer.alloc(16));

  test.each([
    ['nothing', 0, 56],
    ['shorter than a header', 39, 39],
    ['cut off after the header', 40, 56],
    ['one byte short', 55, 56],
    ['one byte more than it says', 57, 56],
    ['a length field of 0', 56, 0],
    ['a length field of 2^32 - 1', 56, 0xffffffff],
    ['a length field less than a header', 56, 16],
  ])('%s', (_, length, len) => {
    const bytes = Buffer.from(whole);
    bytes.writeUInt32LE(len, 0);
    const reading = reader(bytes);
    expect(reading.start(length)).toBe(false);
    expect(reading.length).toBe(0);
  });

  test('more than the buffer holds', () => {
    const bytes = request(3, Buffer.alloc(16), { len: 1000 });
    const reading = new RequestReader(bytes);
    expect(reading.start(1000)).toBe(false);
  });

  test('a good one after a bad one is taken up again', () => {
    const reading = reader(whole);
    expect(reading.start(55)).toBe(false);
    expect(reading.start(56)).toBe(true);
    expect(reading.length).toBe(56);
  });
});

describe('numbers of 64 bits', () => {
  const values: [bigint, number][] = [
    [0n, 0],
    [1n, 1],
    [0xffffffffn, 0xffffffff],
    [0x1_0000_0000n, 0x1_0000_0000],
    [2n ** 53n - 1n, Number.MAX_SAFE_INTEGER],
    // A double could not tell them apart from their neighbours.
    [2n ** 53n, Number.POSITIVE_INFINITY],
    [2n ** 53n + 1n, Number.POSITIVE_INFINITY],
    [2n ** 63n - 1n, Number.POSITIVE_INFINITY],
    [2n ** 63n, Number.POSITIVE_INFINITY],
    [-1n, Number.POSITIVE_INFINITY],
    [-4096n, Number.POSITIVE_INFINITY],
  ];

  test.each(values)('%i unsigned', (value, expected) => {
    const reading = reader(request(3, body(7, value, 9)));
    expect(reading.start(56)).toBe(true);
    expect([reading.u32(0), reading.u64(4), reading.u32(12)]).toEqual([7, expected, 9]);
  });

  test.each([0n, 1n, -1n, -(2n ** 32n), -(2n ** 32n) - 1n, 2n ** 32n, 2n ** 53n - 1n, 1n - 2n ** 53n])(
    '%i signed',
    (value) => {
      const reading = reader(request(3, body(value)));
      reading.start(48);
      expect(reading.i64(0)).toBe(Number(value));
    },
  );

  test('a node id beyond 2^53 is none of ours', () => {
    const reading = reader(request(3, body(), { nodeid: 2n ** 64n - 1n }));
    reading.start(40);
    expect(reading.nodeid).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('names', () => {
  test.each<[string, Uint8Array, string | undefined]>([
    ['ends at its NUL', Buffer.from('ab\0cd'), 'ab'],
    ['may be empty', Buffer.from('\0'), ''],
    ['is UTF-8', Buffer.from('größe\0'), 'größe'],
    ['does not end', Buffer.from('disk.raw'), undefined],
    ['is nothing at all', Buffer.alloc(0), undefined],
  ])('%s', (_, bytes, expected) => {
    // The first byte behind the request is a NUL, which does not count.
    const reading = reader(request(1, bytes), hex('00'));
    expect(reading.start(40 + bytes.length)).toBe(true);
    expect(reading.name()).toBe(expected);
  });

  test('in the middle of a larger buffer', () => {
    const bytes = request(1, Buffer.from('a\0'));
    const reading = new RequestReader(Buffer.concat([Buffer.alloc(9, 1), bytes]).subarray(9));
    expect(reading.start(42)).toBe(true);
    expect(reading.name()).toBe('a');
  });
});
