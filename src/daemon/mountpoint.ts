/**
 * Checks of the place to mount on, before anything is opened there: what is in the way of a mount is said here, in
 * words, and a mount whose daemon died is taken away. Main thread of the daemon, before the mount.
 */
import { lstatSync, realpathSync, statfsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { ECONNABORTED, ENOENT, ENOTCONN, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { mountAt } from '../sys/mountinfo.ts';
import { handedOverFd } from '../transport/kernel/handed-over.ts';
import { MOUNT_TYPE } from '../transport/transport.ts';
import { unmountFuse } from '../transport/unmount.ts';

/**
 * The canonical path of a mountpoint. A mount of ours is never looked at itself: one whose daemon is
 * dead or stopped answers nothing, or keeps the asker waiting for ever.
 */
export function canonicalMountpoint(path: string): string {
  const absolute = resolve(path);
  if (handedOverFd(absolute) !== undefined) return absolute;
  const place = placeOf(absolute);
  if (place !== undefined && mountAt(place)?.type === MOUNT_TYPE) return place;
  try {
    return realpathSync(absolute);
  } catch (error) {
    if (errnoOf(error) === ENOENT) throw missing(path);
    throw new CowfsError('usage', `mountpoint ${path}: ${reasonOf(error)}; check the path`, error);
  }
}

/** The path with the links in its parents resolved; undefined when a parent cannot be looked at. */
function placeOf(absolute: string): string | undefined {
  try {
    return join(realpathSync(dirname(absolute)), basename(absolute));
  } catch {
    return undefined;
  }
}

/**
 * Takes away a mount that a daemon left here when it died without a word in the registry.
 *
 * @throws CowfsError of kind `refused` when the mount is alive: another user's, as ours are in the registry
 */
export function clearDeadMount(mountpoint: string): void {
  if (removeDeadMount(mountpoint) || mountAt(mountpoint)?.type !== MOUNT_TYPE) return;
  throw new CowfsError('refused', `${mountpoint} is mounted already, by another user's cowfs; unmount it first`);
}

/**
 * Takes away what is mounted here if it is a cowfs mount that has lost its daemon.
 *
 * @returns whether it was one
 * @throws CowfsError of kind `refused` when it cannot be taken away
 */
export function removeDeadMount(mountpoint: string): boolean {
  if (mountAt(mountpoint)?.type !== MOUNT_TYPE || !isDead(mountpoint)) return false;
  const reason = unmountFuse(mountpoint, true);
  if (reason === undefined) return true;
  throw new CowfsError(
    'refused',
    `${mountpoint} has a dead mount that cannot be removed: ${reason}; umount -l it as root`,
  );
}

/**
 * @param inside paths that must not be hidden by the mount, by what they are
 * @throws CowfsError of kind `usage`
 */
export function checkMountpoint(mountpoint: string, inside: ReadonlyMap<string, string>): void {
  let isDirectory: boolean;
  try {
    isDirectory = lstatSync(mountpoint).isDirectory();
  } catch (error) {
    if (errnoOf(error) === ENOENT) throw missing(mountpoint);
    throw new CowfsError('usage', `mountpoint ${mountpoint}: ${reasonOf(error)}; give another directory`, error);
  }
  if (!isDirectory) throw new CowfsError('usage', `mountpoint ${mountpoint} is not a directory; give an empty one`);
  const prefix = mountpoint === '/' ? '/' : `${mountpoint}/`;
  for (const [path, what] of inside) {
    if (path === mountpoint || path.startsWith(prefix)) {
      throw new CowfsError('usage', `mountpoint ${mountpoint} would hide ${what} (${path}); mount elsewhere`);
    }
  }
}

/** The device number of what is mounted here now. */
export function mountedDevice(mountpoint: string): string | undefined {
  return mountAt(mountpoint)?.device;
}

function missing(path: string): CowfsError {
  return new CowfsError('usage', `mountpoint ${path} does not exist; make it first: mkdir -p ${path}`);
}

/**
 * Whether what is mounted here has lost its daemon. Asked by statfs(2), which the kernel passes on each time; stat(2) it
 * answers from its cache for a second.
 */
function isDead(mountpoint: string): boolean {
  try {
    statfsSync(mountpoint);
    return false;
  } catch (error) {
    return [ENOTCONN, ECONNABORTED].includes(errnoOf(error));
  }
}
