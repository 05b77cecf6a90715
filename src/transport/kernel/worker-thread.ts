/**
 * The threads of the workers, before they have anything to do. The first one can be started ahead of its task, to load
 * its modules while the main thread loads its own and mounts. Main thread; imports next to nothing, for that reason.
 */
import { Worker } from 'node:worker_threads';
import { SERVING_HEAP } from '../../lib/heap.ts';

let ahead: Worker | undefined;

/** Starts the first worker's thread now; it does not keep the process alive until it gets a task. */
export function startAhead(): void {
  if (ahead !== undefined) return;
  ahead = start(0);
  ahead.unref();
}

/** A thread that waits for its task, a `WorkerTask`. */
export function workerThread(index: number): Worker {
  if (index > 0 || ahead === undefined) return start(index);
  const worker = ahead;
  ahead = undefined;
  worker.ref();
  return worker;
}

/** Descriptors are the process's: a store that one worker opens another may close, and it outlives its opener. */
function start(index: number): Worker {
  return new Worker(new URL('./worker.cjs', import.meta.url), {
    name: `fuse-${index}`,
    trackUnmanagedFds: false,
    resourceLimits: SERVING_HEAP,
  });
}
