/**
 * Starts and watches the workers of one connection, on the main thread. It answers INIT itself, so that every worker
 * starts with what was negotiated. A worker that dies can hold locks that others wait for: it ends the whole pool.
 */
import { readSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { FUSE_INIT_OUT, FUSE_MIN_READ_BUFFER, FUSE_OUT_HEADER } from '../../fuse/abi.ts';
import type { DeferredRequest, HeldWrite } from '../../fuse/call.ts';
import { RequestReader } from '../../fuse/decode.ts';
import { handshake, type Session, type Wanted } from '../../fuse/init.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { ENODEV, errnoOf } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { HandOver } from './hand-over.ts';
import type { WorkerMessage, WorkerTask } from './messages.ts';
import { workerThread } from './worker-thread.ts';

/** Reads INIT and answers it; blocks until the kernel sends it, which it does at the mount. */
export function openSession(fuseFd: number, wanted: Wanted): Session {
  const request = new RequestReader(new Uint8Array(FUSE_MIN_READ_BUFFER));
  const reply = new ReplyWriter(new Uint8Array(FUSE_OUT_HEADER.BYTES + FUSE_INIT_OUT.BYTES));
  for (;;) {
    let length: number;
    try {
      length = readSync(fuseFd, request.bytes, 0, request.bytes.byteLength, null);
    } catch (error) {
      if (errnoOf(error) === ENODEV) throw new CowfsError('failed', 'unmounted before it was ready', error);
      throw error;
    }
    if (!request.start(length)) throw new CowfsError('failed', `/dev/fuse gave ${length} bytes that are no request`);
    const { replyBytes, session } = handshake(request, reply, wanted);
    writeSync(fuseFd, reply.bytes, 0, replyBytes, null);
    if (session !== undefined) return session;
  }
}

export interface PoolEvents {
  readonly held: (write: HeldWrite) => void;
  readonly deferred: (request: DeferredRequest) => void;
  readonly report: (message: string, detail: string) => void;
}

/** How long requests wait before they are worth one more worker; the start of one takes ten times as long. */
const PATIENCE_MS = 10;

/** A worker that runs, by what is awaited of it. */
interface Started {
  readonly ready: Promise<void>;
  readonly unmounted: Promise<void>;
}

export class WorkerPool {
  /** Resolves when all workers have seen the unmount; rejects when one died instead. */
  readonly unmounted: Promise<void>;
  readonly #task: Omit<WorkerTask, 'index'>;
  readonly #handOver: HandOver | undefined;
  readonly #threads: number;
  readonly #events: PoolEvents;
  readonly #first: Started;
  #started = 0;
  #running = 0;
  #end: () => void = () => {};
  #fail: (error: unknown) => void = () => {};

  /**
   * The first worker starts alone and the others once it serves: on 2 cores the first read after `mount` was possible
   * after 224 ms instead of 259 (medians of 15, interleaved; Node by itself starts in 49). Beside one with a ring there is
   * one, and more only when requests wait: a worker takes 0.15 s of a processor and 10 MiB.
   */
  constructor(task: Omit<WorkerTask, 'index'>, threads: number, events: PoolEvents) {
    this.#task = task;
    this.#handOver = task.ring === undefined ? undefined : new HandOver(task.ring.handOver);
    this.#threads = threads;
    this.#events = events;
    this.unmounted = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    // Whoever waits for `unmounted` hears of a failure; until then it must not count as unhandled.
    this.unmounted.catch(() => {});
    this.#first = this.#startNext();
    this.#startOthers(task.ring === undefined ? threads : 2).catch(this.#fail);
  }

  /** Waits until a worker serves. */
  async ready(): Promise<void> {
    await this.#first.ready;
  }

  async #startOthers(upTo: number): Promise<void> {
    await this.#first.ready;
    // Whoever waits for `ready` comes first.
    await nextTurn();
    while (this.#running > 0 && this.#started < Math.min(upTo, this.#threads)) this.#startNext();
  }

  /** Starts one more where requests still wait after a moment, and then looks again. */
  #helpSoon(handOver: HandOver): void {
    if (this.#started >= this.#threads) return;
    setTimeout(() => {
      // From here on the next backlog is told of; what is there already is looked at now.
      handOver.answerCall();
      if (this.#running === 0 || this.#started >= this.#threads || handOver.waiting === 0) return;
      this.#startNext().ready.then(() => this.#helpSoon(handOver), this.#fail);
    }, PATIENCE_MS).unref();
  }

  #startNext(): Started {
    const task = { ...this.#task, index: this.#started++ };
    const worker = startWorker(task, this.#events, () => {
      if (this.#handOver !== undefined) this.#helpSoon(this.#handOver);
    });
    this.#running++;
    worker.unmounted.then(() => {
      this.#running--;
      if (this.#running === 0) this.#end();
    }, this.#fail);
    return worker;
  }
}

function startWorker(task: WorkerTask, events: PoolEvents, onBacklog: () => void): Started {
  const worker = workerThread(task.index);
  worker.on('message', (message: WorkerMessage) => {
    if (message.code === 'HELD') events.held(message.write);
    else if (message.code === 'DEFERRED') events.deferred(message.request);
    else if (message.code === 'REPORT') events.report(message.message, message.detail);
    else if (message.code === 'BACKLOG') onBacklog();
  });
  const started = { ready: once(worker, 'READY'), unmounted: once(worker, 'UNMOUNTED') };
  worker.postMessage(task);
  // Both reject when the worker dies, and often only one of them is waited for.
  for (const promise of Object.values(started)) promise.catch(() => {});
  return started;
}

function once(worker: Worker, code: WorkerMessage['code']): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: WorkerMessage) => {
      if (message.code === code) resolve();
    });
    worker.once('error', (error) => reject(new CowfsError('failed', `a worker died: ${error}`, error)));
    worker.once('exit', (status) => reject(new CowfsError('failed', `a worker ended early (${status})`)));
  });
}
