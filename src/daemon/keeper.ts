/**
 * Makes durable, every few seconds, what was written to a kept disk, as the host's kernel does with any file: a guest
 * that never syncs loses little when the host fails. Main thread.
 *
 * Two are needed for that. What the kernel caches of the disk it has to hand over first, and only somebody outside the
 * mount may wait for that (the watcher). What this process has, a thread of its own syncs. Neither waits for the other:
 * where the store has no room, the kernel hands over nothing for a long time, and what came before is synced all the same.
 */
import { Worker } from 'node:worker_threads';
import type { FsSpec } from '../fs/spec.ts';
import type { Journal } from './journal.ts';

export interface KeeperTask {
  readonly fs: FsSpec;
  readonly thread: number;
  readonly intervalMs: number;
  /** One Int32; not 0 when it is to end. Whoever waits for it and is woken while it is 0 has something to sync. */
  readonly stop: SharedArrayBuffer;
}

/** As ext4 commits its journal. */
const INTERVAL_MS = 5000;

export interface KeeperOptions {
  readonly fs: FsSpec;
  /** Number of the keeper's thread. */
  readonly thread: number;
  readonly journal: Journal;
  /** Has the kernel hand over what it caches of the disk, if it does; takes as long as that takes, and does not fail. */
  readonly settle: () => Promise<void>;
}

export class Keeper {
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #ended: Promise<void>;
  readonly #settle: () => Promise<void>;
  #timer: NodeJS.Timeout;

  constructor({ fs, thread, journal, settle }: KeeperOptions) {
    const worker = new Worker(new URL('./keeper-thread.cjs', import.meta.url), {
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
    this.#settle = settle;
    this.#timer = this.#again();
  }

  /** The next time is due only after this one has ended, so that nothing piles up behind a slow store. */
  #again(): NodeJS.Timeout {
    const settleAndSync = async (): Promise<void> => {
      await this.#settle();
      if (Atomics.load(this.#stop, 0) !== 0) return;
      Atomics.notify(this.#stop, 0);
      this.#timer = this.#again();
    };
    return setTimeout(() => void settleAndSync(), INTERVAL_MS).unref();
  }

  /** Waits until it has ended what it is at. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    Atomics.store(this.#stop, 0, 1);
    Atomics.notify(this.#stop, 0);
    await this.#ended;
  }
}
