/**
 * A ring of io_uring(7), as one thread has it: operations are laid down, and one system call hands all of them to the
 * kernel and waits for what has come of earlier ones. Through libc's syscall(2): a libc has no wrappers for it. On the
 * thread that made it and no other (IORING_SETUP_SINGLE_ISSUER). It knows descriptors, addresses and numbers, not what
 * they are for.
 */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { EINTR, type Errno, OK } from '../lib/errno.ts';

const libc = koffi.load(null);
const cSetup = libc.func('syscall', 'long', ['long', 'unsigned int', 'void *']);
const cEnter = libc.func('syscall', 'long', [
  'long',
  'int',
  'unsigned int',
  'unsigned int',
  'unsigned int',
  'void *',
  'long',
]);
const cMmap = libc.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t']);

/** The same on every architecture (asm-generic/unistd.h). */
const SYS_io_uring_setup = 425;
const SYS_io_uring_enter = 426;

/** linux/io_uring.h. */
const IORING_SETUP_CLAMP = 1 << 4;
const IORING_SETUP_SUBMIT_ALL = 1 << 7;
const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN = 1 << 13;
/** What comes of operations is dealt with in `enter`, which a flag in the ring says is worth while. */
const SETUP =
  IORING_SETUP_CLAMP |
  IORING_SETUP_SUBMIT_ALL |
  IORING_SETUP_TASKRUN_FLAG |
  IORING_SETUP_SINGLE_ISSUER |
  IORING_SETUP_DEFER_TASKRUN;
const IORING_SQ_TASKRUN = 1 << 2;
const IORING_FEAT_SINGLE_MMAP = 1 << 0;
const IORING_FEAT_CQE_SKIP = 1 << 11;
const IORING_OFF_SQ_RING = 0;
const IORING_OFF_SQES = 0x10000000;
const IORING_ENTER_GETEVENTS = 1 << 0;
const IORING_OP_POLL_ADD = 6;
const POLLIN = 1;
const IORING_OP_READ = 22;
const IORING_OP_WRITE = 23;
/** In the second byte of an entry's first word. */
const IOSQE_IO_LINK = 1 << (8 + 2);
const IOSQE_CQE_SKIP_SUCCESS = 1 << (8 + 6);

/** mmap(2) (asm-generic/mman-common.h). */
const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;

const WORD = 4;
/** `struct io_uring_params`, in words. */
const PARAMS = { FLAGS: 2, FEATURES: 5, SQ: 10, CQ: 20, WORDS: 30 } as const;
/** `struct io_sqring_offsets` and `struct io_cqring_offsets`, in words. */
const SQ = { TAIL: 1, MASK: 2, ENTRIES: 3, FLAGS: 4, ARRAY: 6 } as const;
const CQ = { HEAD: 0, TAIL: 1, MASK: 2, ENTRIES: 3, CQES: 5 } as const;
const SQE_WORDS = 16;
const CQE_WORDS = 4;
const HIGH_WORD = 2 ** 32;

export class Ring {
  /** What the last `next` found: the number given to the operation, and its result or its errno negated. */
  token = 0;
  result = 0;
  /** Operations that have not been handed over yet. */
  laidDown = 0;

  readonly #fd: number;
  readonly #ring: Int32Array;
  readonly #entries: Int32Array;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #sqFlags: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  readonly #capacity: number;
  #tail: number;

  private constructor(fd: number, params: Int32Array) {
    const at = (group: number, field: number): number => (params[group + field] as number) / WORD;
    const sqes = params[0] as number;
    const cqes = params[1] as number;
    const ringBytes = Math.max(
      (params[PARAMS.SQ + SQ.ARRAY] as number) + sqes * WORD,
      (params[PARAMS.CQ + CQ.CQES] as number) + cqes * CQE_WORDS * WORD,
    );
    this.#fd = fd;
    this.#ring = map(fd, ringBytes, IORING_OFF_SQ_RING);
    this.#entries = map(fd, sqes * SQE_WORDS * WORD, IORING_OFF_SQES);
    this.#sqTail = at(PARAMS.SQ, SQ.TAIL);
    this.#sqMask = this.#ring[at(PARAMS.SQ, SQ.MASK)] as number;
    this.#sqFlags = at(PARAMS.SQ, SQ.FLAGS);
    this.#cqHead = at(PARAMS.CQ, CQ.HEAD);
    this.#cqTail = at(PARAMS.CQ, CQ.TAIL);
    this.#cqMask = this.#ring[at(PARAMS.CQ, CQ.MASK)] as number;
    this.#cqes = at(PARAMS.CQ, CQ.CQES);
    this.#capacity = sqes;
    this.#tail = this.#ring[this.#sqTail] as number;
    const array = at(PARAMS.SQ, SQ.ARRAY);
    for (let index = 0; index < sqes; index++) this.#ring[array + index] = index;
  }

  /**
   * Needs Linux 6.1, and leave to use it (sysctl kernel.io_uring_disabled, seccomp).
   *
   * @param entries operations that can be laid down between two calls of `enter`, a power of two
   * @returns the ring, or the errno of a kernel that has none for us
   */
  static open(entries: number): Ring | Errno {
    const params = new Int32Array(PARAMS.WORDS);
    const fd = setUp(entries, params);
    if (fd < 0) return -fd;
    const needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_CQE_SKIP;
    if (((params[PARAMS.FEATURES] as number) & needed) !== needed)
      throw new Error('a kernel with DEFER_TASKRUN lacks CQE_SKIP');
    return new Ring(fd, params);
  }

  /** What `open` would say: 0, or the errno of a kernel that has no such ring for us. */
  static probe(entries: number): Errno {
    const ring = setUp(entries, new Int32Array(PARAMS.WORDS));
    if (ring < 0) return -ring;
    closeSync(ring);
    return OK;
  }

  /**
   * Lays down a read(2) or pread(2).
   *
   * @param address of memory that stays where it is until the operation has ended
   * @param offset -1 for a descriptor that has none
   */
  read(fd: number, offset: number, address: number, length: number, token: number): void {
    this.#lay(IORING_OP_READ, fd, offset, address, length, token);
  }

  /** Lays down a wait until a descriptor has something to read. */
  readable(fd: number, token: number): void {
    this.#lay(IORING_OP_POLL_ADD, fd, 0, 0, 0, token, POLLIN);
  }

  /** Lays down a write(2) or pwrite(2). */
  write(fd: number, offset: number, address: number, length: number, token: number): void {
    this.#lay(IORING_OP_WRITE, fd, offset, address, length, token);
  }

  /**
   * As `read`, and the operation laid down next begins when this one is done and has read everything; else that one never
   * does. There is word of one of them only: of this one where it failed or read less, else of the next
   * (io_uring_enter(2), IOSQE_CQE_SKIP_SUCCESS).
   */
  readThen(fd: number, offset: number, address: number, length: number, token: number): void {
    this.#lay(IORING_OP_READ | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS, fd, offset, address, length, token);
  }

  /** As `write`, likewise. */
  writeThen(fd: number, offset: number, address: number, length: number, token: number): void {
    this.#lay(IORING_OP_WRITE | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS, fd, offset, address, length, token);
  }

  /**
   * Hands over what was laid down, and waits until at least `least` operations have ended.
   *
   * @throws with the errno, which only a defect can bring
   */
  enter(least: number): void {
    this.#ring[this.#sqTail] = this.#tail;
    for (;;) {
      const taken = cEnter(
        SYS_io_uring_enter,
        this.#fd,
        this.laidDown,
        least,
        IORING_ENTER_GETEVENTS,
        null,
        0,
      ) as number;
      if (taken >= 0) {
        this.laidDown -= taken;
        if (this.laidDown === 0) return;
        continue;
      }
      const errno = koffi.errno();
      if (errno !== EINTR) throw new Error(`io_uring_enter: errno ${errno}`);
    }
  }

  /** Whether `next` would find something. */
  get hasEnded(): boolean {
    return this.#ring[this.#cqHead] !== this.#ring[this.#cqTail];
  }

  /** Whether `enter` would have something to deal with, of what was handed over. */
  get isDue(): boolean {
    return (Atomics.load(this.#ring, this.#sqFlags) & IORING_SQ_TASKRUN) !== 0;
  }

  /** Takes the next operation that has ended into `token` and `result`; false when there is none. */
  next(): boolean {
    const ring = this.#ring;
    const head = ring[this.#cqHead] as number;
    if (head === ring[this.#cqTail]) return false;
    const at = this.#cqes + (head & this.#cqMask) * CQE_WORDS;
    this.token = ring[at] as number;
    this.result = ring[at + 2] as number;
    ring[this.#cqHead] = (head + 1) | 0;
    return true;
  }

  #lay(operation: number, fd: number, offset: number, address: number, length: number, token: number, flags = 0): void {
    // To hand over what is there would part an operation from the one that has to come before it.
    if (this.laidDown === this.#capacity) throw new Error('the ring is full');
    const entries = this.#entries;
    const at = (this.#tail & this.#sqMask) * SQE_WORDS;
    this.#tail = (this.#tail + 1) | 0;
    this.laidDown++;
    entries[at] = operation;
    entries[at + 1] = fd;
    entries[at + 2] = offset % HIGH_WORD;
    entries[at + 3] = Math.floor(offset / HIGH_WORD);
    entries[at + 4] = address % HIGH_WORD;
    entries[at + 5] = address / HIGH_WORD;
    entries[at + 6] = length;
    entries[at + 7] = flags;
    entries[at + 8] = token;
    entries[at + 9] = 0;
    entries[at + 10] = 0;
    entries[at + 11] = 0;
  }
}

/** The descriptor, or the errno negated. */
function setUp(entries: number, params: Int32Array): number {
  params[PARAMS.FLAGS] = SETUP;
  const fd = Number(cSetup(SYS_io_uring_setup, entries, params));
  return fd < 0 ? -koffi.errno() : fd;
}

/**
 * The address of shared memory, which never moves.
 *
 * @returns below 2^53: no architecture has user addresses as high
 */
export function addressOf(memory: Uint8Array<SharedArrayBuffer>): number {
  return Number(koffi.address(memory));
}

function map(fd: number, bytes: number, offset: number): Int32Array {
  const place = cMmap(null, bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset);
  if (koffi.address(place) === 0xffff_ffff_ffff_ffffn) throw new Error(`io_uring: mmap: errno ${koffi.errno()}`);
  return new Int32Array(koffi.view(place, bytes));
}
