/**
 * Several threads that write to a kept disk and sync it at the same time: when a sync returns, the file has what its
 * thread has written; and one that waits for another takes its work only if that began later. COWFS_SEED repeats what
 * is written, not how the threads meet.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { EIO, OK } from '../../../src/lib/errno.ts';
import { lock, unlock } from '../../../src/lib/mutex.ts';
import { KEPT, KeptMemory } from '../../../src/overlay/file/kept-memory.ts';
import { PAGE_LEAVES, PAGE_SPAN_BYTES } from '../../../src/overlay/file/layout.ts';
import { OverlayFile } from '../../../src/overlay/file/overlay-file.ts';
import { readHeaders } from '../../../src/overlay/file/slots.ts';
import { poll } from '../../harness.ts';
import { readDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { basePath, fastScratch, type KeptMount, mountKept } from './kept-disk.ts';
import type { KeptTask, Looked, SyncJob, SyncMessage } from './sync-jobs.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const PROJECT = resolve(import.meta.dirname, '../../..');
const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const DISK = 2 * PAGE_SPAN_BYTES;
/** Of a mutex that somebody waits for (lib/mutex.ts). */
const CONTENDED = 2;

let compiled = '';

// As in ../threads.ts: Node 20 cannot load TypeScript in a worker.
beforeAll(() => {
  compiled = mkdtempSync(join(process.env['COWFS_TEST_DIR'] ?? '/var/tmp', 'cowfs-sync-threads-'));
  symlinkSync(join(PROJECT, 'node_modules'), join(compiled, 'node_modules'));
  writeFileSync(join(compiled, 'package.json'), '{"type":"module"}');
  const config = {
    extends: join(PROJECT, 'tsconfig.json'),
    compilerOptions: { rootDir: PROJECT, outDir: join(compiled, 'out'), noCheck: true, sourceMap: false },
    files: [join(import.meta.dirname, 'sync-jobs.ts')],
    include: [],
  };
  writeFileSync(join(compiled, 'tsconfig.json'), JSON.stringify(config));
  execFileSync(join(PROJECT, 'node_modules/.bin/tsc'), ['-p', compiled]);
});
afterAll(() => rmSync(compiled, { recursive: true, force: true }));

/** Starts every job on a thread of its own, all let go at once; what each will return. */
async function startThreads(jobs: readonly SyncJob[]): Promise<Promise<unknown>[]> {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const entry = join(compiled, 'out/test/overlay/file/sync-jobs.js');
  const workers = jobs.map(
    (syncJob) => new Worker(entry, { workerData: { syncJob, gate: gate.buffer }, trackUnmanagedFds: false }),
  );
  onTestFinished(async () => {
    await Promise.all(workers.map((worker) => worker.terminate()));
  });
  const first = (worker: Worker, code: SyncMessage['code']): Promise<unknown> =>
    new Promise((done, fail) => {
      worker.on('message', (message: SyncMessage) => {
        if (message.code === code) done(message.code === 'DONE' ? message.result : undefined);
      });
      worker.once('error', fail);
      worker.once('exit', () => fail(new Error(`a thread ended before ${code}`)));
    });
  const results = workers.map((worker) => first(worker, 'DONE'));
  for (const result of results) result.catch(() => {});
  await Promise.all(workers.map((worker) => first(worker, 'READY')));
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  return results;
}

function useKept(): { mount: KeptMount; path: string; task: (thread: number, threads: number) => KeptTask } {
  const directory = fastScratch();
  writeFileSync(basePath(directory), nonZeroBytes(200_000, 1));
  const path = join(directory, 'vm.cow');
  const mount = mountKept(path, basePath(directory), DISK);
  onTestFinished(() => mount.close());
  const { spec, memory, base, session } = mount;
  return { mount, path, task: (thread, threads) => ({ path, spec, memory, base, session, thread, threads }) };
}

test('when a sync returns, what its thread has written is in the file', async () => {
  const { mount, path, task } = useKept();
  const threads = 3;
  const rounds = 100;
  const stop = new SharedArrayBuffer(4);
  const jobs: SyncJob[] = Array.from({ length: threads }, (_, index) => ({
    kind: 'write-and-look',
    task: task(index + 1, threads),
    seed: SEED,
    rounds,
  }));
  const started = await startThreads([...jobs, { kind: 'keep-syncing', task: task(threads + 1, threads), stop }]);
  let looked: Looked[];
  try {
    looked = (await Promise.all(started.slice(0, threads))) as Looked[];
  } finally {
    Atomics.store(new Int32Array(stop), 0, 1);
  }
  const kept = await started[threads];
  const sum = (pick: (each: Looked) => number): number => looked.reduce((total, each) => total + pick(each), 0);
  const generation = readHeaders(path, mount.spec.fd).header?.generation;
  console.log(
    `COWFS_SEED=${SEED}: ${sum(({ syncs }) => syncs)} syncs of ${threads} threads and ${kept} of a keeper in ${generation} generations; ${sum(({ copies }) => copies)} copies opened, ${sum(({ retries }) => retries)} taken anew`,
  );
  expect(
    looked.map(({ complaint }) => complaint),
    `COWFS_SEED=${SEED}`,
  ).toEqual(looked.map(() => undefined));
  expect(sum(({ copies }) => copies)).toBeGreaterThan(threads * 10);
});

test('what is written while its page is copied comes with the next sync', () => {
  const directory = fastScratch();
  writeFileSync(basePath(directory), nonZeroBytes(200_000, 1));
  const path = join(directory, 'vm.cow');
  const mount = mountKept(path, basePath(directory), DISK);
  const { disk, spec } = mount;
  const write = (block: number, byte: number): number => disk.write(block * 4096, 4096, Buffer.alloc(4096, byte), 0);
  expect(write(0, 1)).toBe(OK);
  const { map, extent, store } = disk.layer;
  // As another thread would, between the copy of the page's last leaf and whatever comes next.
  let copied = 0;
  const between = new Proxy(map, {
    get: (target, key) => {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      if (key !== 'copyLeaf') return value.bind(target);
      return (leaf: number, into: Int32Array, at: number): void => {
        target.copyLeaf(leaf, into, at);
        copied += 1;
        if (copied === PAGE_LEAVES) expect(write(1, 2)).toBe(OK);
      };
    },
  });
  expect(new OverlayFile(spec).sync({ map: between, extent, store })).toBe(OK);
  expect(copied).toBe(PAGE_LEAVES);
  expect(mount.sessions.kept.sync()).toBe(OK);
  mount.close();
  const again = mountKept(path, basePath(directory));
  expect([readDisk(again.disk, 0, 1)[0], readDisk(again.disk, 4096, 1)[0]]).toEqual([1, 2]);
  again.close();
});

describe('a sync that has to wait for another', () => {
  /** A thread that has written a byte and waits for the mutex, which is held here. */
  async function useWaiting(prepare: (words: Int32Array) => void = () => {}) {
    const { mount, path, task } = useKept();
    const { words } = new KeptMemory(mount.spec.memory, mount.spec.header.mapPages);
    const generation = (): number => readHeaders(path, mount.spec.fd).header?.generation ?? 0;
    expect(mount.disk.write(0, 1, Buffer.from([1]), 0)).toBe(OK);
    expect(mount.sessions.kept.sync()).toBe(OK);
    prepare(words);
    lock(words, KEPT.MUTEX);
    const before = generation();
    return {
      words,
      generations: () => generation() - before,
      /** Lets it come to where it waits. */
      arrive: async () => {
        const [errno] = await startThreads([{ kind: 'write-and-sync', task: task(1, 1), offset: 9 * 4096, byte: 7 }]);
        await poll('the thread waits', () => Atomics.load(words, KEPT.MUTEX) === CONTENDED);
        return { errno };
      },
      isInFile: () => {
        const byte = Buffer.alloc(1);
        readSync(mount.spec.fd, byte, 0, 1, mount.spec.header.dataOffset + 9 * 4096);
        return generation() > before && byte[0] === 7 && readDisk(mount.disk, 9 * 4096, 1)[0] === 7;
      },
    };
  }

  const begin = (words: Int32Array): void => {
    Atomics.add(words, KEPT.STARTED, 1);
  };
  const succeed = (words: Int32Array): void => {
    Atomics.store(words, KEPT.SUCCEEDED, Atomics.load(words, KEPT.STARTED));
  };
  /** Counters before they turn negative. */
  const nearTheEnd = (words: Int32Array): void => {
    Atomics.store(words, KEPT.STARTED, 2 ** 31 - 1);
    Atomics.store(words, KEPT.SUCCEEDED, 2 ** 31 - 1);
  };

  test.each([
    ['', undefined],
    [', where the counters turn over', nearTheEnd],
  ])('takes the work of one that began after it came%s', async (_, prepare) => {
    const { words, arrive, generations } = await useWaiting(prepare);
    const { errno } = await arrive();
    begin(words);
    succeed(words);
    unlock(words, KEPT.MUTEX);
    expect(await errno).toBe(OK);
    expect(generations()).toBe(0);
  });

  test.each([
    ['', undefined],
    [', where the counters turn over', nearTheEnd],
  ])('does it itself when the other began before it came%s', async (_, prepare) => {
    const { words, arrive, generations, isInFile } = await useWaiting(prepare);
    begin(words);
    const { errno } = await arrive();
    succeed(words);
    unlock(words, KEPT.MUTEX);
    expect(await errno).toBe(OK);
    expect([generations(), isInFile()]).toEqual([1, true]);
  });

  test('does it itself when the other, which began later, failed', async () => {
    const { words, arrive, generations, isInFile } = await useWaiting();
    const { errno } = await arrive();
    begin(words);
    unlock(words, KEPT.MUTEX);
    expect(await errno).toBe(OK);
    expect([generations(), isInFile()]).toEqual([1, true]);
  });

  test('says so when the other lost something', async () => {
    const { words, arrive, generations } = await useWaiting();
    const { errno } = await arrive();
    begin(words);
    Atomics.store(words, KEPT.FAILED, EIO);
    unlock(words, KEPT.MUTEX);
    expect(await errno).toBe(EIO);
    expect(generations()).toBe(0);
  });
});
