/**
 * Starts and watches the workers of one connection, on the main thread. It answers INIT itself, so that every worker
 * starts with what was negotiated. A worker that dies can hold locks that others wait for: it ends the whole pool.
 */
import { readSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { FUSE_INIT_OUT, FUSE_MIN_READ_BUFFER, FUSE_OUT_HEADER } from '../../fuse/abi.ts';
import type { DeferredRequest, HeldWrite } from '../../fuse/call.ts';
import { RequestReader } from '../../fuse/decode.ts';
import { handshake, type Session } from '../../fuse/init.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { ENODEV, errnoOf } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import type { WorkerMessage, WorkerTask } from './messages.ts';

/** Reads INIT and answers it; blocks until the kernel sends it, which it does at the mount. */
export function openSession(fuseFd: number, wantWriteback: boolean): Session {
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
    const { replyBytes, session } = handshake(request, reply, wantWriteback);
    writeSync(fuseFd, reply.bytes, 0, replyBytes, null);
    if (session !== undefined) return session;
  }
}

export interface PoolEvents {
  readonly held: (write: HeldWrite) => void;
  readonly deferred: (request: DeferredRequest) => void;
  readonly report: (message: string, detail: string) => void;
}

export class WorkerPool {
  /** Resolves when all workers have seen the unmount; rejects when one died instead. */
  readonly unmounted: Promise<void>;
  readonly #ready: Promise<void>;

  constructor(task: Omit<WorkerTask, 'index'>, threads: number, events: PoolEvents) {
    const workers = Array.from({ length: threads }, (_, index) => {
      const workerData: WorkerTask = { ...task, index };
      return new Worker(new URL('./worker.js', import.meta.url), {
        workerData,
        name: `fuse-${index}`,
      });
    });
    this.#ready = Promise.race(workers.map((worker) => once(worker, 'READY')));
    // Whoever waits for `unmounted` hears of a failure; until then it must not count as unhandled.
    this.#ready.catch(() => {});
    this.unmounted = Promise.all(workers.map((worker) => once(worker, 'UNMOUNTED'))).then(() => undefined);
    this.unmounted.catch(() => {});
    for (const worker of workers) {
      worker.on('message', (message: WorkerMessage) => {
        if (message.code === 'HELD') events.held(message.write);
        else if (message.code === 'DEFERRED') events.deferred(message.request);
        else if (message.code === 'REPORT') events.report(message.message, message.detail);
      });
    }
  }

  /** Waits until a worker serves. */
  async ready(): Promise<void> {
    await Promise.race([
      this.#ready,
      this.unmounted.then(() => Promise.reject(new CowfsError('failed', 'unmounted before it was ready'))),
    ]);
  }
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
