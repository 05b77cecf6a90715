/**
 * Mounts that have lost their daemon: telling them from live ones, and taking them away. Commands, and the main thread of
 * a daemon before it mounts there.
 */
import { statfsSync } from 'node:fs';
import { ECONNABORTED, ENOTCONN, errnoOf } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { mountAt } from '../sys/mountinfo.ts';
import { MOUNT_TYPE } from '../transport/transport.ts';
import { unmountFuse } from '../transport/unmount.ts';

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
