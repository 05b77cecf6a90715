/**
 * Has a thread of its own make durable, every few seconds, what was written to a kept disk, as the host's kernel does
 * with any file: a guest that never syncs loses little when the host fails. Main thread.
 */
import { Worker } from 'node:worker_threads';
import type { FsSpec } from '../fs/spec.ts';
import type { Journal } from './journal.ts';

export interface KeeperTask {
  readonly fs: FsSpec;
  readonly thread: number;
  readonly intervalMs: number;
  /** One Int32; not 0 when it is to end. */
  readonly stop: SharedArrayBuffer;
}

/** As ext4 commits its journal. */
const INTERVAL_MS = 5000;

export class Keeper {
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #ended: Promise<void>;

  /** @param thread its number */
  constructor(fs: FsSpec, thread: number, journal: Journal) {
    const worker = new Worker(new URL('./keeper-thread.js', import.meta.url), {
      name: 'keeper',
      trackUnmanagedFds: false,
    });
    worker.on('message', (reason: string) =>
      journal.error(`what was written cannot be made durable (${reason}); fsync reports it, too`),
    );
    worker.on('error', (error) => journal.error(`the keeper ended: ${error}`, (error as Error).stack));
    this.#ended = new Promise((resolve) => worker.once('exit', () => resolve()));
    const task: KeeperTask = { fs, thread, intervalMs: INTERVAL_MS, stop: this.#stop.buffer as SharedArrayBuffer };
    worker.postMessage(task);
    worker.unref();
  }

  /** Waits until it has ended what it is at. */
  async close(): Promise<void> {
    Atomics.store(this.#stop, 0, 1);
    Atomics.notify(this.#stop, 0);
    await this.#ended;
  }
}
