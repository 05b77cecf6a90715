/**
 * What threads of `sync-threads.test.ts` do to a kept disk, and the entry of each. Jobs are plain data. A thread's own
 * blocks are written by nobody else, so it knows what has to be in the file once its sync has returned.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { Base, type BaseDescriptor } from '../../../src/base/base.ts';
import { type Errno, OK } from '../../../src/lib/errno.ts';
import type { Disk } from '../../../src/overlay/disk.ts';
import { MAP_OFFSET, PAGE_BYTES, PAGE_SPAN_BYTES } from '../../../src/overlay/file/layout.ts';
import { loadMap, specOf } from '../../../src/overlay/file/load.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import { OverlayFile, type OverlayFileSpec } from '../../../src/overlay/file/overlay-file.ts';
import { type OverlayMemory, Sessions } from '../../../src/overlay/sessions.ts';
import { StoreDirectory } from '../../../src/overlay/store-directory.ts';
import { nonZeroBytes, Random } from '../random.ts';

const REGION = 65_536;
/** In each of two pages of the map. */
const REGIONS = 4;

export interface KeptTask {
  readonly path: string;
  readonly spec: OverlayFileSpec;
  readonly memory: OverlayMemory;
  readonly base: BaseDescriptor;
  readonly session: number;
  /** Number of the thread in the mount, from 1 on, and of all that write. */
  readonly thread: number;
  readonly threads: number;
}

export type SyncJob =
  | { readonly kind: 'write-and-look'; readonly task: KeptTask; readonly seed: number; readonly rounds: number }
  | { readonly kind: 'keep-syncing'; readonly task: KeptTask; readonly stop: SharedArrayBuffer }
  | { readonly kind: 'write-and-sync'; readonly task: KeptTask; readonly offset: number; readonly byte: number };

export interface Looked {
  readonly syncs: number;
  readonly copies: number;
  readonly retries: number;
  /** What was wrong, in words. */
  readonly complaint: string | undefined;
}

export type SyncMessage = { readonly code: 'READY' } | { readonly code: 'DONE'; readonly result: unknown };

/** Where a thread's own regions are. */
function regionsOf(thread: number, threads: number): number[] {
  const places = Array.from({ length: REGIONS }, (_, index) => (index * threads + thread - 1) * REGION);
  return [...places, ...places.map((place) => PAGE_SPAN_BYTES + place)];
}

function openTask({ memory, base, spec, session, thread }: KeptTask): { sessions: Sessions; disk: Disk } {
  const sessions = new Sessions({
    memory,
    thread,
    base: new Base(base),
    directory: new StoreDirectory(-1),
    quotas: { maxStoreBytes: undefined, maxSessionStoreBytes: undefined },
    file: new OverlayFile(spec),
  });
  return { sessions, disk: sessions.open(session) };
}

function readOf(disk: Disk, offset: number): Buffer {
  const bytes = Buffer.alloc(REGION);
  const errno = disk.read(offset, REGION, bytes, 0);
  if (errno !== OK) throw new Error(`read at ${offset}: errno ${errno}`);
  return bytes;
}

/** Header, map and these regions of the file, as they are at one moment; undefined if a header came in between. */
function copyAtOnce(from: number, into: string, offsets: readonly number[], dataOffset: number): boolean {
  const bytesAt = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, readSync(from, bytes, 0, length, offset));
  };
  const headers = bytesAt(0, MAP_OFFSET);
  const map = bytesAt(MAP_OFFSET, 8 * PAGE_BYTES);
  const data = offsets.map((offset) => bytesAt(dataOffset + offset, REGION));
  const { size } = fstatSync(from);
  // While the header stays, only what is not in force changes.
  if (!bytesAt(0, MAP_OFFSET).equals(headers)) return false;
  const fd = openSync(into, 'w');
  writeSync(fd, headers, 0, headers.length, 0);
  writeSync(fd, map, 0, map.length, MAP_OFFSET);
  for (const [index, offset] of offsets.entries()) {
    const bytes = data[index] as Buffer;
    writeSync(fd, bytes, 0, bytes.length, dataOffset + offset);
  }
  ftruncateSync(fd, size);
  closeSync(fd);
  return true;
}

/** What is wrong with a copy of the file, by what its regions have to be. */
function complaintOf(
  path: string,
  base: BaseDescriptor,
  offsets: readonly number[],
  expected: readonly Buffer[],
): string | undefined {
  const opened = openOverlay(path, 'overlay', 'read');
  const spec = specOf(opened);
  const memory = Sessions.create(1);
  try {
    const { sessions } = openTask({ path, spec, memory, base, session: 0, thread: 0, threads: 1 });
    const session = sessions.create(opened.header.diskBytes);
    sessions.kept.keep(session, opened.fd, opened.header, (layer) => loadMap(opened, spec, layer.map));
    const disk = sessions.open(session);
    const wrong = offsets.findIndex((offset, index) => !readOf(disk, offset).equals(expected[index] as Buffer));
    return wrong < 0 ? undefined : `the region at ${offsets[wrong]} is not what was synced`;
  } catch (error) {
    return String(error);
  } finally {
    closeSync(opened.fd);
  }
}

function writeAndLook(task: KeptTask, seed: number, rounds: number): Looked {
  const { disk } = openTask(task);
  const random = new Random(seed + task.thread);
  const offsets = regionsOf(task.thread, task.threads);
  const expected = offsets.map((offset) => readOf(disk, offset));
  const from = openSync(task.path, 'r');
  const copy = `${task.path}.copy-${task.thread}`;
  let syncs = 0;
  let copies = 0;
  let retries = 0;
  let complaint: string | undefined;
  for (; syncs < rounds && complaint === undefined; syncs++) {
    for (let change = random.below(4); change >= 0; change--) {
      const index = random.below(offsets.length);
      const at = random.below(REGION);
      const length = 1 + random.below(Math.min(REGION - at, 20_000));
      const bytes = nonZeroBytes(length, random.below(2 ** 30));
      const isTrim = random.below(3) === 0;
      const offset = (offsets[index] as number) + at;
      const errno = isTrim ? disk.discard(offset, length) : disk.write(offset, length, bytes, 0);
      if (errno !== OK) throw new Error(`change at ${offset}: errno ${errno}`);
      if (isTrim) expected[index]?.fill(0, at, at + length);
      else expected[index]?.set(bytes, at);
    }
    const errno = disk.layer.sync();
    if (errno !== OK) throw new Error(`sync: errno ${errno}`);
    for (let look = 0; look < 20; look++) {
      if (copyAtOnce(from, copy, offsets, task.spec.header.dataOffset)) {
        copies += 1;
        complaint = complaintOf(copy, task.base, offsets, expected);
        unlinkSync(copy);
        break;
      }
      retries += 1;
    }
  }
  closeSync(from);
  return { syncs, copies, retries, complaint };
}

function keepSyncing(task: KeptTask, stop: Int32Array): number {
  const { sessions } = openTask(task);
  let syncs = 0;
  while (Atomics.load(stop, 0) === 0) {
    const errno = sessions.kept.sync();
    if (errno !== OK) throw new Error(`sync: errno ${errno}`);
    syncs += 1;
  }
  return syncs;
}

function writeAndSync(task: KeptTask, offset: number, byte: number): Errno {
  const { disk } = openTask(task);
  const errno = disk.write(offset, 1, Buffer.from([byte]), 0);
  return errno === OK ? disk.layer.sync() : errno;
}

function run(job: SyncJob): unknown {
  switch (job.kind) {
    case 'write-and-look':
      return writeAndLook(job.task, job.seed, job.rounds);
    case 'keep-syncing':
      return keepSyncing(job.task, new Int32Array(job.stop));
    case 'write-and-sync':
      return writeAndSync(job.task, job.offset, job.byte);
  }
}

if (parentPort !== null && typeof workerData === 'object' && workerData !== null && 'syncJob' in workerData) {
  const { syncJob, gate } = workerData as { syncJob: SyncJob; gate: SharedArrayBuffer };
  parentPort.postMessage({ code: 'READY' } satisfies SyncMessage);
  Atomics.wait(new Int32Array(gate), 0, 0);
  parentPort.postMessage({ code: 'DONE', result: run(syncJob) } satisfies SyncMessage);
}
