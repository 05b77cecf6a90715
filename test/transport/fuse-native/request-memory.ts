/**
 * What the fuse-native addon hands over with a utimens request: its memory, as on 64-bit Linux, and the arguments.
 */
import type { NativeHandler } from '../../../src/transport/fuse-native/addon.ts';

/** The addon's number of utimens. */
export const UTIMENS = 12;
/** And of create. */
export const CREATE = 27;
const REQUEST_BYTES = 248;

export interface Request {
  readonly operation?: number;
  readonly atimeMs: number;
  readonly mtimeMs: number;
  /** Where the memory ends. */
  readonly bytes?: number;
}

/** `fuse_thread_locals_t` as far as it matters, in the midst of other things. */
export function requestMemory({ operation = UTIMENS, atimeMs, mtimeMs, bytes }: Request): Buffer {
  const memory = Buffer.alloc(REQUEST_BYTES, 0xa5);
  memory.writeUInt32LE(operation, 8); // op, behind a napi_ref
  memory.writeBigInt64LE(BigInt(atimeMs), 104);
  memory.writeBigInt64LE(BigInt(mtimeMs), 112);
  return memory.subarray(0, bytes);
}

/** The same with a create request: where its `struct fuse_file_info` lies. */
export function createMemory(mode: number, info: bigint): Buffer {
  const memory = requestMemory({ operation: CREATE, atimeMs: 0, mtimeMs: 0 });
  memory.writeBigUInt64LE(info, 48);
  memory.writeUInt32LE(mode, 80);
  return memory;
}

/** A time as the addon passes it: halves of 32 bits, without a sign. */
export function halves(milliseconds: number): readonly [low: number, high: number] {
  const bits = BigInt.asUintN(64, BigInt(milliseconds));
  return [Number(bits & 0xffff_ffffn), Number(bits >> 32n)];
}

/** Calls the handler as the addon does: the access time comes twice. */
export function deliver(
  handlers: readonly NativeHandler[],
  memory: Buffer,
  atimeMs: number,
  operation = UTIMENS,
): void {
  handlers[UTIMENS]?.(memory, operation, '/disk.raw', ...halves(atimeMs), ...halves(atimeMs));
}
