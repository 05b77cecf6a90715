/**
 * The loop of the thread with the ring: it takes the requests that are there, and one system call hands over what has to
 * be read or written for them and the replies to those that are done. It moves data and waits for nothing but requests;
 * everything else goes to the threads of `helper-loop.ts`. Against workers that each read /dev/fuse (2 cores of a
 * virtual machine, base and store in memory, interleaved, ratios of medians): random 4k reads 1.3 to 1.9 with one job, 1.3
 * to 1.5 with 16; random 4k writes 1.4 to 2.9; mixed with fsync 1.5; copy-up of 1k 1.6; sequential 1 MiB reads 1.1 and
 * writes 0.85, as one thread copies. Handing large ones to other threads made them slower still, by 0.7.
 */
import { ELSEWHERE, type FuseServer } from '../../fuse/server.ts';
import { STEP, type Step, type TransferServer } from '../../fuse/transfer-server.ts';
import { EAGAIN, EINTR, ENODEV, ENOENT, errnoName } from '../../lib/errno.ts';
import { addressOf, Ring } from '../../sys/io-uring.ts';
import { preadMemory, pwriteMemory, readMemory, writeMemory } from '../../sys/memory-io.ts';
import type { AtOnce } from './at-once.ts';
import { type HandOver, RING_ENTRIES, SLOTS } from './hand-over.ts';
import { sendReply } from './loop.ts';

/** What has ended, in the lower bits of a token; the slot is above them. */
const DONE = { READABLE: 0, MOVED: 1, MOVED_BEFORE_REPLY: 2, REPLY: 3 } as const;
const DONE_BITS = 2;

/** Of the connection, and no slot's. */
const READABLE = token(0, DONE.READABLE);

/** Most requests that are taken before the replies to the first of them are sent. */
const MOST_AT_A_TIME = 8;

/**
 * How long the thread stays awake for the next request, in milliseconds, as QEMU's I/O threads do (poll-max-ns): longer when
 * that would have been enough, not at all when it was far off. On 2 cores of a virtual machine one job of random 4k reads
 * makes 35.6k IOPS so, and 24.1k when it always sleeps; 16 jobs make the same either way, and 0.08 ms at most is no better.
 */
const LEAST_POLL_MS = 0.008;
const MOST_POLL_MS = 0.032;

export class RingLoop {
  readonly #fuseFd: number;
  readonly #ring: Ring;
  readonly #server: TransferServer;
  readonly #quick: readonly FuseServer[];
  readonly #handOver: HandOver;
  readonly #addresses: Float64Array;
  readonly #atOnce: AtOnce;
  /** Slots that nothing is in, the last used on top: its memory is warm. */
  readonly #free = Int32Array.from({ length: SLOTS }, (_, index) => SLOTS - 1 - index);
  readonly #lengths = new Int32Array(SLOTS);
  #freeCount = SLOTS;
  /** Slots with an operation of the ring under way. */
  #busy = 0;
  /** Whether the ring is to say when there is a request. */
  #isAwaited = false;
  /** Whether the request in hand is the only one there is. */
  #isAlone = false;
  #ended = false;
  #pollMs = 0;
  /** Requests that others have. */
  #away = 0;
  readonly #onBacklog: () => void;

  /** @param fuseFd that does not make a read wait (O_NONBLOCK) */
  constructor(
    fuseFd: number,
    server: TransferServer,
    quick: readonly FuseServer[],
    handOver: HandOver,
    atOnce: AtOnce,
    slots: readonly Uint8Array<SharedArrayBuffer>[],
    onBacklog: () => void,
  ) {
    this.#fuseFd = fuseFd;
    const ring = Ring.open(RING_ENTRIES);
    if (typeof ring === 'number') throw new Error(`io_uring_setup: ${errnoName(ring)}`);
    this.#ring = ring;
    this.#server = server;
    this.#quick = quick;
    this.#handOver = handOver;
    this.#atOnce = atOnce;
    this.#onBacklog = onBacklog;
    this.#addresses = Float64Array.from(slots, addressOf);
  }

  /**
   * Serves until the file system is unmounted.
   *
   * @throws what /dev/fuse answers that nothing explains
   */
  run(): void {
    const ring = this.#ring;
    for (;;) {
      this.#takeBack();
      if (ring.laidDown > 0) ring.enter(0);
      if (this.#goOn()) continue;
      if (!this.#ended && this.#freeCount > 0) this.#takeRequests();
      else if (this.#busy > 0) ring.enter(1);
      else if (this.#ended) return;
      else this.#handOver.waitForSlot();
    }
  }

  /** Goes on with what has ended; false when nothing has. */
  #goOn(): boolean {
    const ring = this.#ring;
    if (!ring.hasEnded) return false;
    while (ring.next()) {
      const slot = ring.token >> DONE_BITS;
      switch (ring.token & ((1 << DONE_BITS) - 1)) {
        case DONE.READABLE:
          this.#isAwaited = false;
          break;
        case DONE.MOVED:
          this.#busy--;
          this.#do(slot, this.#server.advance(slot, ring.result));
          break;
        case DONE.REPLY:
          this.#busy--;
          this.#replied(slot, ring.result);
          break;
        // There is word of it only where it failed, and then none of the reply.
        case DONE.MOVED_BEFORE_REPLY:
          this.#busy--;
          this.#settle(slot, this.#server.replied(slot, false));
          break;
      }
    }
    return true;
  }

  /** Takes the requests that are there. If there is none, waits for one, or until something has ended: a short while awake. */
  #takeRequests(): void {
    const ring = this.#ring;
    if (this.#take()) {
      for (let count = 1; count < MOST_AT_A_TIME && !this.#ended && this.#freeCount > 0; count++) {
        if (!this.#take()) return;
      }
      return;
    }
    const start = performance.now();
    const end = start + this.#pollMs;
    for (let now = start; now < end; now = performance.now()) {
      if (ring.isDue) {
        ring.enter(0);
        return;
      }
      // What follows an idle moment comes from a program that waits for it.
      this.#isAlone = this.#busy === 0;
      const isTaken = this.#take();
      this.#isAlone = false;
      if (isTaken) return;
    }
    if (!this.#isAwaited) {
      ring.readable(this.#fuseFd, READABLE);
      this.#isAwaited = true;
    }
    ring.enter(1);
    const blockedMs = performance.now() - start;
    if (blockedMs > MOST_POLL_MS) this.#pollMs = 0;
    else this.#pollMs = Math.min(MOST_POLL_MS, Math.max(LEAST_POLL_MS, this.#pollMs * 2));
  }

  /** Takes up the next request; false when there is none. Through the ring it would be 6 % fewer random 4k reads of one job. */
  #take(): boolean {
    const slot = this.#free[this.#freeCount - 1] as number;
    const result = readMemory(this.#fuseFd, this.#addresses[slot] as number, this.#server.requestBytes);
    if (result === -EAGAIN) return false;
    this.#freeCount--;
    this.#arrived(slot, result);
    return true;
  }

  #takeBack(): void {
    let slots = this.#handOver.takeBack();
    while (slots !== 0) {
      const slot = 31 - Math.clz32(slots & -slots);
      slots &= slots - 1;
      this.#away--;
      this.#release(slot);
    }
  }

  #release(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }

  #arrived(slot: number, result: number): void {
    if (result > 0) {
      this.#lengths[slot] = result;
      const step = this.#server.start(slot, result);
      if (step !== STEP.HAND_OVER || !this.#serveQuickly(slot, result)) this.#do(slot, step);
      return;
    }
    this.#release(slot);
    if (result === -ENODEV) this.#ended = true;
    // The caller was interrupted before we read, or we were: the next one, please.
    else if (result !== -ENOENT && result !== -EINTR) {
      throw new Error(`/dev/fuse: ${errnoName(-result)}`);
    }
  }

  #replied(slot: number, result: number): void {
    // ENOENT: the caller was interrupted and waits no more.
    if (result === -ENODEV) this.#ended = true;
    else if (result < 0 && result !== -ENOENT) throw new Error(`/dev/fuse: ${errnoName(-result)}`);
    this.#settle(slot, this.#server.replied(slot, true));
  }

  /** Serves what needs no waiting; false for what does. */
  #serveQuickly(slot: number, length: number): boolean {
    const server = this.#quick[slot] as FuseServer;
    if (!server.isQuick(length)) return false;
    const replyLength = server.serve(length);
    if (replyLength === ELSEWHERE) return false;
    if (replyLength > 0 && !sendReply(this.#fuseFd, server.replyBytes, replyLength)) this.#ended = true;
    this.#release(slot);
    return true;
  }

  /** Takes the steps that need no waiting, and lays down the one that does, or the reply. */
  #do(slot: number, first: Step): void {
    const server = this.#server;
    let step = first;
    while (step !== STEP.HAND_OVER && step !== STEP.REPLY) {
      const isRead = step === STEP.READ || step === STEP.READ_AND_REPLY;
      if (!(isRead ? this.#atOnce.reads(server.fd) : this.#atOnce.writes(server.fd))) break;
      const result = this.#moveNow(slot, isRead);
      if (step === STEP.READ || step === STEP.WRITE) step = server.advance(slot, result);
      else step = result === server.length ? STEP.REPLY : server.replied(slot, false);
    }
    if (step === STEP.HAND_OVER) this.#settle(slot, step);
    else if (step === STEP.REPLY && this.#isAlone) this.#reply(slot);
    else this.#lay(slot, step);
  }

  /** Sends the reply at once: with nothing else to hand over that is quicker, by 4 % of random 4k reads of one job. */
  #reply(slot: number): void {
    const { replyAt, replyBytes } = this.#server;
    this.#replied(slot, writeMemory(this.#fuseFd, (this.#addresses[slot] as number) + replyAt, replyBytes));
  }

  #lay(slot: number, step: Step): void {
    const { fd, offset, at, length, replyAt, replyBytes } = this.#server;
    const ring = this.#ring;
    const start = this.#addresses[slot] as number;
    this.#busy++;
    if (step === STEP.READ) ring.read(fd, offset, start + at, length, token(slot, DONE.MOVED));
    else if (step === STEP.WRITE) ring.write(fd, offset, start + at, length, token(slot, DONE.MOVED));
    else {
      const before = token(slot, DONE.MOVED_BEFORE_REPLY);
      if (step === STEP.READ_AND_REPLY) ring.readThen(fd, offset, start + at, length, before);
      else if (step === STEP.WRITE_AND_REPLY) ring.writeThen(fd, offset, start + at, length, before);
      ring.write(this.#fuseFd, -1, start + replyAt, replyBytes, token(slot, DONE.REPLY));
    }
  }

  #moveNow(slot: number, isRead: boolean): number {
    const { fd, offset, at, length } = this.#server;
    const move = isRead ? preadMemory : pwriteMemory;
    return move(fd, (this.#addresses[slot] as number) + at, length, offset);
  }

  /** The slot is done with, or somebody else's. */
  #settle(slot: number, step: Step): void {
    if (step !== STEP.HAND_OVER) {
      this.#release(slot);
      return;
    }
    this.#handOver.give(slot, this.#lengths[slot] as number);
    this.#away++;
    if (this.#away > 1 && this.#handOver.callForHelp()) this.#onBacklog();
  }
}

function token(slot: number, done: number): number {
  return (slot << DONE_BITS) | done;
}
