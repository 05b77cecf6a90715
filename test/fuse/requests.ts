/**
 * Requests as bytes, and replies taken apart again, for the tests of the protocol. Little endian, as the machines are
 * that tests run on.
 */
import { expect } from 'vitest';
import { FUSE_IN_HEADER } from '../../src/fuse/abi.ts';
import type { FuseServer } from '../../src/fuse/server.ts';

/** Bytes from text such as `'28 00 00 00'`, a row a field. */
export function hex(...rows: readonly string[]): Buffer {
  return Buffer.from(rows.join('').replaceAll(' ', ''), 'hex');
}

export interface Header {
  readonly unique?: bigint;
  readonly nodeid?: bigint | number;
  readonly uid?: number;
  readonly gid?: number;
  readonly pid?: number;
  /** What the header says of the length; the real one if absent. */
  readonly len?: number;
}

/** A request of these bytes after the header. */
export function request(opcode: number, body: Uint8Array = Buffer.alloc(0), header: Header = {}): Buffer {
  const bytes = Buffer.alloc(FUSE_IN_HEADER.BYTES + body.length);
  bytes.writeUInt32LE(header.len ?? bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(header.unique ?? 0x22n, 8);
  bytes.writeBigUInt64LE(BigInt(header.nodeid ?? 2), 16);
  bytes.writeUInt32LE(header.uid ?? 1000, 24);
  bytes.writeUInt32LE(header.gid ?? 1000, 28);
  bytes.writeUInt32LE(header.pid ?? 4242, 32);
  bytes.set(body, FUSE_IN_HEADER.BYTES);
  return bytes;
}

/** A body of fields: a number is 4 bytes, a bigint 8, text a name with its NUL. */
export function body(...fields: readonly (number | bigint | string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    fields.map((field) => {
      if (field instanceof Uint8Array) return Buffer.from(field);
      if (typeof field === 'string') return Buffer.from(`${field}\0`, 'utf8');
      if (typeof field === 'number') {
        const word = Buffer.alloc(4);
        word.writeUInt32LE(field >>> 0);
        return word;
      }
      const word = Buffer.alloc(8);
      word.writeBigUInt64LE(BigInt.asUintN(64, field));
      return word;
    }),
  );
}

/** Fills what lies behind a request: must never be seen again. */
const SENTINEL = 0xee;

export interface Reply {
  readonly len: number;
  readonly error: number;
  readonly unique: bigint;
  readonly payload: Buffer;
}

/** Serves one request with sentinels behind it and in the reply; undefined when there is none. */
export function serve(server: FuseServer, bytes: Uint8Array, sentinel = SENTINEL): Reply | undefined {
  server.requestBytes.fill(sentinel);
  server.requestBytes.set(bytes);
  // Nor may a reply show what the one before left.
  server.replyBytes.fill(sentinel);
  const length = server.serve(bytes.length);
  if (length === 0) return undefined;
  const reply = Buffer.from(server.replyBytes.subarray(0, length));
  return {
    len: reply.readUInt32LE(0),
    error: reply.readInt32LE(4),
    unique: reply.readBigUInt64LE(8),
    payload: reply.subarray(16),
  };
}

/** What every reply must be, and this one besides. */
export function expectReply(server: FuseServer, bytes: Buffer): Reply {
  const reply = serve(server, bytes);
  if (reply === undefined) throw new Error('no reply');
  expect(reply.len).toBe(16 + reply.payload.length);
  expect(reply.len).toBeLessThanOrEqual(server.replyBytes.length);
  expect(reply.unique).toBe(bytes.readBigUInt64LE(8));
  if (reply.error !== 0) expect(reply.payload.length).toBe(0);
  return reply;
}

/** The errno that a request gets, positive; 0 for success. */
export function errnoOf(server: FuseServer, bytes: Buffer): number {
  return 0 - expectReply(server, bytes).error;
}
