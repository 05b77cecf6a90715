/**
 * Runs jobs of `thread-jobs.ts` on real worker threads, all let go at once. Node 20 cannot load TypeScript in a worker,
 * so sources and jobs are compiled once a test file into a directory of its own: never an old build.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, vi } from 'vitest';
import type { Job, JobMessage } from './thread-jobs.ts';

const PROJECT = resolve(import.meta.dirname, '../..');

let directory = '';

/** Call at the top of a test file that runs threads. */
export function useThreads(): void {
  // Where the machine is busy, threads wait for a processor.
  vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });
  beforeAll(() => {
    directory = mkdtempSync(join(process.env['COWFS_TEST_DIR'] ?? '/var/tmp', 'cowfs-threads-'));
    symlinkSync(join(PROJECT, 'node_modules'), join(directory, 'node_modules'));
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
    const config = {
      extends: join(PROJECT, 'tsconfig.json'),
      compilerOptions: { rootDir: PROJECT, outDir: join(directory, 'out'), noCheck: true, sourceMap: false },
      files: [join(import.meta.dirname, 'thread-jobs.ts')],
      include: [],
    };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(config));
    execFileSync(join(PROJECT, 'node_modules/.bin/tsc'), ['-p', directory]);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
}

/** Runs every job on a thread of its own; what each returned, in order. */
export async function runThreads(jobs: readonly Job[]): Promise<unknown[]> {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const entry = join(directory, 'out/test/overlay/thread-jobs.js');
  // A store that one of them opens is everybody's, and outlives it.
  const options = { trackUnmanagedFds: false };
  const workers = jobs.map((job) => new Worker(entry, { workerData: { job, gate: gate.buffer }, ...options }));
  try {
    const first = (worker: Worker, code: JobMessage['code']): Promise<unknown> =>
      new Promise((done, fail) => {
        worker.on('message', (message: JobMessage) => {
          if (message.code === code) done(message.code === 'DONE' ? message.result : undefined);
        });
        worker.once('error', fail);
        worker.once('exit', () => fail(new Error(`a thread ended before ${code}`)));
      });
    const results = Promise.all(workers.map((worker) => first(worker, 'DONE')));
    results.catch(() => {});
    await Promise.all(workers.map((worker) => first(worker, 'READY')));
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
    return await results;
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
