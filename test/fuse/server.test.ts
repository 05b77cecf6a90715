import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { totals } from '../../src/fs/counters.ts';
import { FUSE_WRITE_CACHE, OPCODE } from '../../src/fuse/abi.ts';
import { OPERATIONS } from '../../src/fuse/dispatch.ts';
import { scratch } from '../harness.ts';
import { readDisk } from '../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../overlay/random.ts';
import { ATTRIBUTES, fakeOps } from './fake-ops.ts';
import { body, errnoOf, expectReply, hex, request, serve } from './requests.ts';
import { MAX_TRANSFER, newServer, useFs } from './server-fixture.ts';

const { EINVAL, EIO, EFBIG, ENODEV, ENOENT, ENOSPC, ENOSYS, ENOTDIR, ENOTTY, ENXIO, EPERM, EROFS } = constants.errno;

describe('LOOKUP', () => {
  test('gives an entry, valid for a second', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    const { payload, error } = expectReply(server, request(OPCODE.LOOKUP, body('disk.raw'), { nodeid: 1 }));
    expect(error).toBe(0);
    expect(ops.lookup).toHaveBeenCalledExactlyOnceWith(1, 'disk.raw');
    expect(payload.length).toBe(128);
    expect(payload.subarray(0, 40)).toEqual(
      hex(
        '02 00 00 00 00 00 00 00', // nodeid
        '00 00 00 00 00 00 00 00', // generation
        '01 00 00 00 00 00 00 00', // entry_valid
        '01 00 00 00 00 00 00 00', // attr_valid
        '00 00 00 00 00 00 00 00', // nanoseconds of both
      ),
    );
    expect(payload.readBigUInt64LE(40 + 8)).toBe(BigInt(ATTRIBUTES.sizeBytes));
    expect(payload.readUInt32LE(40 + 60)).toBe(ATTRIBUTES.mode);
  });

  test('a name that does not end is EIO, and nobody is asked', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    expect(errnoOf(server, request(OPCODE.LOOKUP, Buffer.from('disk.raw'), { nodeid: 1 }))).toBe(EIO);
    expect(ops.lookup).not.toHaveBeenCalled();
  });

  test('what is not there is ENOENT', () => {
    const ops = fakeOps();
    ops.lookup.mockReturnValue(ENOENT);
    expect(errnoOf(newServer(ops).server, request(OPCODE.LOOKUP, body('x'), { nodeid: 1 }))).toBe(ENOENT);
  });
});

test('GETATTR gives attributes, valid for a second', () => {
  const ops = fakeOps();
  const { server } = newServer(ops);
  const { payload } = expectReply(server, request(OPCODE.GETATTR, body(0, 0, 0n)));
  expect(payload.length).toBe(104);
  expect(payload.subarray(0, 16)).toEqual(hex('01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00'));
  expect(payload.readBigUInt64LE(16)).toBe(2n);
});

describe('SETATTR', () => {
  /** All fields set to odd values; `valid` says which count. */
  function setattr(valid: number, size = 12_345n): Buffer {
    return request(
      OPCODE.SETATTR,
      body(
        valid,
        0, // padding
        7n, // fh
        size,
        9n, // lock_owner
        -3n, // atime
        4_294_967_297n, // mtime
        5n, // ctime
        11, // atimensec
        12, // mtimensec
        13, // ctimensec
        0o644, // mode
        0, // unused4
        501, // uid
        4_294_967_294, // gid
        0, // unused5
      ),
    );
  }

  test.each([
    ['nothing', 0, {}],
    ['mode', 1, { mode: 0o644 }],
    ['owner', 2 | 4, { uid: 501, gid: 4_294_967_294 }],
    ['size', 8, { sizeBytes: 12_345 }],
    ['times', 16 | 32, { atime: [-3, 11], mtime: [4_294_967_297, 12] }],
    ['times: now', 16 | 32 | 128 | 256, { atime: 'now', mtime: 'now' }],
    ['the handle, the lock owner and ctime: not ours', 64 | 512 | 1024, {}],
  ])('%s', (_, valid, change) => {
    const ops = fakeOps();
    const { payload } = expectReply(newServer(ops).server, setattr(valid));
    expect(ops.setAttributes).toHaveBeenCalledExactlyOnceWith(2, change);
    expect(payload.length).toBe(104);
  });

  test.each([2n ** 53n, 2n ** 63n, -1n])('a size of %i is no size that a file could have', (size) => {
    const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    expect(errnoOf(newServer(fs).server, setattr(8, size))).toBe(EFBIG);
  });
});

describe('OPEN', () => {
  test.each([
    { direct: false, expected: 2 },
    { direct: true, expected: 1 | 2 | 64 },
  ])('direct $direct gives open_flags $expected', ({ direct, expected }) => {
    const ops = { ...fakeOps(), direct };
    const { payload } = expectReply(newServer(ops).server, request(OPCODE.OPEN, body(0o100002, 0)));
    expect(ops.open).toHaveBeenCalledExactlyOnceWith(2, 0o100002);
    expect(payload).toEqual(body(0n, expected, 0));
  });

  test('what the kernel caches is dropped where it is stale', () => {
    const stale = { ...fakeOps(), keepCache: false };
    expect(expectReply(newServer(stale).server, request(OPCODE.OPEN, body(2, 0))).payload).toEqual(body(0n, 0, 0));
    const direct = { ...stale, direct: true };
    expect(expectReply(newServer(direct).server, request(OPCODE.OPEN, body(2, 0))).payload).toEqual(body(0n, 65, 0));
  });

  test('a refusal is passed on', () => {
    const ops = fakeOps();
    ops.open.mockReturnValue(EROFS);
    expect(errnoOf(newServer(ops).server, request(OPCODE.OPEN, body(2, 0)))).toBe(EROFS);
  });

  test('RELEASE tells with which flags it was open', () => {
    const ops = fakeOps();
    expect(errnoOf(newServer(ops).server, request(OPCODE.RELEASE, body(0n, 0o100001, 0, 0n)))).toBe(0);
    expect(ops.release).toHaveBeenCalledExactlyOnceWith(2, 0o100001);
  });
});

describe('READ', () => {
  const read = (offset: bigint, size: number): Buffer =>
    request(OPCODE.READ, body(0n, offset, size, 0, 0n, 0, 0), { unique: 2n ** 63n + 5n });

  test('puts the bytes behind the header', () => {
    const content = nonZeroBytes(9999, 1);
    const { fs } = useFs({ directory: scratch(), content });
    const { server } = newServer(fs);
    expect(expectReply(server, read(4095n, 4098)).payload.equals(content.subarray(4095, 8193))).toBe(true);
    expect(expectReply(server, read(9990n, 100)).payload.equals(content.subarray(9990))).toBe(true);
    expect(expectReply(server, read(9999n, 100)).payload.length).toBe(0);
    expect(expectReply(server, read(0n, 0)).payload.length).toBe(0);
  });

  test('as much as fits, and not a byte more', () => {
    const content = nonZeroBytes(MAX_TRANSFER + 5, 1);
    const { fs } = useFs({ directory: scratch(), content });
    const { server } = newServer(fs);
    expect(expectReply(server, read(5n, MAX_TRANSFER)).payload.equals(content.subarray(5))).toBe(true);
    expect(errnoOf(server, read(0n, MAX_TRANSFER + 1))).toBe(EINVAL);
    expect(errnoOf(server, read(0n, 0xffffffff))).toBe(EINVAL);
  });

  test.each([2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, -1n, -4096n])('from %i on there is nothing', (offset) => {
    const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    expect(expectReply(newServer(fs).server, read(offset, 100))).toMatchObject({ error: 0, len: 16 });
  });
});

describe('WRITE', () => {
  const write = (offset: bigint, data: Uint8Array, size = data.length, flags = 0, nodeid = 2): Buffer =>
    request(OPCODE.WRITE, body(0n, offset, size, flags, 0n, 0, 0, data), { nodeid });

  test('byte by byte', () => {
    const { fs, disk } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const { server } = newServer(fs);
    const reply = serve(
      server,
      hex(
        '53 00 00 00', // len 83
        '10 00 00 00', // WRITE
        '0a 00 00 00 00 00 00 80', // unique
        '02 00 00 00 00 00 00 00', // nodeid
        '00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00', // uid, gid, pid, padding
        '00 00 00 00 00 00 00 00', // fh
        '62 00 00 00 00 00 00 00', // offset 98
        '03 00 00 00', // size
        '00 00 00 00', // write_flags
        '00 00 00 00 00 00 00 00', // lock_owner
        '02 80 00 00 00 00 00 00', // flags, padding
        '07 08 09', // data
      ),
    );
    expect(reply).toMatchObject({ len: 24, error: 0, unique: 2n ** 63n + 10n });
    expect(reply?.payload).toEqual(hex('03 00 00 00 00 00 00 00'));
    expect([...readDisk(disk, 97)]).toEqual([nonZeroBytes(100, 1)[97], 7, 8, 9]);
  });

  test('a size larger than what came is EIO, and nothing is written', () => {
    const { fs, disk } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const { server } = newServer(fs);
    for (const size of [4, 100, 0x7fffffff, 0xffffffff]) {
      expect(errnoOf(server, write(0n, Buffer.from('abc'), size))).toBe(EIO);
    }
    expect(readDisk(disk).equals(nonZeroBytes(100, 1))).toBe(true);
  });

  test('a size smaller than what came is what counts', () => {
    const { fs, disk } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const { payload } = expectReply(newServer(fs).server, write(0n, Buffer.from('abc'), 2));
    expect(payload.readUInt32LE(0)).toBe(2);
    expect(readDisk(disk, 0, 3)).toEqual(Buffer.from([0x61, 0x62, nonZeroBytes(100, 1)[2] as number]));
  });

  test('of the largest size', () => {
    const { fs, disk } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const data = nonZeroBytes(MAX_TRANSFER, 2);
    expect(expectReply(newServer(fs).server, write(50n, data)).payload.readUInt32LE(0)).toBe(MAX_TRANSFER);
    expect(readDisk(disk, 50).equals(data)).toBe(true);
  });

  test.each([2n ** 52n, 2n ** 53n, 2n ** 63n - 1n, -1n, -4096n])('at %i is EFBIG', (offset) => {
    const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    expect(errnoOf(newServer(fs).server, write(offset, Buffer.from('abc')))).toBe(EFBIG);
  });

  test('to a node that is not there fails, also after one that was', () => {
    const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const { server, held } = newServer(fs);
    for (const nodeid of [0, 1, 3, 99]) {
      expect(errnoOf(server, write(0n, nonZeroBytes(50, 3)))).toBe(0);
      expect([nodeid, errnoOf(server, write(0n, Buffer.from('abc'), 3, 0, nodeid))]).not.toEqual([nodeid, 0]);
      expect(errnoOf(server, write(0n, nonZeroBytes(50, 3)))).toBe(0);
      const cached = errnoOf(server, write(0n, Buffer.from('abc'), 3, FUSE_WRITE_CACHE, nodeid));
      expect([nodeid, cached]).not.toEqual([nodeid, 0]);
    }
    expect(held).toEqual([]);
  });

  describe('without room', () => {
    const content = nonZeroBytes(10 * 4096, 1);
    const full = () => useFs({ directory: scratch(), content, maxStoreBytes: 4096 });

    test('ENOSPC when nothing fits', () => {
      const { fs } = full();
      const { server, held, counters } = newServer(fs);
      expect(errnoOf(server, write(0n, Buffer.from('abc')))).toBe(0);
      expect(errnoOf(server, write(8192n, Buffer.from('abc')))).toBe(ENOSPC);
      expect(held).toEqual([]);
      expect(totals(counters).ioErrors).toBe(1);
    });

    test('a short count when some fits', () => {
      const { fs, disk } = full();
      const { server, counters } = newServer(fs);
      const data = nonZeroBytes(5000, 2);
      expect(expectReply(server, write(100n, data)).payload).toEqual(body(3996, 0));
      expect(readDisk(disk, 100, 3996).equals(data.subarray(0, 3996))).toBe(true);
      expect(readDisk(disk, 4096, 4096).equals(content.subarray(4096, 8192))).toBe(true);
      expect(totals(counters)).toMatchObject({ writes: 1, writeBytes: 3996 });
    });

    test('a write-back is held, whole and in a copy of its own, without a reply', () => {
      const { fs } = full();
      const { server, held } = newServer(fs);
      const data = nonZeroBytes(5000, 2);
      const bytes = request(OPCODE.WRITE, body(0n, 100n, 5000, FUSE_WRITE_CACHE, 0n, 0, 0, data), {
        unique: 0xfedcba98_76543210n,
      });
      expect(serve(server, bytes)).toBe(undefined);
      expect(held).toHaveLength(1);
      expect(held[0]).toMatchObject({ uniqueLow: 0x76543210, uniqueHigh: 0xfedcba98, node: 2, offset: 100 });
      // The buffer goes to the next request.
      server.requestBytes.fill(0);
      expect(Buffer.from(held[0]?.data ?? []).equals(data)).toBe(true);
      expect(held[0]?.data.buffer.byteLength).toBe(5000);
    });

    test('a write-back that fails for another reason is not', () => {
      const { fs } = useFs({ directory: scratch(), content });
      const { server, held } = newServer(fs);
      expect(errnoOf(server, write(2n ** 60n, Buffer.from('abc'), 3, FUSE_WRITE_CACHE))).toBe(EFBIG);
      expect(held).toEqual([]);
    });

    test('one that came whole although something complained is answered', () => {
      const ops = { ...fakeOps(), transferred: 3 };
      ops.write.mockReturnValue(ENOSPC);
      const { server, held } = newServer(ops);
      expect(expectReply(server, write(0n, Buffer.from('abc'), 3, FUSE_WRITE_CACHE)).payload).toEqual(body(3, 0));
      expect(held).toEqual([]);
    });
  });
});

describe('FALLOCATE and LSEEK', () => {
  test('hand their fields on', () => {
    const ops = { ...fakeOps(), found: 2 ** 41 + 1 };
    const { server } = newServer(ops);
    expect(errnoOf(server, request(OPCODE.FALLOCATE, body(0n, 2n ** 40n, 5n, 3, 0)))).toBe(0);
    expect(ops.allocate).toHaveBeenCalledExactlyOnceWith(2, 3, 2 ** 40, 5);
    const { payload } = expectReply(server, request(OPCODE.LSEEK, body(0n, 77n, 4, 0)));
    expect(ops.seek).toHaveBeenCalledExactlyOnceWith(2, 77, 4);
    expect(payload).toEqual(body(2n ** 41n + 1n));
  });

  test('a question whose answer the kernel alone knows is handed over, without a reply', () => {
    const ops = fakeOps();
    ops.seekNeedsKernelSize.mockReturnValue(true);
    const { server, deferred } = newServer(ops);
    const bytes = request(OPCODE.LSEEK, body(0n, 77n, 4, 0), { unique: 0xfedcba98_76543210n });
    expect(serve(server, bytes)).toBe(undefined);
    expect(ops.seekNeedsKernelSize).toHaveBeenCalledExactlyOnceWith(2, 77, 4);
    expect(ops.seek).not.toHaveBeenCalled();
    const unique = { uniqueLow: 0x76543210, uniqueHigh: 0xfedcba98 };
    expect(deferred).toEqual([{ kind: 'seek', ...unique, node: 2, offset: 77, whence: 4 }]);
  });

  test('a short read is handed over where the kernel may know a later end, and only there', () => {
    const ops = fakeOps();
    ops.read.mockReturnValue(0);
    const { server, deferred } = newServer(ops);
    // fh, offset, size, read_flags, lock_owner, flags, padding
    const bytes = request(OPCODE.READ, body(0n, 4096n, 8192, 0, 0n, 0o40002, 0));
    expect(serve(server, bytes)).not.toBe(undefined);
    expect(ops.readNeedsKernelSize).toHaveBeenCalledExactlyOnceWith(2, 12288, 0o40002);
    expect(deferred).toEqual([]);
    ops.readNeedsKernelSize.mockReturnValue(true);
    expect(serve(server, bytes)).toBe(undefined);
    expect(deferred).toMatchObject([{ kind: 'read', node: 2, offset: 4096, length: 8192 }]);
  });

  test.each([2n ** 53n, -1n])('from %i on there is neither data nor hole', (offset) => {
    const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(100, 1) });
    const { server } = newServer(fs);
    expect(errnoOf(server, request(OPCODE.LSEEK, body(0n, offset, 3, 0)))).toBe(ENXIO);
    expect(errnoOf(server, request(OPCODE.FALLOCATE, body(0n, offset, 1n, 0, 0)))).toBe(EFBIG);
  });
});

test('STATFS', () => {
  const { payload } = expectReply(newServer(fakeOps()).server, request(OPCODE.STATFS, body(), { nodeid: 1 }));
  expect(payload).toEqual(
    hex(
      '01 00 00 00 02 00 00 00', // blocks
      '02 00 00 00 01 00 00 00', // bfree
      '02 00 00 00 01 00 00 00', // bavail
      '03 00 00 00 00 00 00 00', // files
      '00 00 00 00 00 00 00 00', // ffree
      '00 10 00 00', // bsize
      'ff 00 00 00', // namelen
      '00 10 00 00', // frsize
      ...new Array<string>(7).fill('00 00 00 00'), // padding, spare
    ),
  );
});

describe('READDIR', () => {
  const readdir = (offset: bigint, size: number, nodeid = 1): Buffer =>
    request(OPCODE.READDIR, body(0n, offset, size, 0, 0n, 0, 0), { nodeid });

  interface Entry {
    ino: bigint;
    next: bigint;
    type: number;
    name: string;
  }

  function entriesOf(payload: Buffer): Entry[] {
    const entries: Entry[] = [];
    for (let at = 0; at < payload.length; ) {
      const length = payload.readUInt32LE(at + 16);
      const end = at + 24 + length;
      entries.push({
        ino: payload.readBigUInt64LE(at),
        next: payload.readBigUInt64LE(at + 8),
        type: payload.readUInt32LE(at + 20),
        name: payload.toString('utf8', at + 24, end),
      });
      const next = Math.ceil(end / 8) * 8;
      // What fills the entry up is zeros, not what the buffer held before.
      expect(payload.subarray(end, next).every((byte) => byte === 0)).toBe(true);
      at = next;
    }
    return entries;
  }

  test('all at once', () => {
    const { server } = newServer(fakeOps());
    expect(entriesOf(expectReply(server, readdir(0n, 4096)).payload)).toEqual([
      { ino: 1n, next: 1n, type: 4, name: '.' },
      { ino: 1n, next: 2n, type: 4, name: '..' },
      { ino: 2n, next: 3n, type: 8, name: 'disk.raw' },
      { ino: 3n, next: 2n ** 40n + 1n, type: 8, name: 'größer' },
    ]);
  });

  test.each([1, 31, 32, 33, 63, 64, 96])('piece by piece in %i bytes', (size) => {
    const { server } = newServer(fakeOps());
    const names: string[] = [];
    for (let offset = 0n; ; ) {
      const { payload } = expectReply(server, readdir(offset, size));
      expect(payload.length).toBeLessThanOrEqual(size);
      const entries = entriesOf(payload);
      if (entries.length === 0) break;
      names.push(...entries.map(({ name }) => name));
      offset = entries.at(-1)?.next ?? 0n;
    }
    // An entry of 32 bytes does not fit into less: nothing, rather than a part of one.
    expect(names).toEqual(size < 32 ? [] : ['.', '..', 'disk.raw', 'größer']);
  });

  test.each([2n ** 40n + 1n, 2n ** 40n + 2n, 2n ** 53n, -1n])('from %i on there is nothing', (offset) => {
    expect(expectReply(newServer(fakeOps()).server, readdir(offset, 4096))).toMatchObject({ error: 0, len: 16 });
  });

  test('never more than the buffer holds, whatever was asked for', () => {
    const { server } = newServer(fakeOps(), 4096);
    expect(entriesOf(expectReply(server, readdir(0n, 0xffffffff)).payload)).toHaveLength(4);
  });

  test('of a file is ENOTDIR', () => {
    const { server } = newServer(fakeOps());
    expect(errnoOf(server, readdir(0n, 4096, 2))).toBe(ENOTDIR);
    expect(errnoOf(server, request(OPCODE.OPENDIR, body(0, 0), { nodeid: 2 }))).toBe(ENOTDIR);
    expect(expectReply(server, request(OPCODE.OPENDIR, body(0, 0), { nodeid: 1 })).payload).toEqual(body(0n, 0n));
    expect(errnoOf(server, request(OPCODE.RELEASEDIR, body(0n, 0, 0, 0n), { nodeid: 1 }))).toBe(0);
  });
});

describe('the rest of the table', () => {
  test.each(['SYMLINK', 'LINK', 'TMPFILE'] as const)('%s is EPERM: a disk has one name', (name) => {
    expect(errnoOf(newServer(fakeOps()).server, request(OPCODE[name], body(0n, 'x', 'y'), { nodeid: 1 }))).toBe(EPERM);
  });

  test.each([
    ['FLUSH', ENOSYS],
    ['GETXATTR', ENOSYS],
    ['SETXATTR', ENOSYS],
    ['LISTXATTR', ENOSYS],
    ['REMOVEXATTR', ENOSYS],
    ['ACCESS', ENOSYS],
    ['POLL', ENOSYS],
    ['BMAP', ENOSYS],
    ['FSYNCDIR', ENOSYS],
    ['STATX', ENOSYS],
    ['READDIRPLUS', ENOSYS],
    ['COPY_FILE_RANGE', ENOSYS],
    ['SYNCFS', ENOSYS],
    ['READLINK', ENOSYS],
    ['IOCTL', ENOTTY],
    ['DESTROY', 0],
    // A second one: the connection is open.
    ['INIT', EIO],
  ] as const)('%s', (name, errno) => {
    expect(errnoOf(newServer(fakeOps()).server, request(OPCODE[name], Buffer.alloc(80)))).toBe(errno);
  });

  test('FSYNC is whatever the file system says', () => {
    const ops = fakeOps();
    const { server } = newServer(ops);
    expect(errnoOf(server, request(OPCODE.FSYNC, body(0n, 0, 0)))).toBe(0);
    ops.sync.mockReturnValue(ENOSYS);
    expect(errnoOf(server, request(OPCODE.FSYNC, body(0n, 0, 0)))).toBe(ENOSYS);
  });

  test('an opcode that nobody knows is ENOSYS', () => {
    const { server } = newServer(fakeOps());
    const known = new Set<number>(Object.values(OPCODE));
    for (const opcode of [0, 7, 19, 31, 33, 48, 49, 53, 64, 255, 4096, 0x7fffffff, 0xffffffff]) {
      expect(known.has(opcode)).toBe(false);
      expect([opcode, errnoOf(server, request(opcode, Buffer.alloc(80)))]).toEqual([opcode, ENOSYS]);
    }
  });

  test.each(['FORGET', 'BATCH_FORGET', 'INTERRUPT', 'NOTIFY_REPLY'] as const)('%s wants no reply', (name) => {
    const { server, report } = newServer(fakeOps());
    for (const length of [0, 1, 8, 16, 100]) {
      expect(serve(server, request(OPCODE[name], Buffer.alloc(length, 3)))).toBe(undefined);
    }
    expect(report).not.toHaveBeenCalled();
  });
});

describe('malformed requests', () => {
  test('an argument shorter than its structure is EIO, whichever byte is missing, and nobody is asked', () => {
    OPERATIONS.forEach((operation, opcode) => {
      if (operation === undefined) return;
      const ops = fakeOps();
      const { server, report } = newServer(ops);
      if (operation.name.includes('FORGET')) return;
      for (let length = 0; length < operation.inBytes; length++) {
        const errno = errnoOf(server, request(opcode, Buffer.alloc(length, 1)));
        expect([operation.name, length, errno]).toEqual([operation.name, length, EIO]);
      }
      for (const asked of [ops.lookup, ops.getAttributes, ops.setAttributes, ops.open, ops.release, ops.read]) {
        expect(asked).not.toHaveBeenCalled();
      }
      for (const asked of [ops.write, ops.allocate, ops.seek, ops.list]) expect(asked).not.toHaveBeenCalled();
      for (const asked of [ops.create, ops.makeDirectory, ops.rename]) expect(asked).not.toHaveBeenCalled();
      for (const asked of [ops.remove, ops.removeDirectory]) expect(asked).not.toHaveBeenCalled();
      expect(report).not.toHaveBeenCalled();
    });
  });

  test('sizes of arguments are those of the structures', () => {
    // What wants no reply gets none either when it is cut short: it looks for itself.
    const sizes = OPERATIONS.flatMap((operation) =>
      operation === undefined || operation.inBytes === 0 || operation.name.includes('FORGET')
        ? []
        : [[operation.name, operation.inBytes]],
    );
    expect(Object.fromEntries(sizes)).toEqual({
      LOOKUP: 1,
      GETATTR: 16,
      SETATTR: 88,
      OPEN: 8,
      OPENDIR: 8,
      READ: 40,
      READDIR: 40,
      WRITE: 40,
      RELEASE: 24,
      FALLOCATE: 32,
      LSEEK: 24,
      // With the NUL of each name.
      CREATE: 17,
      MKNOD: 17,
      MKDIR: 9,
      UNLINK: 1,
      RMDIR: 1,
      RENAME: 10,
      RENAME2: 18,
    });
  });

  test.each([
    ['nothing', 0, undefined],
    ['less than a header', 39, undefined],
    ['more than it says', 56, 55],
    ['less than it says', 56, 57],
    ['a length of all ones', 56, 0xffffffff],
  ])('%s is dropped, and told of', (_, length, len) => {
    const { server, report } = newServer(fakeOps());
    const bytes = request(OPCODE.GETATTR, Buffer.alloc(16), len === undefined ? {} : { len });
    expect(serve(server, bytes.subarray(0, length))).toBe(undefined);
    expect(report).toHaveBeenCalledExactlyOnceWith(expect.stringContaining(`${length} bytes`), undefined);
    // And the next one is served.
    expect(errnoOf(server, request(OPCODE.GETATTR, Buffer.alloc(16)))).toBe(0);
  });

  test('a length beyond the buffer is dropped', () => {
    const { server, report } = newServer(fakeOps());
    server.requestBytes.set(request(OPCODE.GETATTR, Buffer.alloc(16), { len: server.requestBytes.length + 1 }));
    expect(server.serve(server.requestBytes.length + 1)).toBe(0);
    expect(report).toHaveBeenCalledOnce();
  });
});

describe('what nobody expected', () => {
  test('an exception is EIO and one report that names the operation', () => {
    const ops = fakeOps();
    const bug = new TypeError('undefined is not a function');
    ops.getAttributes.mockImplementation(() => {
      throw bug;
    });
    const { server, report } = newServer(ops);
    expect(errnoOf(server, request(OPCODE.GETATTR, Buffer.alloc(16)))).toBe(EIO);
    expect(report).toHaveBeenCalledExactlyOnceWith('GETATTR failed', bug);
    // The worker lives.
    expect(errnoOf(server, request(OPCODE.STATFS))).toBe(0);
  });

  test("an exception of the file system's own keeps its errno", () => {
    const ops = fakeOps();
    ops.statistics.mockImplementation(() => {
      throw Object.assign(new Error('ENODEV: no such device'), { errno: -ENODEV, code: 'ENODEV' });
    });
    const { server, report } = newServer(ops);
    expect(errnoOf(server, request(OPCODE.STATFS))).toBe(ENODEV);
    expect(report).toHaveBeenCalledOnce();
  });

  test('a number that is no errno of Linux never reaches the kernel, which would refuse the reply', () => {
    const ops = fakeOps();
    ops.statistics.mockImplementation(() => {
      // UV_UNKNOWN
      throw Object.assign(new Error('unknown error'), { errno: -4094 });
    });
    expect(errnoOf(newServer(ops).server, request(OPCODE.STATFS))).toBe(EIO);
  });
});

test('counters tell reads, writes and the rest apart', () => {
  const { fs } = useFs({ directory: scratch(), content: nonZeroBytes(1000, 1) });
  const { server, counters } = newServer(fs);
  serve(server, request(OPCODE.READ, body(0n, 900n, 4096, 0, 0n, 0, 0)));
  serve(server, request(OPCODE.READ, body(0n, 0n, 10, 0, 0n, 0, 0)));
  serve(server, request(OPCODE.WRITE, body(0n, 0n, 3, 0, 0n, 0, 0, Buffer.from('abc'))));
  serve(server, request(OPCODE.READ, body(0n, 0n, 10, 0, 0n, 0, 0), { nodeid: 99 }));
  serve(server, request(OPCODE.GETATTR, Buffer.alloc(16), { nodeid: 99 }));
  serve(server, request(OPCODE.FORGET, body(1n)));
  expect(totals(counters)).toMatchObject({
    reads: 3,
    readBytes: 110,
    writes: 1,
    writeBytes: 3,
    otherRequests: 2,
    ioErrors: 1,
  });
});
