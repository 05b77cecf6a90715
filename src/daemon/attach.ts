/**
 * Gets a place for a mount and has the transport mount there: claims the mountpoint, clears what a dead daemon left,
 * mounts, and starts the watcher. Main thread. Whatever succeeded is in the take-down list when this returns or throws.
 */
import { realpathSync } from 'node:fs';
import type { OpenedBase } from '../base/open.ts';
import { CowfsError } from '../lib/error.ts';
import type { Connection } from '../transport/transport.ts';
import { clearDeadMount } from './dead-mount.ts';
import type { Journal } from './journal.ts';
import { checkMountpoint, mountedDevice } from './mountpoint.ts';
import type { MountOptions } from './options.ts';
import { removePrivate } from './private-mountpoint.ts';
import { reap } from './reap.ts';
import { claimMountpoint, fileOf, nameWatcher, type RegistryEntry, removeEntry } from './registry.ts';
import type { TakeDown } from './take-down.ts';
import { Watcher } from './watcher.ts';

export interface Attachment {
  readonly connection: Connection;
  readonly entry: RegistryEntry;
  /** `major:minor`; unknown only for a mount that a parent made where we cannot see it. */
  readonly device: string | undefined;
  readonly watcher: Watcher | undefined;
}

/** @throws CowfsError: the place is taken or unfit, or this user cannot mount */
export async function attach(
  options: MountOptions,
  base: OpenedBase,
  mount: () => Promise<Connection>,
  journal: Journal,
  takeDown: TakeDown,
): Promise<Attachment> {
  const { mountpoint, privateMountpoint } = options;
  const entry = claimMountpoint(
    { mountpoint, base: base.path, overlay: options.overlay ?? null, privateMountpoint },
    reap,
  );
  takeDown.add(() => removeEntry(entry));
  if (privateMountpoint) takeDown.add(() => removePrivate(mountpoint));
  if (options.fuseFd === undefined) prepareMountpoint(options, base);
  const connection = await mount();
  const device = mountedDevice(mountpoint);
  if (device === undefined) return { connection, entry, device, watcher: undefined };

  const removeFiles = [fileOf(mountpoint), entry.socket] as const;
  const startWatcher = (): Watcher =>
    new Watcher({ device, mountpoint, removeFiles, privateMountpoint }, (message) => journal.warn(message));
  let watcher: Watcher | undefined;
  takeDown.add(async () => {
    // After a plain umount(8) it is gone, and what is there then is not ours.
    if (mountedDevice(mountpoint) !== device) return watcher?.dismiss();
    return leave(mountpoint, watcher, startWatcher);
  });
  watcher = startWatcher();
  nameWatcher(entry, await watcher.started());
  return { connection, entry, device, watcher };
}

/** @throws CowfsError when nothing can be mounted there */
function prepareMountpoint({ mountpoint, storeDirectory, logFile }: MountOptions, base: OpenedBase): void {
  const hidden = new Map([
    [base.path, 'the base'],
    [realpathSync(storeDirectory), 'the store'],
  ]);
  // The journal has opened it, so it is there.
  if (logFile !== undefined) hidden.set(realpathSync(logFile), 'the log file');
  clearDeadMount(mountpoint);
  checkMountpoint(mountpoint, hidden);
}

/**
 * Has the watcher take our mount away, or another one if it was killed: unmounting waits for what our own workers have
 * yet to serve.
 *
 * @throws CowfsError of kind `failed` when the mount stays; it dies with this process, and the next command clears it
 */
async function leave(mountpoint: string, watcher: Watcher | undefined, startWatcher: () => Watcher): Promise<void> {
  if ((await watcher?.detach()) === true) return;
  if (await startWatcher().detach()) return;
  throw new CowfsError('failed', `${mountpoint} could not be unmounted; try umount -l ${mountpoint}`);
}
