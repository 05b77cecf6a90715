import { expect, test } from 'vitest';
import { OPCODE } from '../../src/fuse/abi.ts';
import { fakeOps } from './fake-ops.ts';
import { body, request, serve } from './requests.ts';
import { newServer } from './server-fixture.ts';

/** Lines of one request; milliseconds become `T`. */
function traceOf(bytes: Buffer, ops = fakeOps()): string[] {
  const { server, lines } = newServer(ops);
  serve(server, bytes);
  return lines.map((line) => line.replace(/\d+\.\d ms$/, 'T'));
}

/** The kernel numbers requests in steps of two; a person counts by one. */
const unique = 24n;

test('a READ as a person would read it', () => {
  const ops = { ...fakeOps(), transferred: 131_072 };
  ops.nameOf.mockReturnValue('disk.raw');
  const bytes = request(OPCODE.READ, body(0n, 4096n, 131_072, 0, 0n, 0, 0), { unique });
  expect(traceOf(bytes, ops)).toEqual(['rx 12 READ disk.raw off=4096 len=131072', 'tx 12 OK 131072 B T']);
});

test.each<[string, Buffer, string, string]>([
  ['LOOKUP', request(1, body('a "b"\n'), { unique, nodeid: 1 }), 'rx 12 LOOKUP / name="a \\"b\\"\\n"', 'OK 128 B'],
  ['GETATTR', request(3, Buffer.alloc(16), { unique }), 'rx 12 GETATTR node 2', 'OK 104 B'],
  [
    'SETATTR',
    request(4, body(8, 0, 0n, 5000n, Buffer.alloc(64)), { unique }),
    'rx 12 SETATTR node 2 valid=0x8 size=5000',
    'OK 104 B',
  ],
  ['OPEN', request(14, body(0o40002, 0), { unique }), 'rx 12 OPEN node 2 flags=040002', 'OK 16 B'],
  [
    'WRITE',
    request(16, body(0n, 7n, 3, 0, 0n, 0, 0, Buffer.from('abc')), { unique }),
    'rx 12 WRITE node 2 off=7 len=3',
    'OK 8 B',
  ],
  [
    'FALLOCATE',
    request(43, body(0n, 4096n, 8192n, 3, 0), { unique }),
    'rx 12 FALLOCATE node 2 mode=0x3 off=4096 len=8192',
    'OK 0 B',
  ],
  ['LSEEK', request(46, body(0n, 9n, 3, 0), { unique }), 'rx 12 LSEEK node 2 off=9 whence=3', 'OK 8 B'],
  [
    'READDIR',
    request(28, body(0n, 1n, 4096, 0, 0n, 0, 0), { unique, nodeid: 1 }),
    'rx 12 READDIR / off=1 len=4096',
    'OK 96 B',
  ],
  ['an error', request(6, body('x', 'y'), { unique, nodeid: 1 }), 'rx 12 SYMLINK /', 'EPERM'],
  ['an opcode without a name', request(63, body(1n), { unique }), 'rx 12 opcode 63 node 2 (48 bytes)', 'ENOSYS'],
  ['one cut short', request(15, body(1n), { unique }), 'rx 12 READ node 2 (48 bytes)', 'EIO'],
])('%s', (_, bytes, received, answered) => {
  expect(traceOf(bytes)).toEqual([received, `tx 12 ${answered} T`]);
});

test('what gets no reply has one line', () => {
  expect(traceOf(request(2, body(1n), { unique }))).toEqual(['rx 12 FORGET node 2']);
});

test('an exception shows as the errno that it becomes', () => {
  const ops = fakeOps();
  ops.getAttributes.mockImplementation(() => {
    throw new Error('bug');
  });
  expect(traceOf(request(3, Buffer.alloc(16), { unique }), ops).at(-1)).toBe('tx 12 EIO T');
});

test('numbers beyond 2^32', () => {
  expect(traceOf(request(2, body(1n), { unique: 2n ** 40n + 2n }))).toEqual(['rx 549755813889 FORGET node 2']);
});
