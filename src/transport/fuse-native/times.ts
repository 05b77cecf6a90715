/**
 * The times that utimensat(2) sets. fuse-native 2.2.6 hands the access time to its `utimens` twice (its fuse-native.c,
 * FUSE_METHOD_VOID(utimens)), so that `cp -p` would give a file a wrong time without a word, and takes both for unsigned.
 * The real ones lie in the memory of the request that it passes along, and are read from there.
 */
import type { NativeHandler } from './addon.ts';

/** The addon's number of utimens (fuse-native.c, `op_utimens`). */
const UTIMENS = 12;

/** Offsets within its `fuse_thread_locals_t` on 64-bit Linux: `uint32_t op`, `size_t atime`, `size_t mtime` (milliseconds). */
const OFFSET = { op: 8, atime: 104, mtime: 112, END: 120 } as const;

/** Milliseconds since the epoch, negative before it. */
interface Times {
  readonly atimeMs: number;
  readonly mtimeMs: number;
}

/** Reads the times of the request that is being handled. */
export class RequestTimes {
  #times: Times | undefined;

  /** Looks into each utimens request before the package's own handler gets it. */
  attach(handlers: NativeHandler[]): void {
    const handler = handlers[UTIMENS];
    if (handler === undefined) throw new Error('fuse-native has no utimens');
    handlers[UTIMENS] = (request, operation, path, atimeLow, atimeHigh, ...rest) => {
      this.#times = readTimes(request, operation, Number(atimeLow), Number(atimeHigh));
      handler(request, operation, path, atimeLow, atimeHigh, ...rest);
    };
  }

  /** Undefined when the request was not laid out as expected: then nothing is known. */
  get current(): Times | undefined {
    return this.#times;
  }
}

function readTimes(request: Buffer, operation: number, atimeLow: number, atimeHigh: number): Times | undefined {
  if (operation !== UTIMENS || request.byteLength < OFFSET.END || request.readUInt32LE(OFFSET.op) !== UTIMENS) {
    return undefined;
  }
  // The one time that the package hands over right tells whether this is the place.
  if (request.readUInt32LE(OFFSET.atime) !== atimeLow || request.readUInt32LE(OFFSET.atime + 4) !== atimeHigh) {
    return undefined;
  }
  return {
    atimeMs: Number(request.readBigInt64LE(OFFSET.atime)),
    mtimeMs: Number(request.readBigInt64LE(OFFSET.mtime)),
  };
}
