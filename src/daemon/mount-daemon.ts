/**
 * The life of one mount, from open to gone, on the main thread of the process that serves it: a background daemon, or
 * the command itself with `--foreground` and `run`. What was set up is taken down in reverse, whether a later step
 * failed or the mount ended. It never touches its own mountpoint once mounted: that would wait for itself.
 */
import type { OpenedBase } from '../base/open.ts';
import { Counters, totals } from '../fs/counters.ts';
import type { DiskFile } from '../fs/disk-file.ts';
import { openDisks } from '../fs/spec.ts';
import { version } from '../lib/version.ts';
import { abortConnection } from '../transport/abort.ts';
import { loadTransport } from '../transport/load.ts';
import type { Connection, Serving } from '../transport/transport.ts';
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
  readonly counters: SharedArrayBuffer;
}

export class MountDaemon {
  /** What the user should know at once. */
  readonly warnings: readonly string[];
  /** Resolves when the mount is gone and nothing is left of it; rejects if it ended by a failure. */
  readonly ended: Promise<void>;

  readonly #options: MountOptions;
  readonly #base: OpenedBase;
  readonly #connection: Connection;
  readonly #files: readonly DiskFile[];
  readonly #counters: SharedArrayBuffer;
  readonly #journal: Journal;
  readonly #monitor: Monitor;
  readonly #serving: Serving;
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
    // Node ignores the signal, so that a write past the file size limit is EFBIG (setrlimit(2)); this says why.
    process.on('SIGXFSZ', () => journal.warn('the store has reached the file size limit (ulimit -f): writes fail'));
    try {
      const daemon = await MountDaemon.#mount(options, journal, takeDown);
      await daemon.#serving.ready;
      return daemon;
    } catch (error) {
      await takeDown.run();
      throw error;
    }
  }

  static async #mount(options: MountOptions, journal: Journal, takeDown: TakeDown): Promise<MountDaemon> {
    const { base, describe } = prepare(options);
    const { mountpoint, fuseFd, cacheMode, threads, readOnly, allowOther, enospcTimeoutMs, trace, logFile } = options;
    const transport = await loadTransport(options.transport);
    const counters = Counters.create(threads);
    const mount = (): Promise<Connection> =>
      transport.mount({
        request: { mountpoint, source: base.path, readOnly, allowOther },
        fuseFd,
        cacheMode,
        describe,
        threads,
        counters,
        enospcTimeoutMs,
        trace: trace ? { logFile } : undefined,
        warn: (message) => journal.warn(message),
        error: (message, detail) => journal.error(message, detail),
      });
    const attachment = await attach(options, base, mount, journal, takeDown);
    const daemon = new MountDaemon(options, journal, takeDown, { ...attachment, base, counters });
    const server = await serveControl(attachment.entry.socket, (command) => {
      const status = daemon.status();
      if (command === 'detach') setImmediate(() => daemon.detach());
      return status;
    });
    takeDown.add(() => server.close());
    return daemon;
  }

  private constructor(options: MountOptions, journal: Journal, takeDown: TakeDown, mounted: Mounted) {
    const { connection, device, watcher, base, counters } = mounted;
    const { mountpoint, storeDirectory, maxStoreBytes } = options;
    this.#options = options;
    this.#journal = journal;
    this.#base = base;
    this.#connection = connection;
    this.#device = device;
    this.warnings = base.warnings;
    this.#counters = counters;
    this.#files = openDisks(connection.fs);
    this.#monitor = new Monitor({ base, files: this.#files, counters, storeDirectory, maxStoreBytes, journal });
    takeDown.add(() => this.#monitor.close());
    this.#serving = connection.serve({
      sizeOf: async (name) => watcher?.sizeOf(name),
      isDiscarded: () =>
        mountedDevice(mountpoint) !== device && this.#files.every(({ attributes }) => attributes.openHandles === 0),
    });
    takeDown.add(() => this.#serving.close());
    const detached = new Promise<void>((resolve) => {
      this.#endNow = resolve;
    });
    this.ended = Promise.race([this.#serving.unmounted, detached]).finally(() => takeDown.run());
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
    const { mountpoint, storeDirectory, maxStoreBytes, transport, cacheMode, threads, readOnly } = this.#options;
    const { rss } = process.memoryUsage();
    return {
      mountpoint,
      pid: process.pid,
      version: version(),
      base: this.#base.path,
      baseSize: this.#base.descriptor.sizeBytes,
      baseChanged: this.#monitor.baseChanged ?? null,
      transport,
      protocol: this.#connection.protocol,
      cache: cacheMode,
      threads,
      readOnly,
      store: {
        directory: storeDirectory,
        strategy: 'sparse',
        freeBytes: Math.min(...this.#files.map(({ store }) => store.freeBytes)),
        maxBytes: maxStoreBytes ?? null,
        heldBytes: this.#serving.heldBytes,
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
