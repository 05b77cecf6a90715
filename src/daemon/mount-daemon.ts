/**
 * The life of one mount, from open to gone, on the main thread of the process that serves it: a background daemon, or
 * the command itself with `--foreground` and `run`. What was set up is taken down in reverse, whether a later step
 * failed or the mount ended. It never touches its own mountpoint once mounted: that would wait for itself.
 */
import { fstatSync } from 'node:fs';
import type { OpenedBase } from '../base/open.ts';
import { pathByNumber } from '../fs/control-directory.ts';
import { Counters, totals } from '../fs/counters.ts';
import type { CowFs } from '../fs/cow-fs.ts';
import { keeperThread, MAIN_THREAD, openFs } from '../fs/spec.ts';
import { errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { compileSooner } from '../lib/tiering.ts';
import { version } from '../lib/version.ts';
import { abortConnection } from '../transport/abort.ts';
import { loadTransport } from '../transport/load.ts';
import type { Connection, Serving } from '../transport/transport.ts';
import { type Attachment, attach } from './attach.ts';
import { type Client, serveControl } from './control.ts';
import type { ControlRequest } from './control-requests.ts';
import { DiskAccess } from './disk-access.ts';
import { Disks } from './disks.ts';
import { Holds } from './holds.ts';
import type { Journal } from './journal.ts';
import { Keeper } from './keeper.ts';
import { Merger } from './merger.ts';
import { Monitor } from './monitor.ts';
import { mountStatus } from './mount-status.ts';
import { mountedDevice } from './mountpoint.ts';
import type { MountOptions } from './options.ts';
import { prepare } from './prepare.ts';
import { type MountStatus, withHandlesOf } from './status.ts';
import type { ChosenStrategy } from './store-strategy.ts';
import { TakeDown } from './take-down.ts';
import type { Watcher } from './watcher.ts';

/** How often disks are looked for that the kernel keeps by nothing but a name in `.cowfs`. */
const SWEEP_MS = 500;
/** How long a worker may be at its last request when the mount is gone. */
const STRAGGLERS_MS = 3000;
/** How long after the mount is there nobody waits any more for what follows a mount at once. */
const SETTLED_MS = 50;

interface Mounted extends Attachment {
  readonly base: OpenedBase;
  readonly strategy: ChosenStrategy;
  readonly counters: SharedArrayBuffer;
  readonly warnings: readonly string[];
}

export class MountDaemon {
  /** What the user should know at once. */
  readonly warnings: readonly string[];
  /** Resolves when the mount is gone and nothing is left of it; rejects if it ended by a failure. */
  readonly ended: Promise<void>;

  readonly #options: MountOptions;
  #base: OpenedBase;
  readonly #strategy: ChosenStrategy;
  readonly #connection: Connection;
  readonly #fs: CowFs;
  readonly #disks: Disks;
  readonly #holds: Holds;
  readonly #counters: SharedArrayBuffer;
  readonly #journal: Journal;
  readonly #monitor: Monitor;
  readonly #merger: Merger;
  readonly #serving: Serving;
  readonly #startedAt = new Date();
  /** Read at the start: what the program was installed as may be another by now, or gone. */
  readonly #version = version();
  readonly #device: string | undefined;
  readonly #watcher: Watcher | undefined;
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
      setTimeout(compileSooner, SETTLED_MS).unref();
      return daemon;
    } catch (error) {
      await takeDown.run();
      throw error;
    }
  }

  static async #mount(options: MountOptions, journal: Journal, takeDown: TakeDown): Promise<MountDaemon> {
    const { base, describe, strategy, kept, warnings } = await prepare(options);
    let daemon: MountDaemon | undefined;
    // Last of all, when nobody can write any more.
    if (kept !== undefined) takeDown.add(() => (daemon === undefined ? undefined : daemon.#finishKept()));
    const { mountpoint, fuseFd, cacheMode, aio, threads, readOnly, allowOther, enospcTimeoutMs, trace, logFile } =
      options;
    const transport = await loadTransport(options.transport);
    const counters = Counters.create(threads);
    const mount = (): Promise<Connection> =>
      transport.mount({
        request: { mountpoint, source: base.path, readOnly, allowOther },
        fuseFd,
        cacheMode,
        passthrough: strategy.passthrough,
        describe,
        aio,
        threads,
        counters,
        enospcTimeoutMs,
        trace: trace ? { logFile } : undefined,
        warn: (message) => journal.warn(message),
        error: (message, detail) => journal.error(message, detail),
      });
    const attachment = await attach(options, base, mount, journal, takeDown);
    kept?.publish();
    const started = new MountDaemon(options, journal, takeDown, {
      ...attachment,
      base,
      strategy,
      counters,
      warnings,
    });
    daemon = started;
    const server = await serveControl(attachment.entry.socket, (request, client) => started.#answer(request, client));
    takeDown.add(() => server.close());
    return started;
  }

  private constructor(options: MountOptions, journal: Journal, takeDown: TakeDown, mounted: Mounted) {
    const { connection, device, watcher, base, strategy, counters, warnings } = mounted;
    const { mountpoint, storeDirectory, maxStoreBytes, readOnly, transport } = options;
    this.#options = options;
    this.#journal = journal;
    this.#base = base;
    this.#strategy = strategy;
    this.#connection = connection;
    this.#device = device;
    this.warnings = warnings;
    this.#watcher = watcher;
    this.#counters = counters;
    this.#fs = openFs(connection.fs, MAIN_THREAD);
    const { diskBytes, sizeMayLag } = connection.fs.options;
    const access = new DiskAccess({ fs: this.#fs, mountpoint, readOnly, overlay: options.overlay });
    this.#disks = new Disks({
      fs: this.#fs,
      access,
      diskBytes,
      overlay: options.overlay,
      // libfuse 2 has an inode for each name.
      refresh: async (node, path, sizeBytes) =>
        watcher === undefined
          ? 'the mountpoint is not known'
          : watcher.refresh(transport === 'kernel' ? pathByNumber(node) : path, sizeBytes),
    });
    this.#holds = new Holds({
      fs: this.#fs,
      access,
      readOnly,
      overlay: options.overlay,
      base: () => this.#base,
      committed: () => {
        this.#base = { ...base, stats: fstatSync(base.descriptor.fd) };
        this.#monitor.setBase(this.#base);
      },
    });
    const sweep = setInterval(() => void watcher?.forget(this.#disks.left.map(pathByNumber)), SWEEP_MS);
    sweep.unref();
    takeDown.add(() => clearInterval(sweep));
    const { sessions } = this.#fs;
    this.#monitor = new Monitor({ base, sessions, counters, storeDirectory, maxStoreBytes, journal });
    takeDown.add(() => this.#monitor.close());
    if (this.#fs.sessions.kept.session !== 0) {
      const keeper = new Keeper({
        fs: connection.fs,
        thread: keeperThread(options.threads),
        journal,
        // Of a disk that nobody has open to write the kernel has written back all at the last close.
        settle: async () => {
          if (sizeMayLag && this.#disks.keptIsOpenToWrite) await watcher?.settle();
        },
      });
      takeDown.add(() => keeper.close());
    }
    const merger = new Merger(this.#fs, journal, () => this.#holds.any);
    this.#merger = merger;
    takeDown.add(() => merger.close());
    this.#serving = connection.serve({
      sizeOf: async (node) => watcher?.sizeOf(pathByNumber(node)),
      statusText: async () => {
        // Whoever reads it here has nobody else to have the kernel write back.
        const status = this.status();
        if (sizeMayLag) await watcher?.sync(this.#disks.writable.map(pathByNumber));
        return `${JSON.stringify(withHandlesOf(this.status(), status), undefined, 2)}\n`;
      },
      isDiscarded: () => mountedDevice(mountpoint) !== device && this.#disks.openHandles === 0,
    });
    takeDown.add(() => this.#serving.close());
    const detached = new Promise<void>((resolve) => {
      this.#endNow = resolve;
    });
    this.ended = Promise.race([this.#serving.unmounted, detached]).finally(() => takeDown.run());
    this.ended.catch(() => {});
  }

  /** Path of the disk to open; of the directory, where there is none yet. */
  get diskPath(): string {
    return [this.#options.mountpoint, ...this.#options.names.slice(0, 1)].join('/');
  }

  /** Ends the mount although files are open: their users get errors from now on. */
  async detach(): Promise<void> {
    this.#journal.info('detaching');
    // What is kept is to have what programs have written, as far as it goes.
    const kept = this.#disks.kept;
    if (kept !== undefined && (await this.#watcher?.sync([pathByNumber(kept)])) !== true) {
      this.#journal.warn('the kept disk could not be synced in time: what the kernel still caches of it is lost');
    }
    // Spares the kernel writing back what is about to be thrown away, where it lets us say so.
    if (this.#device !== undefined) abortConnection(this.#device);
    this.#endNow();
  }

  /** Brings the overlay file to its end once nobody is inside any more, and lets nobody in again. */
  #finishKept(): void {
    const { sessions } = this.#fs;
    // One that waits for the base or the store is not waited for.
    sessions.gate.close(sessions.kept.session, STRAGGLERS_MS);
    const errno = sessions.kept.finish();
    if (errno === OK) return;
    throw new CowfsError(
      'failed',
      `overlay ${this.#options.overlay}: what was written last could not be made durable (${errnoName(errno)})`,
    );
  }

  async #answer(request: ControlRequest, client: Client): Promise<unknown> {
    // Layers may become superfluous.
    setImmediate(() => this.#merger.look());
    switch (request.command) {
      case 'status':
        return this.status();
      case 'detach':
        setImmediate(() => void this.detach());
        return this.status();
      case 'reset':
        await this.#disks.reset(request.disk, request.force);
        return null;
      case 'rollback':
        await this.#disks.rollback(request.disk, request.name);
        return null;
      case 'fork':
        this.#disks.fork(request.disk, request.to);
        return null;
      case 'snapshot':
        this.#disks.snapshot(request.disk, request.name);
        return null;
      case 'delete-snapshot':
        this.#disks.deleteSnapshot(request.disk, request.name);
        return null;
      case 'hold':
        client.ended = () => {
          if (this.#holds.release(client)) this.#merger.look();
        };
        return this.#holds.hold(client, request.disk, request.purpose);
      case 'map':
        return this.#holds.map(client, request.layer, request.from);
      case 'commit-begins':
        this.#holds.commitBegins(client);
        return null;
      case 'commit-done':
        this.#holds.commitDone(client);
        return null;
    }
  }

  status(): MountStatus {
    this.#monitor.look();
    return mountStatus(this.#options, {
      base: this.#base.path,
      baseChanged: this.#monitor.baseChanged,
      connection: this.#connection,
      sessions: this.#fs.sessions,
      strategy: this.#strategy,
      heldBytes: this.#serving.heldBytes,
      disks: this.#disks.status(),
      io: totals(this.#counters),
      version: this.#version,
      startedAt: this.#startedAt,
      warnings: [...this.warnings, ...this.#journal.warnings],
    });
  }
}
