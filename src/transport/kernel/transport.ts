/**
 * The kernel transport: cowfs speaks the FUSE protocol itself, on worker threads that read /dev/fuse. Main thread:
 * mounts, shakes hands, and puts together the workers and those who answer what no worker may wait for.
 */
import { closeSync } from 'node:fs';
import { type FsSpec, MAIN_THREAD, openFs } from '../../fs/spec.ts';
import type { Session } from '../../fuse/init.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { GeneratedFiles } from '../generated-files.ts';
import type { Connection, DaemonSide, Serving, Transport, TransportTask } from '../transport.ts';
import { unmountFuse } from '../unmount.ts';
import { GeneratedDesk } from './generated-desk.ts';
import { HoldQueue } from './hold.ts';
import { mountFuse } from './mount.ts';
import { openSession, WorkerPool } from './pool.ts';
import { SizeDesk } from './size-desk.ts';

export const kernelTransport: Transport = {
  async mount(task) {
    const fuseFd = task.fuseFd ?? (await mountFuse(task.request));
    const session = shakeHands(fuseFd, task);
    const fs = task.describe({
      coherentDirect: session.directIoAllowMmap,
      sizeMayLag: session.writebackCache,
      sizelessFiles: true,
    });
    return new KernelConnection(fuseFd, session, fs, task);
  },
};

/** @throws CowfsError, with the mount taken away again if we made it */
function shakeHands(fuseFd: number, { cacheMode, fuseFd: handedOver, request }: TransportTask): Session {
  try {
    return openSession(fuseFd, cacheMode === 'writeback');
  } catch (error) {
    // Ends the connection, so that unmounting has nothing to wait for.
    closeSync(fuseFd);
    const left = handedOver === undefined ? unmountFuse(request.mountpoint, true) : undefined;
    if (left === undefined) throw error;
    throw new CowfsError('failed', `${reasonOf(error)}; and ${request.mountpoint} stays mounted: ${left}`, error);
  }
}

class KernelConnection implements Connection {
  readonly protocol: string;
  readonly fs: FsSpec;
  readonly #fuseFd: number;
  readonly #session: Session;
  readonly #task: TransportTask;

  constructor(fuseFd: number, session: Session, fs: FsSpec, task: TransportTask) {
    this.protocol = session.protocol;
    this.fs = fs;
    this.#fuseFd = fuseFd;
    this.#session = session;
    this.#task = task;
  }

  serve({ sizeOf, statusText, isDiscarded }: DaemonSide): Serving {
    const { threads, counters, trace, enospcTimeoutMs, warn, error } = this.#task;
    const fuseFd = this.#fuseFd;
    const ops = openFs(this.fs, MAIN_THREAD);
    const hold = new HoldQueue({ fuseFd, ops, isDiscarded, timeoutMs: enospcTimeoutMs, warn, error });
    const desk = new SizeDesk({ fuseFd, ops, sizeOf, warn });
    const generated = new GeneratedDesk(
      fuseFd,
      new GeneratedFiles(statusText, (cause) => error(`the status file: ${reasonOf(cause)}`)),
    );
    const pool = new WorkerPool({ fuseFd, session: this.#session, fs: this.fs, counters, trace }, threads, {
      held: (write) => hold.add(write),
      deferred: (request) =>
        request.kind === 'seek' || request.kind === 'read' ? desk.answer(request) : generated.answer(request),
      report: error,
    });
    return {
      ready: pool.ready(),
      unmounted: pool.unmounted,
      get heldBytes() {
        return hold.heldBytes;
      },
      close: () => hold.close(),
    };
  }
}
