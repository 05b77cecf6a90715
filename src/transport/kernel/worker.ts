/**
 * Entry of a worker thread of the kernel transport: wiring only. Waits for its task, builds its own file system, server
 * and trace over the shared memory of the mount and serves until the file system is unmounted.
 */
import { parentPort } from 'node:worker_threads';
import { Counters } from '../../fs/counters.ts';
import { MAIN_THREAD, openFs } from '../../fs/spec.ts';
import { type Buffers, FuseServer } from '../../fuse/server.ts';
import { slotBuffers, TransferServer } from '../../fuse/transfer-server.ts';
import { reasonOf } from '../../lib/error.ts';
import { setIoFlusher } from '../../sys/libc.ts';
import { openTrace } from '../trace-log.ts';
import { AtOnce } from './at-once.ts';
import { HandOver } from './hand-over.ts';
import { serveHandedOver } from './helper-loop.ts';
import { serveConnection } from './loop.ts';
import type { WorkerMessage, WorkerTask } from './messages.ts';
import { RingLoop } from './ring-loop.ts';
import { slotsOf } from './slot-memory.ts';

const port = parentPort;
if (port === null) throw new Error('worker.ts is started by the pool');
port.once('message', (task: WorkerTask) => void serve(task));

function post(message: WorkerMessage, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

async function serve(task: WorkerTask): Promise<void> {
  // Refused without CAP_SYS_RESOURCE; then nothing is lost but the protection against reclaim waiting for ourselves.
  setIoFlusher();
  const { fuseFd, index, session, ring } = task;
  const { maxTransferBytes } = session;
  const fs = openFs(task.fs, MAIN_THREAD + 1 + index);
  const counters = new Counters(task.counters, index);

  const trace = await openTrace(task.trace, (error) =>
    post({ code: 'REPORT', message: `tracing: ${reasonOf(error)}`, detail: '' }),
  );
  const newServer = (buffers?: Buffers): FuseServer =>
    new FuseServer({
      ops: fs,
      counters,
      maxTransferBytes,
      hold: (write) => post({ code: 'HELD', write }, [write.data.buffer]),
      defer: (request) => post({ code: 'DEFERRED', request }),
      report: (message, error) =>
        post({
          code: 'REPORT',
          message: error === undefined ? message : `${message}: ${reasonOf(error)}`,
          detail: error instanceof Error ? (error.stack ?? '') : '',
        }),
      trace,
      ...(buffers === undefined ? {} : { buffers }),
    });

  if (ring === undefined) {
    const server = newServer();
    post({ code: 'READY' });
    serveConnection(fuseFd, server);
  } else {
    const handOver = new HandOver(ring.handOver);
    const slots = slotsOf(ring.slots);
    const servers = slots.map((slot) => newServer(slotBuffers(slot, maxTransferBytes)));
    if (index > 0) {
      post({ code: 'READY' });
      serveHandedOver(fuseFd, servers, handOver);
    } else {
      const lanes = slots.map((_, slot) => fs.lane(ring.firstLane + slot));
      const mayBeKept = task.fs.overlayFile !== undefined;
      const transfers = new TransferServer(slots, lanes, { maxTransferBytes, counters, mayBeKept });
      fs.sessions.gate.waits = false;
      const loop = new RingLoop(fuseFd, transfers, servers, handOver, new AtOnce(task.fs), slots, () =>
        post({ code: 'BACKLOG' }),
      );
      post({ code: 'READY' });
      loop.run();
      handOver.end();
    }
  }
  post({ code: 'UNMOUNTED' });
}
