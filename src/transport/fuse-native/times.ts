/**
 * The modification time that utimensat(2) sets. fuse-native 2.2.6 hands the access time to its `utimens` twice (its
 * fuse-native.c, FUSE_METHOD_VOID(utimens)), so that `cp -p` would give a file a wrong time without a word. The real one
 * lies in the memory of the request that it passes along, and is read from there.
 */
import type { NativeHandler } from './addon.ts';

/** The addon's number of utimens (fuse-native.c, `op_utimens`). */
const UTIMENS = 12;

/** Offsets within its `fuse_thread_locals_t` on 64-bit Linux: `uint32_t op`, `size_t atime`, `size_t mtime` (milliseconds). */
const OFFSET = { op: 8, atime: 104, mtime: 112, END: 120 } as const;

/** Reads the times of the request that is being handled. */
export class RequestTimes {
  #mtimeMs: number | undefined;

  /** Looks into each utimens request before the package's own handler gets it. */
  attach(handlers: NativeHandler[]): void {
    const handler = handlers[UTIMENS];
    if (handler === undefined) throw new Error('fuse-native has no utimens');
    handlers[UTIMENS] = (request, operation, path, atimeLow, atimeHigh, ...rest) => {
      this.#mtimeMs = readMtime(request, operation, Number(atimeLow) + Number(atimeHigh) * 2 ** 32);
      handler(request, operation, path, atimeLow, atimeHigh, ...rest);
    };
  }

  /** Milliseconds since the epoch; undefined when the request is not laid out as expected: then nothing is known. */
  get mtimeMs(): number | undefined {
    return this.#mtimeMs;
  }
}

function readMtime(request: Buffer, operation: number, atimeMs: number): number | undefined {
  if (operation !== UTIMENS || request.byteLength < OFFSET.END) return undefined;
  const atime = Number(request.readBigUInt64LE(OFFSET.atime));
  if (request.readUInt32LE(OFFSET.op) !== UTIMENS || atime !== atimeMs) return undefined;
  return Number(request.readBigInt64LE(OFFSET.mtime));
}
