/**
 * The flags of open(2) of a file that is being made. fuse-native 2.2.6 does not hand them to its `create`, and without
 * them nobody knows whether the file is to start empty. They are read from the memory of the request that it passes along.
 */
import { readInt32 } from '../../sys/libc.ts';
import type { NativeHandler } from './addon.ts';

/** The addon's number of create (fuse-native.c, `op_create`). */
const CREATE = 27;

/**
 * Offsets within its `fuse_thread_locals_t` on 64-bit Linux: `uint32_t op`, `struct fuse_file_info *info`, whose first
 * field is `int flags` (fuse_common.h of libfuse 2.9), `mode_t mode`.
 */
const OFFSET = { op: 8, info: 48, mode: 80, END: 84 } as const;

/** Reads the flags of the request that is being handled. */
export class RequestFlags {
  #flags: number | undefined;

  /** Looks into each create request before the package's own handler gets it. */
  attach(handlers: NativeHandler[]): void {
    const handler = handlers[CREATE];
    if (handler === undefined) throw new Error('fuse-native has no create');
    handlers[CREATE] = (request, operation, path, mode, ...rest) => {
      this.#flags = readFlags(request, operation, Number(mode));
      handler(request, operation, path, mode, ...rest);
    };
  }

  /** Undefined when the request was not laid out as expected: then nothing is known. */
  get current(): number | undefined {
    return this.#flags;
  }
}

function readFlags(request: Buffer, operation: number, mode: number): number | undefined {
  if (operation !== CREATE || request.byteLength < OFFSET.END || request.readUInt32LE(OFFSET.op) !== CREATE) {
    return undefined;
  }
  // What the package does hand over tells whether this is the place.
  if (request.readUInt32LE(OFFSET.mode) !== mode) return undefined;
  const info = request.readBigUInt64LE(OFFSET.info);
  return info === 0n ? undefined : readInt32(info);
}
