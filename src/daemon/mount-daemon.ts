/**
 * The life of one mount, from open to gone, on the main thread of the process that serves it: a background daemon, or
 * the command itself with `--foreground` and `run`. What was set up is taken down in reverse, whether a later step
 * failed or the mount ended. It never touches its own mountpoint once mounted: that would wait for itself.
 */
import type { OpenedBase } from '../base/open.ts';
import { Counters, totals } from '../fs/counters.ts';
import type { DiskFile } from '../fs/disk-file.ts';
import { type FsSpec, openDisks, openFs } from '../fs/spec.ts';
import type { Session } from '../fuse/init.ts';
import { version } from '../lib/version.ts';
import { abortConnection } from '../transport/kernel/abort.ts';
import { HoldQueue } from '../transport/kernel/hold.ts';
import { openSession, WorkerPool } from '../transport/kernel/pool.ts';
import { SizeDesk } from '../transport/kernel/size-desk.ts';
import { type Attachment, attach } from './attach.ts';
import { serveControl } from './control.ts';
import type { Journal } from './journal.ts';
import { Monitor } from './monitor.ts';
import { mountedDevice } from './mountpoint.ts';
import type { MountOptions } from './options.ts';
import { prepare } from './prepare.ts';
import type { MountStatus } from './status.ts';
import { TakeDown } from './take-down.ts';

interface Mounted extends Attachment {
  readonly base: OpenedBase;
  readonly session: Session;
  readonly fs: FsSpec;
}

export class MountDaemon {
  /** What the user should know at once. */
  readonly warnings: readonly string[];
  /** Resolves when the mount is gone and nothing is left of it; rejects if it ended by a failure. */
  readonly ended: Promise<void>;

  readonly #options: MountOptions;
  readonly #base: OpenedBase;
  readonly #session: Session;
  readonly #files: readonly DiskFile[];
  readonly #counters: SharedArrayBuffer;
  readonly #journal: Journal;
  readonly #monitor: Monitor;
  readonly #hold: HoldQueue;
  readonly #pool: WorkerPool;
  readonly #startedAt = new Date();
  readonly #device: string | undefined;
  #endNow: () => void = () => {};

  /**
   * Mounts and serves.
   *
   * @throws CowfsError; then nothing is left behind
   */
  static async start(options: MountOptions, journal: Journal): Promise<MountDaemon> {
    const takeDown = new TakeDown();
    // A store larger than the file size limit (ulimit -f) is then EFBIG for its writer, not our end (setrlimit(2)).
    process.on('SIGXFSZ', () => journal.warn('the store has reached the file size limit (ulimit -f): writes fail'));
    try {
      const daemon = await MountDaemon.#mount(options, journal, takeDown);
      await daemon.#pool.ready();
      return daemon;
    } catch (error) {
      await takeDown.run();
      throw error;
    }
  }

  static async #mount(options: MountOptions, journal: Journal, takeDown: TakeDown): Promise<MountDaemon> {
    const { base, describe } = prepare(options);
    const attachment = await attach(options, base, journal, takeDown);
    const session = openSession(attachment.fuseFd, options.cacheMode === 'writeback');
    const daemon = new MountDaemon(options, journal, takeDown, { ...attachment, base, session, fs: describe(session) });
    const server = await serveControl(attachment.entry.socket, (command) => {
      const status = daemon.status();
      if (command === 'detach') setImmediate(() => daemon.detach());
      return status;
    });
    takeDown.add(() => server.close());
    return daemon;
  }

  private constructor(options: MountOptions, journal: Journal, takeDown: TakeDown, mounted: Mounted) {
    const { fuseFd, device, watcher, base, session, fs } = mounted;
    const { mountpoint, threads, storeDirectory, maxStoreBytes, enospcTimeoutMs, logFile } = options;
    const warn = (message: string): void => journal.warn(message);
    this.#options = options;
    this.#journal = journal;
    this.#base = base;
    this.#session = session;
    this.#device = device;
    this.warnings = base.warnings;
    this.#counters = Counters.create(threads);
    this.#files = openDisks(fs);
    const ops = openFs(fs);
    this.#hold = new HoldQueue({
      fuseFd,
      ops,
      isDiscarded: () =>
        mountedDevice(mountpoint) !== device && this.#files.every(({ attributes }) => attributes.openHandles === 0),
      timeoutMs: enospcTimeoutMs,
      warn,
      error: (message) => journal.error(message),
    });
    takeDown.add(() => this.#hold.close());
    this.#monitor = new Monitor({
      base,
      files: this.#files,
      counters: this.#counters,
      storeDirectory,
      maxStoreBytes,
      journal,
    });
    takeDown.add(() => this.#monitor.close());
    const desk = new SizeDesk({ fuseFd, ops, sizeOf: async (name) => watcher?.sizeOf(name), warn });
    const trace = options.trace ? { logFile } : undefined;
    this.#pool = new WorkerPool({ fuseFd, session, fs, counters: this.#counters, trace }, threads, {
      held: (write) => this.#hold.add(write),
      deferred: (request) => desk.answer(request),
      report: (message, detail) => journal.error(message, detail),
    });
    const detached = new Promise<void>((resolve) => {
      this.#endNow = resolve;
    });
    this.ended = Promise.race([this.#pool.unmounted, detached]).finally(() => takeDown.run());
    this.ended.catch(() => {});
  }

  /** Path of the disk to open. */
  get diskPath(): string {
    return `${this.#options.mountpoint}/${this.#options.name}`;
  }

  /** Ends the mount although files are open: their users get errors from now on. */
  detach(): void {
    this.#journal.info('detaching');
    // Spares the kernel writing back what is about to be thrown away, where it lets us say so.
    if (this.#device !== undefined) abortConnection(this.#device);
    this.#endNow();
  }

  status(): MountStatus {
    this.#monitor.look();
    const { mountpoint, storeDirectory, maxStoreBytes, cacheMode, threads, readOnly } = this.#options;
    const { rss } = process.memoryUsage();
    return {
      mountpoint,
      pid: process.pid,
      version: version(),
      base: this.#base.path,
      baseSize: this.#base.descriptor.sizeBytes,
      baseChanged: this.#monitor.baseChanged ?? null,
      transport: 'kernel',
      protocol: this.#session.protocol,
      cache: cacheMode,
      threads,
      readOnly,
      store: {
        directory: storeDirectory,
        strategy: 'sparse',
        freeBytes: Math.min(...this.#files.map(({ store }) => store.freeBytes)),
        maxBytes: maxStoreBytes ?? null,
        heldBytes: this.#hold.heldBytes,
      },
      disks: this.#files.map(({ name, disk, store, attributes }) => ({
        name,
        path: `${mountpoint}/${name}`,
        size: disk.sizeBytes,
        writtenBytes: disk.account.writtenBytes,
        storeBytes: store.usedBytes,
        openHandles: attributes.openHandles,
      })),
      io: totals(this.#counters),
      memory: {
        rssBytes: rss,
        mapBytes: this.#files.reduce((sum, { disk }) => sum + disk.mapBytes, 0),
      },
      upSince: this.#startedAt.toISOString(),
      warnings: [...this.warnings, ...this.#journal.warnings],
    };
  }
}
