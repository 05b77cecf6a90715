/**
 * The life of one mount, from open to gone, on the main thread of the process that serves it: a background daemon, or
 * the command itself with `--foreground` and `run`. What was set up is taken down in reverse, whether a later step
 * failed or the mount ended. It never touches its own mountpoint once mounted: that would wait for itself.
 */
import type { OpenedBase } from '../base/open.ts';
import { Counters, totals } from '../fs/counters.ts';
import type { DiskFile } from '../fs/cow-fs.ts';
import { openDisks, openFs } from '../fs/spec.ts';
import type { Session } from '../fuse/init.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { version } from '../lib/version.ts';
import { HoldQueue } from '../transport/kernel/hold.ts';
import { handedOver, mountFuse, unmountFuse } from '../transport/kernel/mount.ts';
import { openSession, WorkerPool } from '../transport/kernel/pool.ts';
import { serveControl } from './control.ts';
import type { Journal } from './journal.ts';
import { Monitor } from './monitor.ts';
import { checkMountpoint, clearDeadMount, mountedDevice } from './mountpoint.ts';
import type { MountOptions } from './options.ts';
import { prepare } from './prepare.ts';
import { reap, removePrivate } from './reap.ts';
import { claimMountpoint, fileOf, nameWatcher, type RegistryEntry, removeEntry } from './registry.ts';
import type { MountStatus } from './status.ts';
import { Watcher } from './watcher.ts';

export class MountDaemon {
  /** What the user should know at once. */
  readonly warnings: readonly string[];
  /** Resolves when the mount is gone and nothing is left of it; rejects if it ended by a failure. */
  readonly ended: Promise<void>;

  readonly #options: MountOptions;
  readonly #takeDown = new TakeDown();
  readonly #base: OpenedBase;
  readonly #session: Session;
  readonly #files: readonly DiskFile[];
  readonly #counters: SharedArrayBuffer;
  readonly #journal: Journal;
  readonly #monitor: Monitor;
  readonly #hold: HoldQueue;
  readonly #pool: WorkerPool;
  readonly #startedAt = new Date();
  #detach: () => void = () => {};

  /**
   * Mounts and serves.
   *
   * @throws CowfsError; then nothing is left behind
   */
  static async start(options: MountOptions, journal: Journal): Promise<MountDaemon> {
    const takeDown = new TakeDown();
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
    const { mountpoint } = options;
    const { base, describe } = prepare(options);
    const hidden = new Map([
      [base.path, 'the base'],
      [options.storeDirectory, 'the store'],
    ]);
    if (options.logFile !== undefined) hidden.set(options.logFile, 'the log file');
    // The watcher stays until all the rest is taken down.
    let watcher: Watcher | undefined;
    takeDown.add(() => watcher?.dismiss());
    const entry = claimMountpoint(
      {
        mountpoint,
        base: base.path,
        privateMountpoint: options.privateMountpoint,
      },
      reap,
    );
    takeDown.add(() => removeEntry(entry));
    clearDeadMount(mountpoint);
    checkMountpoint(mountpoint, hidden);
    if (options.privateMountpoint) takeDown.add(() => removePrivate(mountpoint));

    const fuseFd = await mountFuse({
      mountpoint,
      source: base.path,
      readOnly: options.readOnly,
      allowOther: options.allowOther,
    });
    // Unknown for a mount that a parent made and handed over: whoever made it takes it away.
    const device = handedOver(mountpoint) ? undefined : mountedDevice(mountpoint);
    if (device !== undefined) {
      takeDown.add(() => unmountQuietly(mountpoint, device, journal));
      watcher = startWatcher(device, options, entry, journal);
      nameWatcher(entry, await watcher.started());
    }
    const session = openSession(fuseFd, options.cacheMode === 'writeback');
    const daemon = new MountDaemon(options, journal, takeDown, {
      fuseFd,
      base,
      session,
      fs: describe(session.directIoAllowMmap),
    });
    const server = await serveControl(entry.socket, (command) => {
      const status = daemon.status();
      if (command === 'detach') setImmediate(() => daemon.detach());
      return status;
    });
    takeDown.add(() => server.close());
    return daemon;
  }

  private constructor(
    options: MountOptions,
    journal: Journal,
    takeDown: TakeDown,
    mounted: {
      fuseFd: number;
      base: OpenedBase;
      session: Session;
      fs: Parameters<typeof openFs>[0];
    },
  ) {
    const { fuseFd, base, session, fs } = mounted;
    const { threads, storeDirectory, maxStoreBytes, enospcTimeoutMs, logFile } = options;
    this.#options = options;
    this.#journal = journal;
    this.#takeDown = takeDown;
    this.#base = base;
    this.#session = session;
    this.warnings = base.warnings;
    this.#counters = Counters.create(threads);
    this.#files = openDisks(fs);
    this.#hold = new HoldQueue({
      fuseFd,
      ops: openFs(fs),
      timeoutMs: enospcTimeoutMs,
      warn: (message) => journal.warn(message),
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
    const trace = options.trace ? { logFile } : undefined;
    this.#pool = new WorkerPool({ fuseFd, session, fs, counters: this.#counters, trace }, threads, {
      held: (write) => this.#hold.add(write),
      report: (message, detail) => journal.error(message, detail),
    });
    const detached = new Promise<void>((resolve) => {
      this.#detach = resolve;
    });
    this.ended = Promise.race([this.#pool.unmounted, detached]).finally(() => this.#takeDown.run());
    this.ended.catch(() => {});
  }

  /** Path of the disk to open. */
  get diskPath(): string {
    return `${this.#options.mountpoint}/${this.#options.name}`;
  }

  /** Ends the mount although files are open: their users get errors from now on. */
  detach(): void {
    this.#journal.info('detaching');
    this.#detach();
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
        writtenBytes: disk.writtenBytes,
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

/** Steps to undo, run once, last first; a step that fails is told and does not keep the others from running. */
class TakeDown {
  #steps: (() => unknown)[] = [];

  add(step: () => unknown): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    const errors: unknown[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new CowfsError('failed', `cleaning up: ${errors.map(reasonOf).join('; ')}`, errors[0]);
  }
}

function startWatcher(device: string, options: MountOptions, entry: RegistryEntry, journal: Journal): Watcher {
  const { mountpoint, privateMountpoint } = options;
  const removeFiles = [fileOf(mountpoint), entry.socket] as const;
  return new Watcher({ device, mountpoint, removeFiles, privateMountpoint }, (message) => journal.warn(message));
}

/** Takes our mount away if it is still there: after a plain umount(8) it is not, and what is there then is not ours. */
function unmountQuietly(mountpoint: string, device: string, journal: Journal): void {
  if (mountedDevice(mountpoint) !== device) return;
  const reason = unmountFuse(mountpoint, true);
  if (reason !== undefined) journal.error(`${mountpoint} could not be unmounted: ${reason}`);
}
