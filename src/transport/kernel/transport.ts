/**
 * The kernel transport: cowfs speaks the FUSE protocol itself, on worker threads that read /dev/fuse. Main thread:
 * mounts, shakes hands, and puts together the workers and those who answer what no worker may wait for.
 */
import { closeSync } from 'node:fs';
import { type FsSpec, firstLane, MAIN_THREAD, openFs } from '../../fs/spec.ts';
import type { Session } from '../../fuse/init.ts';
import { errnoName, OK } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { Ring } from '../../sys/io-uring.ts';
import { nonBlocking } from '../../sys/libc.ts';
import { GeneratedFiles } from '../generated-files.ts';
import type { AioMode, Connection, DaemonSide, Serving, Transport, TransportTask } from '../transport.ts';
import { unmountFuse } from '../unmount.ts';
import { GeneratedDesk } from './generated-desk.ts';
import { HandOver, RING_ENTRIES } from './hand-over.ts';
import { HoldQueue } from './hold.ts';
import type { RingTask } from './messages.ts';
import { mountFuse } from './mount.ts';
import { openSession, WorkerPool } from './pool.ts';
import { raiseReadAhead } from './read-ahead.ts';
import { SizeDesk } from './size-desk.ts';
import { createSlots } from './slot-memory.ts';

export const kernelTransport: Transport = {
  async mount(task) {
    const aio = chooseAio(task);
    const fuseFd = task.fuseFd ?? (await mountFuse(task.request));
    const session = shakeHands(fuseFd, task);
    const notRaised = raiseReadAhead(task.request.mountpoint);
    if (notRaised !== undefined) task.warn(notRaised);
    const fs = task.describe({
      coherentDirect: session.directIoAllowMmap,
      sizeMayLag: session.writebackCache,
      sizelessFiles: true,
      passthroughFd: session.passthrough ? fuseFd : undefined,
    });
    return new KernelConnection(fuseFd, session, fs, aio, task);
  },
};

/** @throws CowfsError, with the mount taken away again if we made it */
function shakeHands(fuseFd: number, { cacheMode, passthrough, fuseFd: handedOver, request }: TransportTask): Session {
  try {
    return openSession(fuseFd, { writeback: cacheMode === 'writeback', passthrough });
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
  readonly aio: AioMode;
  readonly fs: FsSpec;
  readonly #fuseFd: number;
  readonly #session: Session;
  readonly #task: TransportTask;

  constructor(fuseFd: number, session: Session, fs: FsSpec, aio: AioMode, task: TransportTask) {
    this.aio = aio;
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
    const ring = this.aio === 'io_uring' ? this.#ringTask() : undefined;
    const pool = new WorkerPool({ fuseFd, session: this.#session, fs: this.fs, counters, trace, ring }, threads, {
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

  #ringTask(): RingTask {
    // The thread with the ring must not wait for a request: it has others under way.
    const errno = nonBlocking(this.#fuseFd);
    if (errno !== OK) throw new CowfsError('failed', `/dev/fuse cannot be made non-blocking: ${errnoName(errno)}`);
    return {
      slots: createSlots(this.#session.maxTransferBytes),
      handOver: HandOver.create(),
      firstLane: firstLane(this.#task.threads),
    };
  }
}

/**
 * `auto` has no ring where there is but one thread, as what has to wait needs another.
 *
 * @throws CowfsError of kind `missing` where there is none, and one is asked for
 */
function chooseAio({ aio, threads }: TransportTask): AioMode {
  if (aio === 'threads' || (aio === 'auto' && threads === 1)) return 'threads';
  const errno = Ring.probe(RING_ENTRIES);
  if (errno === OK) return 'io_uring';
  if (aio === 'auto') return 'threads';
  throw new CowfsError(
    'missing',
    `--aio io_uring: the machine refuses it (${errnoName(errno)}): it needs Linux 6.1, and leave by sysctl ` +
      'kernel.io_uring_disabled and by a container’s seccomp profile; or leave --aio out',
  );
}
