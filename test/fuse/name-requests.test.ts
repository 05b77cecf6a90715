/**
 * Requests that make, move, remove and forget names: what they ask of the file system, byte by byte, and what becomes
 * of those that are cut short.
 */
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { OPCODE } from '../../src/fuse/abi.ts';
import { scratch } from '../harness.ts';
import { nonZeroBytes } from '../overlay/random.ts';
import { ATTRIBUTES, fakeOps } from './fake-ops.ts';
import { body, errnoOf, expectReply, hex, request, serve } from './requests.ts';
import { newServer, useFs } from './server-fixture.ts';

const { EEXIST, EIO, EISDIR, ENOENT, ENOSPC, ENOTEMPTY, EPERM, EROFS, EXDEV } = constants.errno;
const ROOT = { nodeid: 1 };

function newFs() {
  const fixture = useFs({ directory: scratch(), content: nonZeroBytes(5000, 1) });
  return { ...fixture, ...newServer(fixture.fs) };
}

describe('CREATE', () => {
  test('byte by byte: makes, opens and tells of both', () => {
    const ops = { ...fakeOps(), direct: true };
    const { server } = newServer(ops);
    const reply = serve(
      server,
      hex(
        '40 00 00 00', // len 64
        '23 00 00 00', // CREATE
        '0a 00 00 00 00 00 00 80', // unique
        '01 00 00 00 00 00 00 00', // nodeid
        'e8 03 00 00 e9 03 00 00', // uid 1000, gid 1001
        '92 10 00 00 00 00 00 00', // pid, padding
        '42 82 00 00', // flags: O_RDWR | O_CREAT | O_TRUNC | O_LARGEFILE
        'a4 89 00 00', // mode 0104644
        '12 00 00 00', // umask 022
        '00 00 00 00', // open_flags
        '61 2e 72 61 77 00 00 00', // "a.raw", and what lies behind it
      ),
    );
    expect(ops.create).toHaveBeenCalledExactlyOnceWith(1, 'a.raw', { mode: 0o4644, uid: 1000, gid: 1001 }, 0x8242);
    expect(ops.remember).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node);
    expect(ops.open).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node, 0x8242);
    expect(reply).toMatchObject({ len: 16 + 128 + 16, error: 0, unique: 2n ** 63n + 10n });
    expect(reply?.payload.readBigUInt64LE(0)).toBe(2n);
    expect(reply?.payload.readBigUInt64LE(40 + 8)).toBe(BigInt(ATTRIBUTES.sizeBytes));
    // fh, open_flags, padding
    expect(reply?.payload.subarray(128)).toEqual(body(0n, 1 | 2 | 64, 0));
  });

  test('what could not be made is not opened', () => {
    const ops = fakeOps();
    ops.create.mockReturnValue(EEXIST);
    expect(errnoOf(newServer(ops).server, request(OPCODE.CREATE, body(2, 0o644, 0, 0, 'x'), ROOT))).toBe(EEXIST);
    expect([ops.open.mock.calls, ops.remember.mock.calls]).toEqual([[], []]);
  });

  test('what could not be opened is not left behind', () => {
    const ops = fakeOps();
    ops.open.mockReturnValue(EROFS);
    expect(errnoOf(newServer(ops).server, request(OPCODE.CREATE, body(2, 0o644, 0, 0, 'x'), ROOT))).toBe(EROFS);
    expect(ops.remove).toHaveBeenCalledExactlyOnceWith(1, 'x');
    expect(ops.forget).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node, 1);
  });

  test('a disk that can be written, read and released', () => {
    const { fs, server } = newFs();
    const { payload } = expectReply(server, request(OPCODE.CREATE, body(0o102, 0o644, 0, 0, 'new.raw'), ROOT));
    const nodeid = payload.readBigUInt64LE(0);
    expect(payload.readBigUInt64LE(40 + 8)).toBe(5000n);
    const write = request(OPCODE.WRITE, body(0n, 4999n, 3, 0, 0n, 0, 0, Buffer.from('abc')), { nodeid });
    expect(errnoOf(server, write)).toBe(0);
    const read = request(OPCODE.READ, body(0n, 4998n, 100, 0, 0n, 0, 0), { nodeid });
    expect(expectReply(server, read).payload.subarray(1).toString()).toBe('abc');
    expect(errnoOf(server, request(OPCODE.UNLINK, body('new.raw'), ROOT))).toBe(0);
    expect(errnoOf(server, read)).toBe(0);
    expect(errnoOf(server, request(OPCODE.RELEASE, body(0n, 0o102, 0, 0n), { nodeid }))).toBe(0);
    expect(errnoOf(server, read)).toBe(0);
    expect(serve(server, request(OPCODE.FORGET, body(1n), { nodeid }))).toBe(undefined);
    expect(errnoOf(server, read)).toBe(EIO);
    expect(fs.inodes.count).toBe(2);
  });
});

describe('MKNOD', () => {
  const mknod = (mode: number) => request(OPCODE.MKNOD, body(mode, 0, 0o022, 0, 'x.raw'), { ...ROOT, uid: 5, gid: 6 });

  test.each([0o100640, 0o640])('a file, mode 0%o', (mode) => {
    const ops = fakeOps();
    const { payload } = expectReply(newServer(ops).server, mknod(mode));
    expect(ops.create).toHaveBeenCalledExactlyOnceWith(1, 'x.raw', { mode: 0o640, uid: 5, gid: 6 }, 0);
    expect(ops.remember).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node);
    expect([payload.length, ops.open.mock.calls.length]).toEqual([128, 0]);
  });

  test.each([0o010644, 0o020644, 0o040755, 0o060644, 0o120777, 0o140755, 0o170000])('none of mode 0%o', (mode) => {
    const ops = fakeOps();
    expect(errnoOf(newServer(ops).server, mknod(mode))).toBe(EPERM);
    expect(ops.create).not.toHaveBeenCalled();
  });
});

test('MKDIR makes and tells', () => {
  const ops = fakeOps();
  const bytes = request(OPCODE.MKDIR, body(0o41755, 0o022, 'größer'), { ...ROOT, uid: 5, gid: 6 });
  expect(expectReply(newServer(ops).server, bytes).payload.length).toBe(128);
  expect(ops.makeDirectory).toHaveBeenCalledExactlyOnceWith(1, 'größer', { mode: 0o1755, uid: 5, gid: 6 });
  expect(ops.remember).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node);
  ops.makeDirectory.mockReturnValue(EPERM);
  expect(errnoOf(newServer(ops).server, bytes)).toBe(EPERM);
  expect(ops.remember).toHaveBeenCalledOnce();
});

test('LOOKUP is counted once it has succeeded, since the kernel forgets as often', () => {
  const ops = fakeOps();
  const { server } = newServer(ops);
  expect(errnoOf(server, request(OPCODE.LOOKUP, body('disk.raw'), ROOT))).toBe(0);
  ops.lookup.mockReturnValue(ENOENT);
  expect(errnoOf(server, request(OPCODE.LOOKUP, body('none'), ROOT))).toBe(ENOENT);
  expect(ops.remember).toHaveBeenCalledExactlyOnceWith(ATTRIBUTES.node);
});

test('UNLINK and RMDIR', () => {
  const ops = fakeOps();
  const { server } = newServer(ops);
  expect(errnoOf(server, request(OPCODE.UNLINK, body('a'), ROOT))).toBe(0);
  expect(errnoOf(server, request(OPCODE.RMDIR, body('b'), { nodeid: 9 }))).toBe(0);
  expect(ops.remove).toHaveBeenCalledExactlyOnceWith(1, 'a');
  expect(ops.removeDirectory).toHaveBeenCalledExactlyOnceWith(9, 'b');
  ops.remove.mockReturnValue(EISDIR);
  ops.removeDirectory.mockReturnValue(ENOTEMPTY);
  expect(errnoOf(server, request(OPCODE.UNLINK, body('a'), ROOT))).toBe(EISDIR);
  expect(errnoOf(server, request(OPCODE.RMDIR, body('b'), ROOT))).toBe(ENOTEMPTY);
});

describe('RENAME', () => {
  test.each([
    ['RENAME', body(7n, 'from', 'to'), 0],
    // newdir, flags, padding
    ['RENAME2', body(7n, 2, 0xffffffff, 'from', 'to'), 2],
  ] as const)('%s, two names behind each other', (name, bytes, flags) => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    expect(expectReply(server, request(OPCODE[name], bytes, ROOT))).toMatchObject({ len: 16, error: 0 });
    expect(ops.rename).toHaveBeenCalledExactlyOnceWith(1, 'from', 7, 'to', flags);
    ops.rename.mockReturnValue(EXDEV);
    expect(errnoOf(server, request(OPCODE[name], bytes, ROOT))).toBe(EXDEV);
  });

  test.each<[string, Buffer]>([
    ['no second name', body(7n, 'from')],
    ['a second name without an end', Buffer.concat([body(7n, 'from'), Buffer.from('to')])],
    ['a first name without an end', Buffer.concat([body(7n), Buffer.from('from')])],
  ])('%s is EIO, and nothing moves', (_, bytes) => {
    const ops = fakeOps();
    expect(errnoOf(newServer(ops).server, request(OPCODE.RENAME, bytes, ROOT))).toBe(EIO);
    expect(ops.rename).not.toHaveBeenCalled();
  });

  test('empty names, and what lies behind the second, are passed on and left alone', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    serve(server, request(OPCODE.RENAME, body(2n ** 64n - 1n, '', '', 'more'), ROOT));
    expect(ops.rename).toHaveBeenCalledExactlyOnceWith(1, '', Number.POSITIVE_INFINITY, '', 0);
  });
});

test.each([
  ['CREATE', 16],
  ['MKNOD', 16],
  ['MKDIR', 8],
  ['UNLINK', 0],
  ['RMDIR', 0],
  ['LOOKUP', 0],
] as const)('%s with a name that does not end within the request is EIO, and nobody is asked', (name, inBytes) => {
  const ops = fakeOps();
  const { server, report } = newServer(ops);
  const bytes = request(OPCODE[name], Buffer.concat([Buffer.alloc(inBytes, 1), Buffer.from('name')]), ROOT);
  // Behind the request there is a NUL.
  server.requestBytes.fill(0);
  server.requestBytes.set(bytes);
  expect(server.serve(bytes.length)).toBe(16);
  expect(Buffer.from(server.replyBytes).readInt32LE(4)).toBe(-EIO);
  for (const asked of [ops.create, ops.makeDirectory, ops.remove, ops.removeDirectory, ops.lookup]) {
    expect(asked).not.toHaveBeenCalled();
  }
  expect(report).not.toHaveBeenCalled();
});

describe('what the kernel forgets', () => {
  test('one, as often as it says', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    expect(serve(server, request(OPCODE.FORGET, body(2n ** 40n), { nodeid: 5 }))).toBe(undefined);
    expect(ops.forget).toHaveBeenCalledExactlyOnceWith(5, 2 ** 40);
  });

  test('many at once', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    const bytes = request(OPCODE.BATCH_FORGET, body(3, 0, 5n, 1n, 2n ** 33n, 7n, 6n, 2n), { nodeid: 0 });
    expect(serve(server, bytes)).toBe(undefined);
    expect(ops.forget.mock.calls).toEqual([
      [5, 1],
      [2 ** 33, 7],
      [6, 2],
    ]);
  });

  test.each([
    ['more than came', 0xffffffff, 2],
    ['fewer than came', 1, 1],
    ['none', 0, 0],
  ])('a count of %s forgets what there is', (_, count, forgotten) => {
    const ops = fakeOps();
    // The last one is cut short.
    const bytes = body(count, 0, 5n, 1n, 6n, 1n, 7n, 1n).subarray(0, 8 + 2 * 16 + 15);
    expect(serve(newServer(ops).server, request(OPCODE.BATCH_FORGET, bytes))).toBe(undefined);
    expect(ops.forget).toHaveBeenCalledTimes(forgotten);
  });

  test.each(['FORGET', 'BATCH_FORGET'] as const)('%s gets no answer when it is cut short, either', (name) => {
    const ops = fakeOps();
    const { server, report } = newServer(ops);
    for (let length = 0; length < 8; length++) {
      expect([length, serve(server, request(OPCODE[name], Buffer.alloc(length, 1)))]).toEqual([length, undefined]);
    }
    expect(ops.forget).not.toHaveBeenCalled();
    expect(report).not.toHaveBeenCalled();
  });

  test('nor when the file system fails: that is told', () => {
    const ops = fakeOps();
    const bug = new TypeError('x is not a function');
    ops.forget.mockImplementation(() => {
      throw bug;
    });
    const { server, report } = newServer(ops);
    expect(serve(server, request(OPCODE.FORGET, body(1n)))).toBe(undefined);
    expect(report).toHaveBeenCalledExactlyOnceWith('FORGET failed', bug);
  });
});

test('an exception while a disk is made is EIO or its own errno, told once', () => {
  const ops = fakeOps();
  ops.create.mockImplementation(() => {
    throw Object.assign(new Error('no space'), { errno: -ENOSPC });
  });
  const { server, report } = newServer(ops);
  expect(errnoOf(server, request(OPCODE.CREATE, body(2, 0o644, 0, 0, 'x'), ROOT))).toBe(ENOSPC);
  ops.makeDirectory.mockImplementation(() => {
    throw new RangeError('no memory');
  });
  expect(errnoOf(server, request(OPCODE.MKDIR, body(0o755, 0, 'x'), ROOT))).toBe(EIO);
  expect(report).toHaveBeenCalledTimes(2);
});

test('a directory that came and went while it is listed', () => {
  const { server } = newFs();
  const create = (name: string) => errnoOf(server, request(OPCODE.CREATE, body(2, 0o644, 0, 0, name), ROOT));
  expect(['a.raw', 'b.raw', 'c.raw'].map(create)).toEqual([0, 0, 0]);
  const readdir = (offset: bigint) =>
    expectReply(server, request(OPCODE.READDIR, body(0n, offset, 40, 0, 0n, 0, 0), ROOT)).payload;
  const names: string[] = [];
  for (let page = readdir(0n); page.length > 0; page = readdir(page.readBigUInt64LE(8))) {
    const name = page.toString('utf8', 24, 24 + page.readUInt32LE(16));
    names.push(name);
    if (name === 'disk.raw') {
      expect(errnoOf(server, request(OPCODE.UNLINK, body('disk.raw'), ROOT))).toBe(0);
      expect(errnoOf(server, request(OPCODE.UNLINK, body('a.raw'), ROOT))).toBe(0);
      expect(create('d.raw')).toBe(0);
    }
  }
  expect(names).toEqual(['.', '..', 'disk.raw', 'b.raw', 'c.raw', 'd.raw']);
  expect(errnoOf(server, request(OPCODE.OPENDIR, body(0, 0), ROOT))).toBe(0);
});

test('names that are no UTF-8 are not made, and not found', () => {
  const { server } = newFs();
  const name = hex('61 ff 2e 72 61 77 00');
  expect(errnoOf(server, request(OPCODE.CREATE, body(2, 0o644, 0, 0, name), ROOT))).toBe(constants.errno.EILSEQ);
  expect(errnoOf(server, request(OPCODE.LOOKUP, name, ROOT))).toBe(ENOENT);
  expect(errnoOf(server, request(OPCODE.UNLINK, name, ROOT))).toBe(ENOENT);
  expect(errnoOf(server, request(OPCODE.RENAME, body(1n, 'disk.raw', name), ROOT))).toBe(constants.errno.EILSEQ);
});
