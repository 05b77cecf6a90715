/**
 * The disk that export, commit and diff read: one of a live mount, whose daemon lends it, or what an overlay file keeps. What
 * is lent is read through the daemon's own descriptors (/proc/PID/fd), not through the mount.
 */
import { type BigIntStats, closeSync, constants, existsSync, openSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Backing } from '../base/backing.ts';
import type { OpenedBase } from '../base/open.ts';
import type { DaemonConnection } from '../daemon/control.ts';
import type { HoldPurpose, LentDisk, LentLayer } from '../daemon/control-requests.ts';
import type { RegistryEntry } from '../daemon/registry.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import type { BlockState } from '../overlay/block.ts';
import type { ExportSource } from '../overlay/export/source.ts';
import type { LayerStack } from '../overlay/export/stack.ts';
import type { OpenedOverlay } from '../overlay/file/open.ts';
import type { Layer } from '../overlay/layer.ts';
import { diskIn, findPlace, inNoMount, onlyDiskIn } from './disk-path.ts';
import { warn } from './exit.ts';

/** The daemon waits until a request under way has ended, and copies what is kept where it cannot be frozen. */
const HOLD_MS = 60_000;

export interface OpenedSource {
  /** What it is called in messages. */
  readonly name: string;
  readonly disk: ExportSource;
  /** Canonical path of the base. */
  readonly basePath: string;
  readonly base: Backing;
  /** Descriptor of the base, open for reading; of an overlay file with the locks of whoever reads it. */
  readonly baseFd: number;
  /** Of a live mount. */
  readonly daemon: DaemonConnection | undefined;
  /** Of an overlay file. */
  readonly overlay: OpenedOverlay | undefined;
  /** Whether a commit of it was interrupted, which another one would finish. */
  readonly isUnfinished: boolean;
  close(): void;
}

export interface SourceOptions {
  readonly purpose: HoldPurpose;
  /** Where the base of an overlay file lies now. */
  readonly base?: string | undefined;
  /** Go on although the base has changed. */
  readonly force: boolean;
}

/** @throws CowfsError: neither a disk nor an overlay file, in use, on a base that has changed */
export async function openSource(given: string, options: SourceOptions): Promise<OpenedSource> {
  const place = await findPlace(given);
  if (place === undefined) {
    if (statSync(given).isDirectory()) throw inNoMount(given);
    return openOverlaySource(resolve(given), options);
  }
  if (options.base !== undefined) {
    throw new CowfsError('usage', `--base is for overlay files; ${given} is mounted, on its base`);
  }
  return borrow(place.entry, place.path, options.purpose);
}

async function openOverlaySource(
  path: string,
  { purpose, base: givenBase, force }: SourceOptions,
): Promise<OpenedSource> {
  const { openBase } = await import('../base/open.ts');
  const { openFinished } = await import('../overlay/commit/open-finished.ts');
  const { LayerStack } = await import('../overlay/export/stack.ts');
  const { checkIdentity, identityOf } = await import('../overlay/file/identity.ts');
  const { loadMap, specOf } = await import('../overlay/file/load.ts');
  const { NoOverlayError, openOverlay } = await import('../overlay/file/open.ts');
  const { checkNotMounted } = await import('../daemon/registry.ts');
  checkNotMounted(path);
  let peeked: OpenedOverlay;
  try {
    peeked = openOverlay(path, 'overlay', 'look');
  } catch (error) {
    if (!(error instanceof NoOverlayError)) throw error;
    throw new CowfsError(
      'usage',
      `${path} is no disk of a mount of yours, and no overlay of cowfs; give one of these`,
      error,
    );
  }
  closeSync(peeked.fd);
  const basePath = givenBase ?? peeked.header.base.path;
  if (givenBase === undefined && !existsSync(basePath)) {
    throw new CowfsError('usage', `${path}: its base ${basePath} is not there; say with --base where it lies now`);
  }
  const { opened, finished } = await openFinished(
    basePath,
    () => {
      const overlay = openOverlay(path, 'overlay', purpose === 'commit' ? 'write' : 'read');
      try {
        return { overlay, base: openBase(basePath, force) };
      } catch (error) {
        closeSync(overlay.fd);
        throw error;
      }
    },
    close,
  );
  const { overlay, base } = opened;
  try {
    const warning = checkIdentity(path, overlay.header.base, identityOf(base), force);
    for (const each of [finished, ...base.warnings, warning]) if (each !== undefined) warn(each);
    const stack = new LayerStack(base.descriptor);
    const layer = stack.pushFile(overlay);
    loadMap(overlay, specOf(overlay), layer.map, 'read');
    return {
      name: path,
      disk: layer,
      basePath: base.path,
      base: stack.base,
      baseFd: base.descriptor.fd,
      daemon: undefined,
      overlay,
      isUnfinished: false,
      close: () => close(opened),
    };
  } catch (error) {
    close(opened);
    throw error;
  }
}

function close({ base, overlay }: { readonly base: OpenedBase; readonly overlay: OpenedOverlay }): void {
  closeSync(base.descriptor.fd);
  closeSync(overlay.fd);
}

async function borrow({ socket }: RegistryEntry, path: string, purpose: HoldPurpose): Promise<OpenedSource> {
  const { DaemonConnection } = await import('../daemon/control.ts');
  const { lockBase } = await import('../base/lock.ts');
  const { LayerStack } = await import('../overlay/export/stack.ts');
  const { flush } = await import('./flush.ts');
  const daemon = new DaemonConnection(socket);
  const files = new LentFiles();
  try {
    const status = await daemon.ask({ command: 'status' });
    const disk = path === '' ? onlyDiskIn(status) : diskIn(status, path);
    await flush([disk]);
    const lent = await daemon.ask({ command: 'hold', disk: disk.name, purpose }, HOLD_MS);
    const fd = files.open(lent, lent.base.fd);
    // The daemon's locks end with the mount, which may be before this does. What they warn of it has told.
    if (purpose !== 'commit') lockBase(lent.base.path, fd, true);
    const stack = new LayerStack({ fd, sizeBytes: lent.base.sizeBytes, hasHoles: lent.base.hasHoles });
    const content = await lentDisk(stack, lent, files, daemon);
    return {
      name: lent.path,
      disk: content,
      basePath: lent.base.path,
      base: stack.base,
      baseFd: fd,
      daemon,
      overlay: undefined,
      isUnfinished: lent.isUnfinished,
      close: () => {
        daemon.close();
        files.close();
      },
    };
  } catch (error) {
    daemon.close();
    files.close();
    throw error;
  }
}

/** A clone of the base, or layers over it. */
async function lentDisk(
  stack: LayerStack,
  lent: LentDisk,
  files: LentFiles,
  daemon: DaemonConnection,
): Promise<ExportSource> {
  const [first] = lent.layers;
  if (first?.isClone === true && first.storeFd !== null) {
    const { Clone } = await import('../overlay/clone.ts');
    return new Clone(files.open(lent, first.storeFd), stack.base);
  }
  for (const layer of lent.layers) await stackLent(stack, layer, lent, files, daemon);
  return stack.top;
}

async function stackLent(
  stack: LayerStack,
  { id, sizeBytes, backingLimit, storeFd, origin }: LentLayer,
  lent: LentDisk,
  files: LentFiles,
  daemon: DaemonConnection,
): Promise<void> {
  const fd = storeFd === null ? undefined : files.open(lent, storeFd);
  const layer: Layer = stack.push({ sizeBytes, backingLimit, fd, origin });
  for (let from: number | null = 0; from !== null; ) {
    const { runs, next }: { runs: readonly number[]; next: number | null } = await daemon.ask({
      command: 'map',
      layer: id,
      from,
    });
    let block: number = from;
    for (let at = 0; at < runs.length; at += 2) {
      const count = runs[at] as number;
      layer.map.set(block, count, runs[at + 1] as BlockState);
      block += count;
    }
    from = next;
  }
}

/** Files of a daemon, opened once more. */
class LentFiles {
  readonly #fds: number[] = [];

  open({ pid, path }: LentDisk, fd: number): number {
    try {
      const opened = openSync(`/proc/${pid}/fd/${fd}`, constants.O_RDONLY);
      this.#fds.push(opened);
      return opened;
    } catch (error) {
      throw new CowfsError(
        'missing',
        `${path}: what its daemon has open cannot be read (${reasonOf(error)}); run this as the user of the daemon`,
        error,
      );
    }
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}

/** Whatever it is called. */
export function isSameFile(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}
