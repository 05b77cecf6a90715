/**
 * Requests on a file whose content is written when it is opened: workers pass them on and answer nothing.
 */
import { expect, test } from 'vitest';
import { OPCODE } from '../../src/fuse/abi.ts';
import { fakeOps } from './fake-ops.ts';
import { body, errnoOf, request, serve } from './requests.ts';
import { newServer } from './server-fixture.ts';

const NODE = 2 ** 32 + 2;
const HEADER = { nodeid: BigInt(NODE), unique: 0xfedcba98_76543210n };
const LATER = { uniqueLow: 0x76543210, uniqueHigh: 0xfedcba98, node: NODE };

function generated() {
  const ops = fakeOps();
  ops.isGenerated.mockImplementation((node) => node === NODE);
  return { ops, ...newServer(ops) };
}

test.each([
  ['OPEN', body(0, 0), { kind: 'generate' }],
  ['READ', body(7n, 4097n, 100, 0, 0n, 0, 0), { kind: 'generated-read', handle: 7, offset: 4097, length: 100 }],
  ['RELEASE', body(7n, 0, 0, 0n), { kind: 'generated-release', handle: 7 }],
] as const)('%s is passed on', (name, bytes, expected) => {
  const { ops, server, deferred } = generated();
  expect(serve(server, request(OPCODE[name], bytes, HEADER))).toBe(undefined);
  expect(deferred).toEqual([{ ...LATER, ...expected }]);
  expect([ops.read.mock.calls, ops.release.mock.calls]).toEqual([[], []]);
});

test('an open that is refused is not', () => {
  const { ops, server, deferred } = generated();
  ops.open.mockReturnValue(1);
  expect(errnoOf(server, request(OPCODE.OPEN, body(2, 0), HEADER))).toBe(1);
  expect(deferred).toEqual([]);
});

test('a read of more than fits is refused here', () => {
  const { server, deferred } = generated();
  expect(errnoOf(server, request(OPCODE.READ, body(7n, 0n, 0xffffffff, 0, 0n, 0, 0), HEADER))).toBe(22);
  expect(deferred).toEqual([]);
});

test('an offset or a handle that no number holds is passed on as infinite', () => {
  const { server, deferred } = generated();
  serve(server, request(OPCODE.READ, body(-1n, -1n, 100, 0, 0n, 0, 0), HEADER));
  expect(deferred).toMatchObject([{ handle: Number.POSITIVE_INFINITY, offset: Number.POSITIVE_INFINITY }]);
});
