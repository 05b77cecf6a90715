/**
 * READ and WRITE for a thread that moves no bytes itself: what has to be moved for a request, step by step, and the reply
 * behind it; also FALLOCATE where that moves none. Each request under way has a slot, with memory that it and its reply
 * share. Whatever is not simple is handed over, whole and unchanged, to a `FuseServer` elsewhere. Bytes in, steps out: no
 * descriptor is used here.
 */
import type { Counters } from '../fs/counters.ts';
import { isSynchronous } from '../fs/handle-kinds.ts';
import { COPY_UP_BYTES, type Lane, PLAN } from '../fs/lane.ts';
import type { NodeId } from '../fs/node.ts';
import { OK } from '../lib/errno.ts';
import {
  FUSE_FALLOCATE_IN,
  FUSE_IN_HEADER,
  FUSE_OUT_HEADER,
  FUSE_READ_IN,
  FUSE_WRITE_IN,
  FUSE_WRITE_OUT,
  OPCODE,
} from './abi.ts';
import { RequestReader } from './decode.ts';
import { ReplyWriter } from './reply.ts';
import type { Buffers } from './server.ts';

/** What has to be done next for a request. */
export const STEP = {
  /** Let somebody else serve it; nothing has happened. */
  HAND_OVER: 0,
  /** Send the reply; then `replied`. */
  REPLY: 1,
  /** Read `length` bytes of `fd` at `offset` to `at`, or write them from there; then `advance`. */
  READ: 2,
  WRITE: 3,
  /** Likewise, then send the reply if that moved all of it; then `replied`. */
  READ_AND_REPLY: 4,
  WRITE_AND_REPLY: 5,
} as const;
export type Step = (typeof STEP)[keyof typeof STEP];

/** Where the reply to a READ begins in a slot: behind the request, and so that its data is aligned. */
const READ_REPLY_AT = 256 - FUSE_OUT_HEADER.BYTES;
const WRITE_REPLY_BYTES = FUSE_OUT_HEADER.BYTES + FUSE_WRITE_OUT.BYTES;
const WRITE_DATA_AT = FUSE_IN_HEADER.BYTES + FUSE_WRITE_IN.BYTES;
const ALIGNMENT = 4096;

interface Slot {
  readonly lane: Lane;
  readonly bytes: Uint8Array;
  readonly request: RequestReader;
  readonly readReply: ReplyWriter;
  readonly writeReply: ReplyWriter;
  startMs: number;
  opcode: number;
  /** Payload of the request. */
  payloadBytes: number;
  /** What the step under way is to move. */
  expectedBytes: number;
  /** Whether the block that a copy-up needs is being read. */
  isCopyingUp: boolean;
  /** Whether the file system has been told already. */
  isFinished: boolean;
}

export class TransferServer {
  /** Of the last step: the descriptor, its offset, the place in the slot and the length. */
  fd = -1;
  offset = 0;
  at = 0;
  length = 0;
  /** Of the reply: the place in the slot and the length. */
  replyAt = 0;
  replyBytes = 0;

  readonly #slots: readonly Slot[];
  readonly #counters: Counters;
  readonly #maxTransferBytes: number;
  readonly #writeReplyAt: number;
  readonly #blockAt: number;
  readonly #mayBeKept: boolean;

  /**
   * @param slots memory of each
   * @param lanes one for each slot
   * @param mayBeKept whether a disk may be one whose writes have to be made durable
   */
  constructor(
    slots: readonly Uint8Array[],
    lanes: readonly Lane[],
    options: { readonly maxTransferBytes: number; readonly counters: Counters; readonly mayBeKept: boolean },
  ) {
    const { maxTransferBytes, counters, mayBeKept } = options;
    this.#maxTransferBytes = maxTransferBytes;
    this.#counters = counters;
    this.#mayBeKept = mayBeKept;
    this.#blockAt = blockAt(maxTransferBytes);
    this.#writeReplyAt = this.#blockAt - WRITE_REPLY_BYTES;
    this.#slots = slots.map((bytes, index) => {
      const { requestBytes, replyBytes } = slotBuffers(bytes, maxTransferBytes);
      return {
        lane: lanes[index] as Lane,
        bytes,
        request: new RequestReader(requestBytes),
        readReply: new ReplyWriter(replyBytes),
        writeReply: new ReplyWriter(bytes.subarray(this.#writeReplyAt, this.#writeReplyAt + WRITE_REPLY_BYTES)),
        startMs: 0,
        opcode: 0,
        payloadBytes: 0,
        expectedBytes: 0,
        isCopyingUp: false,
        isFinished: false,
      };
    });
  }

  /** Bytes that a request is to be read with, from the start of the slot. */
  get requestBytes(): number {
    return WRITE_DATA_AT + this.#maxTransferBytes;
  }

  /** Takes up the request in the first `length` bytes of a slot. */
  start(index: number, length: number): Step {
    const slot = this.#slots[index] as Slot;
    const { request } = slot;
    if (!request.start(length)) return STEP.HAND_OVER;
    slot.startMs = performance.now();
    slot.isFinished = false;
    slot.isCopyingUp = false;
    const { opcode, argumentBytes } = request;
    slot.opcode = opcode;
    if (opcode === OPCODE.READ && argumentBytes >= FUSE_READ_IN.BYTES) return this.#startRead(slot);
    if (opcode === OPCODE.WRITE && argumentBytes >= FUSE_WRITE_IN.BYTES) return this.#startWrite(slot);
    if (opcode === OPCODE.FALLOCATE && argumentBytes >= FUSE_FALLOCATE_IN.BYTES) return this.#allocate(slot);
    return STEP.HAND_OVER;
  }

  /** Goes on after a READ or WRITE that moved `result` bytes, or failed. */
  advance(index: number, result: number): Step {
    const slot = this.#slots[index] as Slot;
    const { lane, request } = slot;
    if (result !== slot.expectedBytes) return this.#giveUp(slot);
    if (slot.isCopyingUp) {
      slot.isCopyingUp = false;
      const { transfer } = lane;
      const data = slot.bytes.subarray(WRITE_DATA_AT, WRITE_DATA_AT + slot.payloadBytes);
      slot.bytes.set(data, this.#blockAt + transfer.inBlock);
      return this.#move(slot, STEP.WRITE, transfer.fd, transfer.offset, this.#blockAt, COPY_UP_BYTES);
    }
    slot.isFinished = true;
    try {
      lane.finish();
    } catch (error) {
      return handOverIfFull(error);
    }
    this.#prepareReply(slot, request);
    return STEP.REPLY;
  }

  /** The reply was sent; or was not, because the step before moved too little: then it is to be handed over. */
  replied(index: number, wasSent: boolean): Step {
    const slot = this.#slots[index] as Slot;
    if (!wasSent) return this.#giveUp(slot);
    if (!slot.isFinished) slot.lane.finish();
    const elapsedMs = performance.now() - slot.startMs;
    if (slot.opcode === OPCODE.READ) this.#counters.read(slot.payloadBytes, elapsedMs);
    else if (slot.opcode === OPCODE.WRITE) this.#counters.wrote(slot.payloadBytes, elapsedMs);
    else this.#counters.other(elapsedMs);
    return STEP.REPLY;
  }

  #startRead(slot: Slot): Step {
    const { lane, request } = slot;
    const length = request.u32(FUSE_READ_IN.size);
    if (length > this.#maxTransferBytes) return STEP.HAND_OVER;
    const plan = lane.planRead(request.nodeid as NodeId, request.u64(FUSE_READ_IN.offset), length);
    if (plan === PLAN.ELSEWHERE) return STEP.HAND_OVER;
    slot.payloadBytes = length;
    this.#prepareReply(slot, request);
    const dataAt = READ_REPLY_AT + FUSE_OUT_HEADER.BYTES;
    if (plan === PLAN.MOVE) {
      return this.#move(slot, STEP.READ_AND_REPLY, lane.transfer.fd, lane.transfer.offset, dataAt, length);
    }
    slot.bytes.fill(0, dataAt, dataAt + length);
    return STEP.REPLY;
  }

  #startWrite(slot: Slot): Step {
    const { lane, request } = slot;
    const length = request.u32(FUSE_WRITE_IN.size);
    if (length > request.argumentBytes - FUSE_WRITE_IN.BYTES) return STEP.HAND_OVER;
    if (this.#mayBeKept && isSynchronous(request.u32(FUSE_WRITE_IN.flags))) return STEP.HAND_OVER;
    const plan = lane.planWrite(request.nodeid as NodeId, request.u64(FUSE_WRITE_IN.offset), length);
    if (plan === PLAN.ELSEWHERE) return STEP.HAND_OVER;
    slot.payloadBytes = length;
    const { transfer } = lane;
    if (plan === PLAN.COPY_UP) {
      slot.isCopyingUp = true;
      return this.#move(slot, STEP.READ, transfer.sourceFd, transfer.sourceOffset, this.#blockAt, COPY_UP_BYTES);
    }
    if (transfer.isPlain) this.#prepareReply(slot, request);
    const step = transfer.isPlain ? STEP.WRITE_AND_REPLY : STEP.WRITE;
    return this.#move(slot, step, transfer.fd, transfer.offset, WRITE_DATA_AT, length);
  }

  #allocate(slot: Slot): Step {
    const { lane, request } = slot;
    const mode = request.u32(FUSE_FALLOCATE_IN.mode);
    const offset = request.u64(FUSE_FALLOCATE_IN.offset);
    const length = request.u64(FUSE_FALLOCATE_IN.length);
    try {
      if (!lane.tryAllocate(request.nodeid as NodeId, mode, offset, length)) return STEP.HAND_OVER;
    } catch (error) {
      return handOverIfFull(error);
    }
    slot.isFinished = true;
    this.#prepareReply(slot, request);
    return STEP.REPLY;
  }

  #move(slot: Slot, step: Step, fd: number, offset: number, at: number, length: number): Step {
    this.fd = fd;
    this.offset = offset;
    this.at = at;
    this.length = length;
    slot.expectedBytes = length;
    return step;
  }

  #giveUp(slot: Slot): Step {
    slot.lane.abandon();
    return STEP.HAND_OVER;
  }

  #prepareReply(slot: Slot, request: RequestReader): void {
    const { opcode, payloadBytes } = slot;
    const isRead = opcode === OPCODE.READ;
    const reply = isRead ? slot.readReply : slot.writeReply;
    this.replyAt = isRead ? READ_REPLY_AT : this.#writeReplyAt;
    let bytes = isRead ? payloadBytes : 0;
    if (opcode === OPCODE.WRITE) {
      reply.u64(FUSE_WRITE_OUT.size, payloadBytes);
      bytes = FUSE_WRITE_OUT.BYTES;
    }
    this.replyBytes = reply.finish(request.uniqueLow, request.uniqueHigh, OK, bytes);
  }
}

/** No memory for the map: who serves it next will say so. */
function handOverIfFull(error: unknown): Step {
  if (error instanceof RangeError) return STEP.HAND_OVER;
  throw error;
}

/** Bytes of memory that a slot needs. */
export function slotBytes(maxTransferBytes: number): number {
  return alignUp(blockAt(maxTransferBytes) + COPY_UP_BYTES);
}

/**
 * Where in a slot a `FuseServer` finds a request that was handed over, and may reply: the reply lies over what a WRITE
 * brought, which has been used when there is something to reply.
 */
export function slotBuffers(slot: Uint8Array, maxTransferBytes: number): Buffers {
  return {
    requestBytes: slot.subarray(0, WRITE_DATA_AT + maxTransferBytes),
    replyBytes: slot.subarray(READ_REPLY_AT, READ_REPLY_AT + FUSE_OUT_HEADER.BYTES + maxTransferBytes),
  };
}

function blockAt(maxTransferBytes: number): number {
  return alignUp(READ_REPLY_AT + FUSE_OUT_HEADER.BYTES + maxTransferBytes + WRITE_REPLY_BYTES);
}

function alignUp(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
