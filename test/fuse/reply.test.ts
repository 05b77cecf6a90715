import { describe, expect, test } from 'vitest';
import { ReplyWriter } from '../../src/fuse/reply.ts';
import { ATTRIBUTES } from './fake-ops.ts';
import { hex } from './requests.ts';

function writer(bytes = 160): ReplyWriter {
  return new ReplyWriter(Buffer.alloc(bytes, 0xaa));
}

describe('the header', () => {
  test('of success', () => {
    const reply = writer();
    reply.u32(0, 0x01020304);
    expect(reply.finish(0x89abcdef, 0x01234567, 0, 4)).toBe(20);
    expect(Buffer.from(reply.bytes.subarray(0, 20))).toEqual(
      hex(
        '14 00 00 00', // len 20
        '00 00 00 00', // no error
        'ef cd ab 89 67 45 23 01', // unique
        '04 03 02 01', // payload
      ),
    );
    // Not a byte behind it.
    expect(reply.bytes[20]).toBe(0xaa);
  });

  test('of an error: negative, and without the payload', () => {
    const reply = writer();
    expect(reply.finish(0xffffffff, 0xffffffff, 28, 999)).toBe(16);
    expect(Buffer.from(reply.bytes.subarray(0, 16))).toEqual(
      hex(
        '10 00 00 00', // len 16
        'e4 ff ff ff', // -ENOSPC
        'ff ff ff ff ff ff ff ff', // unique
      ),
    );
  });
});

test.each([
  [0, '00 00 00 00 00 00 00 00'],
  [1, '01 00 00 00 00 00 00 00'],
  [0xffffffff, 'ff ff ff ff 00 00 00 00'],
  [2 ** 32, '00 00 00 00 01 00 00 00'],
  [Number.MAX_SAFE_INTEGER, 'ff ff ff ff ff ff 1f 00'],
  [-1, 'ff ff ff ff ff ff ff ff'],
  [-(2 ** 32), '00 00 00 00 ff ff ff ff'],
  [-(2 ** 32) - 1, 'ff ff ff ff fe ff ff ff'],
  [-(2 ** 63), '00 00 00 00 00 00 00 80'],
])('%i in 64 bits', (value, expected) => {
  const reply = writer();
  reply.u64(3, value);
  expect(Buffer.from(reply.bytes.subarray(19, 27))).toEqual(hex(expected));
  expect([reply.bytes[18], reply.bytes[27]]).toEqual([0xaa, 0xaa]);
});

test('fuse_attr, field by field', () => {
  const reply = writer();
  reply.attributes(8, ATTRIBUTES);
  expect(Buffer.from(reply.bytes.subarray(24, 24 + 88))).toEqual(
    hex(
      '02 00 00 00 00 00 00 00', // ino
      '05 00 00 00 00 01 00 00', // size 2^40 + 5
      '4d 00 00 00 00 00 00 00', // blocks 77
      '01 f1 53 65 00 00 00 00', // atime
      'fe ff ff ff ff ff ff ff', // mtime -2
      '03 00 00 00 02 00 00 00', // ctime 2^33 + 3
      '01 00 00 00', // atimensec
      'ff c9 9a 3b', // mtimensec 999999999
      '03 00 00 00', // ctimensec
      'a0 81 00 00', // mode: a file, 0640
      '01 00 00 00', // nlink
      'e8 03 00 00', // uid
      'e9 03 00 00', // gid
      '00 00 00 00', // rdev
      '00 10 00 00', // blksize
      '00 00 00 00', // flags
    ),
  );
  expect([reply.bytes[23], reply.bytes[24 + 88]]).toEqual([0xaa, 0xaa]);
});

test('a uid beyond 2^31 stays what it is', () => {
  const reply = writer();
  reply.attributes(0, { ...ATTRIBUTES, uid: 4_294_967_294, gid: 3_000_000_000 });
  const bytes = Buffer.from(reply.bytes);
  expect([bytes.readUInt32LE(16 + 68), bytes.readUInt32LE(16 + 72)]).toEqual([4_294_967_294, 3_000_000_000]);
});

test('clear zeros what it is told to and no more', () => {
  const reply = writer();
  reply.clear(5);
  expect([...reply.bytes.subarray(15, 23)]).toEqual([0xaa, 0, 0, 0, 0, 0, 0xaa, 0xaa]);
});

test('the capacity is what fits behind the header', () => {
  expect([writer(160).payloadAt, writer(160).capacity]).toEqual([16, 144]);
});
