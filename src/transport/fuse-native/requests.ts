/**
 * One request at a time, on the main thread: counted, timed, traced, and an exception turned into EIO and one call of
 * `report`, here and nowhere else. What `fuse/server.ts` is to the kernel transport.
 */
import type { Counters } from '../../fs/counters.ts';
import type { FsOps } from '../../fs/ops.ts';
import type { Trace } from '../../fuse/trace.ts';
import { type Errno, errnoOf, OK } from '../../lib/errno.ts';

export interface RequestsOptions {
  readonly ops: FsOps;
  readonly counters: Counters;
  readonly trace: Trace | undefined;
  /** Gets what no operation expected. */
  readonly report: (message: string, error: unknown) => void;
}

export class Requests {
  readonly #options: RequestsOptions;
  #count = 0;

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /** Whether details are wanted at all. */
  get traced(): boolean {
    return this.#options.trace !== undefined;
  }

  /** @param name as the kernel calls it; READ and WRITE leave in `ops.transferred` what they moved */
  serve(name: string, file: string, detail: string, action: () => Errno): Errno {
    const { ops, counters, trace, report } = this.#options;
    const startMs = performance.now();
    const number = ++this.#count;
    trace?.request(number, name, file, detail);
    let errno: Errno;
    try {
      errno = action();
    } catch (error) {
      report(`${name} failed`, error);
      errno = errnoOf(error);
    }
    const elapsedMs = performance.now() - startMs;
    const isTransfer = name === 'READ' || name === 'WRITE';
    const moved = isTransfer && errno === OK ? ops.transferred : 0;
    if (name === 'READ') counters.read(moved, elapsedMs);
    else if (name === 'WRITE') counters.wrote(moved, elapsedMs);
    else counters.other(elapsedMs);
    if (isTransfer && errno !== OK) counters.failed();
    trace?.answer(number, errno, moved, elapsedMs);
    return errno;
  }
}
