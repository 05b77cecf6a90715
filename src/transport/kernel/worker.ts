/**
 * Entry of a worker thread of the kernel transport: wiring only. Waits for its task, builds its own file system, server
 * and trace over the shared memory of the mount and serves until the file system is unmounted.
 */
import { once } from 'node:events';
import { parentPort } from 'node:worker_threads';
import { Counters } from '../../fs/counters.ts';
import { MAIN_THREAD, openFs } from '../../fs/spec.ts';
import { FuseServer } from '../../fuse/server.ts';
import { reasonOf } from '../../lib/error.ts';
import { setIoFlusher } from '../../sys/libc.ts';
import { openTrace } from '../trace-log.ts';
import { serveConnection } from './loop.ts';
import type { WorkerMessage, WorkerTask } from './messages.ts';

const port = parentPort;
if (port === null) throw new Error('worker.js is started by the pool');
const [task] = (await once(port, 'message')) as [WorkerTask];

function post(message: WorkerMessage, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

// Refused without CAP_SYS_RESOURCE; then nothing is lost but the protection against reclaim waiting for ourselves.
setIoFlusher();
const server = new FuseServer({
  ops: openFs(task.fs, MAIN_THREAD + 1 + task.index),
  counters: new Counters(task.counters, task.index),
  maxTransferBytes: task.session.maxTransferBytes,
  hold: (write) => post({ code: 'HELD', write }, [write.data.buffer]),
  defer: (request) => post({ code: 'DEFERRED', request }),
  report: (message, error) =>
    post({
      code: 'REPORT',
      message: error === undefined ? message : `${message}: ${reasonOf(error)}`,
      detail: error instanceof Error ? (error.stack ?? '') : '',
    }),
  trace: await openTrace(task.trace, (error) =>
    post({ code: 'REPORT', message: `tracing: ${reasonOf(error)}`, detail: '' }),
  ),
});
post({ code: 'READY' });
serveConnection(task.fuseFd, server);
post({ code: 'UNMOUNTED' });
