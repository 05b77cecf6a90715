/**
 * The handshake: what the kernel offers and what we take of it. Bytes in, bytes out, once per mount on the main thread
 * before any worker starts. Features are negotiated down, never assumed.
 */
import { EIO, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import {
  FUSE_INIT_IN,
  FUSE_INIT_OUT,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_OLDEST_MINOR_VERSION,
  INIT_FLAGS,
  INIT_FLAGS2,
  OPCODE,
} from './abi.ts';
import type { RequestReader } from './decode.ts';
import type { ReplyWriter } from './reply.ts';

/** Pages of a request where the kernel lets us choose: 1 MiB writes reach 1.5 to 1.8 GB/s, 128 KiB ones 1.0 to 1.2. */
const MAX_PAGES = 256;
const PAGE_BYTES = 4096;
/** Pages of a request where it does not (FUSE_DEFAULT_MAX_PAGES_PER_REQ). */
const DEFAULT_MAX_PAGES = 32;
/** Write-backs and readaheads under way at once; the kernel's own default of 12 leaves workers idle. */
const MAX_BACKGROUND = 64;
/** From here on the kernel calls the mount congested and skips optional readahead. */
const CONGESTION_THRESHOLD = 48;

/** File systems between the mount and a disk: files in this one may lie in another, which lies in none (fs_stack.h). */
const PASSTHROUGH_STACK_DEPTH = 1;

const WANTED =
  INIT_FLAGS.ASYNC_READ |
  INIT_FLAGS.BIG_WRITES |
  INIT_FLAGS.ASYNC_DIO |
  INIT_FLAGS.PARALLEL_DIROPS |
  INIT_FLAGS.MAX_PAGES |
  INIT_FLAGS.EXPLICIT_INVAL_DATA |
  INIT_FLAGS.INIT_EXT;

/** What both sides agreed on; plain data, posted to the workers. */
export interface Session {
  /** `7.45`: the smaller of both sides' versions. */
  readonly protocol: string;
  /** Largest payload of a WRITE or READ in bytes. */
  readonly maxTransferBytes: number;
  readonly writebackCache: boolean;
  /** Whether the kernel keeps handles that bypass its cache coherent with mappings and cached handles (Linux 6.6). */
  readonly directIoAllowMmap: boolean;
  /** Whether the kernel can read and write files past us; not beside the write-back cache. */
  readonly passthrough: boolean;
}

/** What depends on the mount; passthrough comes first where the kernel has both. */
export interface Wanted {
  readonly writeback: boolean;
  readonly passthrough: boolean;
}

export interface Handshake {
  /** Bytes of the reply to write, from the start of the reply buffer. */
  readonly replyBytes: number;
  /** Undefined when the kernel will ask again with the version that we answered. */
  readonly session: Session | undefined;
}

/**
 * Answers the first request of a connection.
 *
 * @throws CowfsError of kind `missing` for a kernel before 5.4, after the refusal is in the reply buffer
 */
export function handshake(request: RequestReader, reply: ReplyWriter, wanted: Wanted): Handshake {
  const argumentBytes = request.argumentBytes;
  if (request.opcode !== OPCODE.INIT || argumentBytes < FUSE_INIT_IN.COMPAT_BYTES) {
    throw new CowfsError('failed', `the kernel opened the connection with opcode ${request.opcode}, not with INIT`);
  }
  const major = request.u32(FUSE_INIT_IN.major);
  const minor = request.u32(FUSE_INIT_IN.minor);
  reply.clear(FUSE_INIT_OUT.BYTES);
  reply.u32(FUSE_INIT_OUT.major, FUSE_KERNEL_VERSION);
  reply.u32(FUSE_INIT_OUT.minor, FUSE_KERNEL_MINOR_VERSION);
  const finish = (errno: number): number =>
    reply.finish(request.uniqueLow, request.uniqueHigh, errno, FUSE_INIT_OUT.BYTES);
  // A kernel of a later major version takes our answer and starts again with ours (fuse.h, "INIT").
  if (major > FUSE_KERNEL_VERSION) return { replyBytes: finish(OK), session: undefined };
  if (major < FUSE_KERNEL_VERSION || minor < FUSE_OLDEST_MINOR_VERSION) {
    finish(EIO);
    throw new CowfsError('missing', `the kernel speaks FUSE ${major}.${minor}; cowfs needs 7.31 (Linux 5.4) or newer`);
  }

  const offered = request.u32(FUSE_INIT_IN.flags);
  const extended = (offered & INIT_FLAGS.INIT_EXT) !== 0 && argumentBytes >= FUSE_INIT_IN.BYTES;
  const offered2 = extended ? request.u32(FUSE_INIT_IN.flags2) : 0;
  const passthrough = wanted.passthrough && (offered2 & INIT_FLAGS2.PASSTHROUGH) !== 0;
  const flags = offered & (wanted.writeback && !passthrough ? WANTED | INIT_FLAGS.WRITEBACK_CACHE : WANTED);
  const flags2 = offered2 & (INIT_FLAGS2.DIRECT_IO_ALLOW_MMAP | (passthrough ? INIT_FLAGS2.PASSTHROUGH : 0));
  const maxPages = (flags & INIT_FLAGS.MAX_PAGES) !== 0 ? MAX_PAGES : DEFAULT_MAX_PAGES;

  reply.u32(FUSE_INIT_OUT.max_readahead, request.u32(FUSE_INIT_IN.max_readahead));
  reply.u32(FUSE_INIT_OUT.flags, flags >>> 0);
  reply.u16(FUSE_INIT_OUT.max_background, MAX_BACKGROUND);
  reply.u16(FUSE_INIT_OUT.congestion_threshold, CONGESTION_THRESHOLD);
  reply.u32(FUSE_INIT_OUT.max_write, maxPages * PAGE_BYTES);
  reply.u32(FUSE_INIT_OUT.time_gran, 1);
  reply.u16(FUSE_INIT_OUT.max_pages, maxPages);
  reply.u32(FUSE_INIT_OUT.flags2, flags2);
  reply.u32(FUSE_INIT_OUT.max_stack_depth, passthrough ? PASSTHROUGH_STACK_DEPTH : 0);
  return {
    replyBytes: finish(OK),
    session: {
      protocol: `${FUSE_KERNEL_VERSION}.${Math.min(minor, FUSE_KERNEL_MINOR_VERSION)}`,
      maxTransferBytes: maxPages * PAGE_BYTES,
      writebackCache: (flags & INIT_FLAGS.WRITEBACK_CACHE) !== 0,
      passthrough,
      directIoAllowMmap: (flags2 & INIT_FLAGS2.DIRECT_IO_ALLOW_MMAP) !== 0,
    },
  };
}
