/**
 * The protocol as a function from bytes to bytes: one request in, at most one reply out. One instance a worker, with
 * the two buffers it works in; the fd is in `transport/kernel`. An exception in a handler is a bug or the machine
 * failing: it becomes EIO and one call of `report`, here and nowhere else.
 */

import type { Counters } from '../fs/counters.ts';
import { GateClosed } from '../fs/lane.ts';
import type { NodeId } from '../fs/node.ts';
import type { FsOps } from '../fs/ops.ts';
import { EIO, ENOSYS, errnoOf, OK } from '../lib/errno.ts';
import { FUSE_IN_HEADER, FUSE_MIN_READ_BUFFER, FUSE_OUT_HEADER, FUSE_WRITE_IN, OPCODE } from './abi.ts';
import { type Call, type DeferredRequest, type HeldWrite, NO_REPLY } from './call.ts';
import { RequestReader } from './decode.ts';
import { OPERATIONS } from './dispatch.ts';
import { ReplyWriter } from './reply.ts';
import type { Trace } from './trace.ts';

export interface ServerOptions {
  readonly ops: FsOps;
  readonly counters: Counters;
  /** Largest payload of a READ or WRITE, as negotiated. */
  readonly maxTransferBytes: number;
  readonly hold: (write: HeldWrite) => void;
  readonly defer: (request: DeferredRequest) => void;
  /** Gets what no handler expected. */
  readonly report: (message: string, error: unknown) => void;
  readonly trace: Trace | undefined;
  /** Memory to work in, if not its own; they may overlap, but for what is in front of the reply. */
  readonly buffers?: Buffers;
}

export interface Buffers {
  readonly requestBytes: Uint8Array;
  readonly replyBytes: Uint8Array;
}

/** What `serve` returns on a thread that must not wait, for a request that has to. Nothing has happened. */
export const ELSEWHERE = -1;

export class FuseServer {
  /** Where requests are read to, and replies are written from. */
  readonly requestBytes: Uint8Array;
  readonly replyBytes: Uint8Array;
  readonly #request: RequestReader;
  readonly #reply: ReplyWriter;
  readonly #call: Call;
  readonly #options: ServerOptions;

  constructor(options: ServerOptions) {
    const { requestBytes, replyBytes } = options.buffers ?? newBuffers(options.maxTransferBytes);
    this.requestBytes = requestBytes;
    this.replyBytes = replyBytes;
    this.#request = new RequestReader(this.requestBytes);
    this.#reply = new ReplyWriter(this.replyBytes);
    this.#options = options;
    const { ops, hold, defer } = options;
    this.#call = { ops, request: this.#request, reply: this.#reply, hold, defer, payloadBytes: 0, movedBytes: 0 };
  }

  /** Whether the request in the first bytes of `requestBytes` is one that a thread may serve that must not wait. */
  isQuick(length: number): boolean {
    return this.#request.start(length) && OPERATIONS[this.#request.opcode]?.isQuick === true;
  }

  /**
   * Serves the request in the first `length` bytes of `requestBytes`.
   *
   * @returns bytes to write from `replyBytes`; 0 when the request wants no reply (or is too broken to have one)
   */
  serve(length: number): number {
    const startMs = performance.now();
    const request = this.#request;
    const { trace, counters } = this.#options;
    if (!request.start(length)) {
      this.#options.report(`a request of ${length} bytes that is none was dropped`, undefined);
      return 0;
    }
    const { opcode } = request;
    const operation = OPERATIONS[opcode];
    trace?.received(this.#options.ops, request, operation);
    const call = this.#call;
    call.payloadBytes = 0;
    call.movedBytes = 0;
    let errno: number;
    if (operation === undefined) errno = ENOSYS;
    else if (request.argumentBytes < operation.inBytes) errno = EIO;
    else {
      try {
        errno = operation.handle(call, request.nodeid as NodeId);
      } catch (error) {
        if (error instanceof GateClosed) return ELSEWHERE;
        this.#options.report(`${operation.name} failed`, error);
        errno = errnoOf(error);
      }
    }
    // Also where it was cut short, or failed.
    if (operation?.isOneWay === true) errno = NO_REPLY;
    const elapsedMs = performance.now() - startMs;
    if (opcode === OPCODE.READ) counters.read(call.movedBytes, elapsedMs);
    else if (opcode === OPCODE.WRITE) counters.wrote(call.movedBytes, elapsedMs);
    else counters.other(elapsedMs);
    if (errno > OK && (opcode === OPCODE.READ || opcode === OPCODE.WRITE)) counters.failed();
    trace?.answered(request, errno, call.payloadBytes, elapsedMs);
    return errno === NO_REPLY ? 0 : this.#reply.finish(request.uniqueLow, request.uniqueHigh, errno, call.payloadBytes);
  }
}

function newBuffers(maxTransferBytes: number): Buffers {
  const headers = FUSE_IN_HEADER.BYTES + FUSE_WRITE_IN.BYTES;
  return {
    requestBytes: new Uint8Array(Math.max(FUSE_MIN_READ_BUFFER, maxTransferBytes + headers)),
    replyBytes: new Uint8Array(FUSE_OUT_HEADER.BYTES + maxTransferBytes),
  };
}
