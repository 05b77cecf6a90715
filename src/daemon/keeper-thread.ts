/**
 * Entry of the keeper's thread: wiring only. Says why it could not, once for each reason.
 */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { openFs } from '../fs/spec.ts';
import { errnoName, OK } from '../lib/errno.ts';
import type { KeeperTask } from './keeper.ts';

if (parentPort === null) throw new Error('keeper-thread.ts is started by the keeper');
const port: MessagePort = parentPort;
port.once('message', keep);

function keep(task: KeeperTask): void {
  const { sessions } = openFs(task.fs, task.thread);
  const stop = new Int32Array(task.stop);
  let reported = OK;
  for (;;) {
    Atomics.wait(stop, 0, 0, task.intervalMs);
    if (Atomics.load(stop, 0) !== 0) break;
    const errno = sessions.kept.sync();
    if (errno !== OK && errno !== reported) port.postMessage(errnoName(errno));
    reported = errno;
  }
  port.close();
}
