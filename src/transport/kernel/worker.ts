/**
 * Entry of a worker thread of the kernel transport: wiring only. Builds its own file system, server and trace over
 * the shared memory of the mount and serves until the file system is unmounted.
 */
import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { Counters } from '../../fs/counters.ts';
import type { WriteBackFrom } from '../../fs/cow-fs.ts';
import { openFs } from '../../fs/spec.ts';
import { invalidateInodeFrom } from '../../fuse/notify.ts';
import { FuseServer } from '../../fuse/server.ts';
import { Trace } from '../../fuse/trace.ts';
import { EAGAIN, ENOENT, errnoOf, OK } from '../../lib/errno.ts';
import { reasonOf } from '../../lib/error.ts';
import { setIoFlusher } from '../../sys/libc.ts';
import { serveConnection } from './loop.ts';
import type { WorkerMessage, WorkerTask } from './messages.ts';

const port = parentPort;
if (port === null) throw new Error('worker.js is started by the pool');
const task = workerData as WorkerTask;
const permits = new Int32Array(task.notifyPermits);

function post(message: WorkerMessage, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

/** Waits until the kernel has written back; another worker serves what it sends, so one must always be left. */
const writeBackFrom: WriteBackFrom = (node, offset) => {
  if (Atomics.sub(permits, 0, 1) <= 0) {
    Atomics.add(permits, 0, 1);
    return EAGAIN;
  }
  try {
    writeSync(task.fuseFd, invalidateInodeFrom(node, offset));
    return OK;
  } catch (error) {
    const errno = errnoOf(error);
    // The kernel has forgotten the node, and with it every page.
    return errno === ENOENT ? OK : errno;
  } finally {
    Atomics.add(permits, 0, 1);
  }
};

async function openTrace(): Promise<Trace | undefined> {
  if (task.trace === undefined) return undefined;
  const { createLogger } = await import('../../lib/log.ts');
  const logger = await createLogger({
    level: 'trace',
    file: task.trace.logFile,
  });
  return new Trace((line) => logger.trace(line));
}

// Refused without CAP_SYS_RESOURCE; then nothing is lost but the protection against reclaim waiting for ourselves.
setIoFlusher();
const server = new FuseServer({
  ops: openFs(task.fs, task.session.writebackCache || task.session.directIoAllowMmap ? writeBackFrom : undefined),
  counters: new Counters(task.counters, task.index),
  maxTransferBytes: task.session.maxTransferBytes,
  hold: (write) => post({ code: 'HELD', write }, [write.data.buffer]),
  report: (message, error) =>
    post({
      code: 'REPORT',
      message: error === undefined ? message : `${message}: ${reasonOf(error)}`,
      detail: error instanceof Error ? (error.stack ?? '') : '',
    }),
  trace: await openTrace(),
});
post({ code: 'READY' });
serveConnection(task.fuseFd, server);
post({ code: 'UNMOUNTED' });
