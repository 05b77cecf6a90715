/**
 * The place to mount on: its path, and what is in the way of a mount there, in words. Commands, and the main thread of
 * the daemon before the mount.
 */
import { lstatSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { ENOENT, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { mountAt } from '../sys/mountinfo.ts';
import { handedOverFd } from '../transport/kernel/handed-over.ts';
import { MOUNT_TYPE } from '../transport/transport.ts';

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
