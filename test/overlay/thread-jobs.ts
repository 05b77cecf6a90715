/**
 * What test threads do, by name; the entry of every such thread (see `threads.ts`). Jobs are plain data. Where a test
 * replays what its threads did, both take the steps from the same generator.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Base, type BaseDescriptor } from '../../src/base/base.ts';
import { OK } from '../../src/lib/errno.ts';
import { lock, unlock } from '../../src/lib/mutex.ts';
import type { Quotas } from '../../src/overlay/account.ts';
import { Arena } from '../../src/overlay/arena.ts';
import { BLOCK_BYTES, type BlockState, STORE, ZERO } from '../../src/overlay/block.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import { BlockMap } from '../../src/overlay/map.ts';
import { RangeLock, STRIPES } from '../../src/overlay/range-lock.ts';
import { type OverlayMemory, Sessions } from '../../src/overlay/sessions.ts';
import { StoreDirectory } from '../../src/overlay/store-directory.ts';
import { HandOver, SLOTS } from '../../src/transport/kernel/hand-over.ts';
import { nonZeroBytes, Random } from './random.ts';

/** An overlay as it goes to a thread. */
export interface OverlayTask {
  readonly base: BaseDescriptor;
  readonly storeDirectoryFd: number;
  readonly memory: OverlayMemory;
  /** Number of the thread. */
  readonly thread: number;
  readonly quotas: Quotas;
  /** Whether fresh disks are clones of the base. */
  readonly clonesBase?: boolean;
}

/** One of its disks. */
export interface DiskTask extends OverlayTask {
  readonly session: number;
}

export type Job =
  | { readonly kind: 'count'; readonly mutex: SharedArrayBuffer; readonly times: number }
  | {
      readonly kind: 'map';
      readonly arena: SharedArrayBuffer;
      readonly control: SharedArrayBuffer;
      readonly steps: MapSteps;
    }
  | {
      readonly kind: 'ranges';
      readonly stripes: SharedArrayBuffer;
      /** One plain Int32 a region of 16 blocks, as the test counts them. */
      readonly counters: SharedArrayBuffer;
      readonly steps: RangeSteps;
    }
  | {
      readonly kind: 'write-parts';
      readonly disk: DiskTask;
      readonly blocks: number;
      /** Bytes of each block that this thread writes. */
      readonly inBlock: number;
      readonly length: number;
      readonly fill: number;
    }
  | {
      readonly kind: 'punch-parts';
      readonly disk: DiskTask;
      readonly blocks: number;
      readonly inBlock: number;
      readonly length: number;
    }
  | { readonly kind: 'churn'; readonly disk: DiskTask; readonly steps: ChurnSteps }
  | { readonly kind: 'flip'; readonly disk: DiskTask; readonly stop: SharedArrayBuffer; readonly times: number }
  | { readonly kind: 'visit'; readonly disk: DiskTask; readonly flags: SharedArrayBuffer }
  | { readonly kind: 'close'; readonly disk: DiskTask; readonly flags: SharedArrayBuffer; readonly times: number }
  | { readonly kind: 'stay'; readonly disk: DiskTask; readonly flags: SharedArrayBuffer }
  | { readonly kind: 'close-in-vain'; readonly disk: DiskTask; readonly flags: SharedArrayBuffer }
  | { readonly kind: 'give'; readonly handOver: SharedArrayBuffer; readonly count: number }
  | { readonly kind: 'take'; readonly handOver: SharedArrayBuffer }
  | { readonly kind: 'read-unaligned'; readonly disk: DiskTask; readonly stop: SharedArrayBuffer };

export type JobMessage = { readonly code: 'READY' } | { readonly code: 'DONE'; readonly result: unknown };

export interface MapSteps {
  readonly seed: number;
  readonly count: number;
  readonly thread: number;
  readonly threads: number;
}

/** Sets of states within regions (or whole leaves) that belong to one thread alone; leaves and nodes are shared. */
export function* mapSteps({ seed, count, thread, threads }: MapSteps): Generator<[number, number, BlockState]> {
  const random = new Random(seed + thread);
  // All walk the same fresh leaves at once, so that they meet where a node is made.
  for (let leaf = 0; leaf < count; leaf++) yield [(2 ** 25 + leaf * 700) * 1024 + thread * 16, 16, STORE];
  for (let step = 0; step < count; step++) {
    const state = random.below(4) as BlockState;
    // Near many places, the borders of nodes among them, so that the arena grows under way.
    const near = random.below(60) * 2 ** 31 + 2 ** 20 - 40_960;
    if (random.below(20) === 0) {
      const leaf = Math.floor(near / 1024) + 60 * threads + random.below(20) * threads + thread;
      yield [leaf * 1024, 1024, state];
    } else {
      const region = Math.floor(near / 16) + random.below(700) * threads + thread;
      const from = random.below(16);
      yield [region * 16 + from, 1 + random.below(16 - from), state];
    }
  }
}

export interface RangeSteps {
  readonly seed: number;
  readonly count: number;
}

/** First and last region of ranges that overlap, wrap around the 256 stripes, or take all of them. */
export function* rangeSteps({ seed, count }: RangeSteps): Generator<[number, number]> {
  const random = new Random(seed);
  for (let step = 0; step < count; step++) {
    const kind = random.below(10);
    if (kind === 0) yield [random.below(100), STRIPES + random.below(100)];
    else if (kind < 5) yield [STRIPES - 16 + random.below(16), STRIPES + random.below(16)];
    else {
      const from = random.below(32);
      yield [from, from + random.below(3)];
    }
  }
}

export interface ChurnSteps {
  readonly seed: number;
  readonly count: number;
  readonly thread: number;
  readonly threads: number;
  readonly regions: number;
}

export type ChurnStep = readonly ['write' | 'discard' | 'allocate', offset: number, length: number, seed: number];

/** Changes of bytes in regions of 64 KiB that belong to one thread alone. */
export function* churnSteps({ seed, count, thread, threads, regions }: ChurnSteps): Generator<ChurnStep> {
  const random = new Random(seed + thread * 1009);
  for (let step = 0; step < count; step++) {
    const region = random.below(regions) * threads + thread;
    const from = random.below(65536);
    const length = 1 + random.below(Math.min(20_000, 65536 - from));
    const what = (['write', 'write', 'discard', 'discard', 'allocate'] as const)[random.below(5)] ?? 'write';
    yield [what, region * 65536 + from, length, random.below(2 ** 31)];
  }
}

/** Int32 slots of what threads at a gate tell each other. */
export const GATE_FLAGS = { INSIDE: 0, CLOSED: 1, STOP: 2, STAYS: 3, COUNT: 4 } as const;

/** In and out until it is told to stop; how often it was inside of a closed gate. */
function visit({ gate }: Sessions, session: number, flags: Int32Array): { visits: number; wrong: number } {
  let [visits, wrong] = [0, 0];
  do {
    gate.enter(session);
    Atomics.add(flags, GATE_FLAGS.INSIDE, 1);
    if (Atomics.load(flags, GATE_FLAGS.CLOSED) !== 0) wrong++;
    Atomics.sub(flags, GATE_FLAGS.INSIDE, 1);
    gate.leave();
    visits++;
  } while (Atomics.load(flags, GATE_FLAGS.STOP) === 0);
  return { visits, wrong };
}

/** Closes the gate again and again; how often somebody was inside then, or it did not close. */
function close({ gate }: Sessions, session: number, flags: Int32Array, times: number): { wrong: number } {
  let wrong = 0;
  for (let time = 0; time < times; time++) {
    if (!gate.close(session, 30_000)) wrong++;
    Atomics.store(flags, GATE_FLAGS.CLOSED, 1);
    for (let look = 0; look < 200; look++) if (Atomics.load(flags, GATE_FLAGS.INSIDE) !== 0) wrong++;
    Atomics.store(flags, GATE_FLAGS.CLOSED, 0);
    gate.open(session);
  }
  Atomics.store(flags, GATE_FLAGS.STOP, 1);
  return { wrong };
}

export function openSessions({ base, storeDirectoryFd, ...task }: OverlayTask): Sessions {
  return new Sessions({ ...task, base: new Base(base), directory: new StoreDirectory(storeDirectoryFd) });
}

function openDisk(task: DiskTask): Disk {
  return openSessions(task).open(task.session);
}

/** Gives requests of the lengths 0, 1, 2, ..., each in a slot that is free, then ends; how many. */
function give(handOver: HandOver, count: number): number {
  const free = Array.from({ length: SLOTS }, (_, slot) => slot);
  const takeBack = (): void => {
    const bits = handOver.takeBack();
    for (let slot = 0; slot < SLOTS; slot++) if ((bits & (1 << slot)) !== 0) free.push(slot);
  };
  let given = 0;
  while (given < count || free.length < SLOTS) {
    takeBack();
    const slot = given < count ? free.pop() : undefined;
    if (slot !== undefined) handOver.give(slot, given++);
    else if (free.length < SLOTS) handOver.waitForSlot();
  }
  handOver.end();
  return given;
}

/** Takes until the end; the lengths of what it got. */
function take(handOver: HandOver): number[] {
  const lengths: number[] = [];
  for (;;) {
    const slot = handOver.take();
    if (slot < 0) return lengths;
    lengths.push(handOver.length);
    handOver.release(slot);
  }
}

function run(job: Job): unknown {
  switch (job.kind) {
    case 'count': {
      const words = new Int32Array(job.mutex);
      for (let time = 0; time < job.times; time++) {
        lock(words, 0);
        words[1] = (words[1] as number) + 1;
        unlock(words, 0);
      }
      return undefined;
    }
    case 'map': {
      const map = new BlockMap(new Arena(job.arena), new Int32Array(job.control));
      for (const [first, count, state] of mapSteps(job.steps)) map.set(first, count, state);
      return undefined;
    }
    case 'give':
      return give(new HandOver(job.handOver), job.count);
    case 'take':
      return take(new HandOver(job.handOver));
    case 'ranges': {
      const locks = new RangeLock(new Int32Array(job.stripes));
      const counters = new Int32Array(job.counters);
      for (const [first, last] of rangeSteps(job.steps)) {
        locks.lock(first * 16 + 3, last * 16 + 9);
        for (let region = first; region <= last; region++) {
          const slot = region % STRIPES;
          counters[slot] = (counters[slot] as number) + 1;
        }
        locks.unlock(first * 16 + 3, last * 16 + 9);
      }
      return undefined;
    }
    case 'write-parts': {
      const disk = openDisk(job.disk);
      const bytes = Buffer.alloc(job.length, job.fill);
      for (let block = 0; block < job.blocks; block++) {
        const errno = disk.write(block * BLOCK_BYTES + job.inBlock, job.length, bytes, 0);
        if (errno !== OK) return errno;
      }
      return OK;
    }
    case 'punch-parts': {
      const disk = openDisk(job.disk);
      for (let block = 0; block < job.blocks; block++) {
        const errno = disk.discard(block * BLOCK_BYTES + job.inBlock, job.length);
        if (errno !== OK) return errno;
      }
      return OK;
    }
    case 'churn': {
      const disk = openDisk(job.disk);
      for (const [what, offset, length, seed] of churnSteps(job.steps)) {
        let errno: number;
        if (what === 'write') errno = disk.write(offset, length, nonZeroBytes(length, seed), 0);
        else if (what === 'discard') errno = disk.discard(offset, length);
        else errno = disk.allocate(offset, length, true);
        if (errno !== OK) return errno;
      }
      return OK;
    }
    case 'flip': {
      const { map } = openDisk(job.disk).layer;
      for (let time = 0; time < job.times; time++) map.set(0, 1, time % 2 === 0 ? STORE : ZERO);
      Atomics.store(new Int32Array(job.stop), 0, 1);
      return undefined;
    }
    case 'visit':
      return visit(openSessions(job.disk), job.disk.session, new Int32Array(job.flags));
    case 'close':
      return close(openSessions(job.disk), job.disk.session, new Int32Array(job.flags), job.times);
    case 'stay': {
      const { gate } = openSessions(job.disk);
      const flags = new Int32Array(job.flags);
      gate.enter(job.disk.session);
      Atomics.store(flags, GATE_FLAGS.STAYS, 1);
      Atomics.notify(flags, GATE_FLAGS.STAYS);
      Atomics.wait(flags, GATE_FLAGS.STOP, 0);
      gate.leave();
      return undefined;
    }
    case 'close-in-vain': {
      const { gate } = openSessions(job.disk);
      const flags = new Int32Array(job.flags);
      Atomics.wait(flags, GATE_FLAGS.STAYS, 0);
      const isClosed = gate.close(job.disk.session, 50);
      Atomics.store(flags, GATE_FLAGS.STOP, 1);
      Atomics.notify(flags, GATE_FLAGS.STOP);
      return isClosed;
    }
    case 'read-unaligned': {
      const disk = openDisk(job.disk);
      const stop = new Int32Array(job.stop);
      const bytes = Buffer.alloc(3 * BLOCK_BYTES, 0xee);
      while (Atomics.load(stop, 0) === 0) {
        const errno = disk.read(1001, 100, bytes, BLOCK_BYTES);
        if (errno !== OK) return `errno ${errno}`;
        if (disk.transferred !== 100) return `${disk.transferred} bytes`;
        if (bytes[BLOCK_BYTES - 1] !== 0xee || bytes[BLOCK_BYTES + 100] !== 0xee) return 'wrote beside the buffer';
      }
      return 'fine';
    }
  }
}

if (parentPort !== null && typeof workerData === 'object' && workerData !== null && 'job' in workerData) {
  const { job, gate } = workerData as { job: Job; gate: SharedArrayBuffer };
  parentPort.postMessage({ code: 'READY' } satisfies JobMessage);
  Atomics.wait(new Int32Array(gate), 0, 0);
  parentPort.postMessage({ code: 'DONE', result: run(job) } satisfies JobMessage);
}
