/**
 * Mounts that a privileged parent made: it passes `/dev/fd/N`, an open connection, in the place of the mountpoint
 * (libfuse's convention: `mount.fuse3 -o drop_privileges`, container runtimes). Commands, before the daemon starts.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { CowfsError } from '../../lib/error.ts';
import { readMounts } from '../../sys/mountinfo.ts';
import { DEVICE } from '../device.ts';

const PREFIX = '/dev/fd/';

/** The descriptor in such a mountpoint; undefined for any other. */
export function handedOverFd(mountpoint: string): number | undefined {
  const number = mountpoint.startsWith(PREFIX) ? mountpoint.slice(PREFIX.length) : '';
  return /^\d+$/.test(number) ? Number(number) : undefined;
}

/**
 * @throws CowfsError of kind `usage` for a descriptor that is no connection
 */
export function checkConnection(fd: number): void {
  const link = readlinkSync(`/proc/self/fd/${fd}`, 'utf8');
  if (link === DEVICE) return;
  throw new CowfsError(
    'usage',
    `${PREFIX}${fd} is ${link}, no FUSE connection; give a mountpoint, or have the parent that mounts pass its descriptor`,
  );
}

/**
 * Where the connection is mounted. Newer kernels tell its number in fdinfo, which is the minor number of the mounted
 * file system; elsewhere, and for a mount in another namespace, it stays unknown and is its parent's to take away.
 */
export function handedOverMountpoint(fd: number): string | undefined {
  const connection = /^fuse_connection:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  if (connection === undefined) return undefined;
  return readMounts().findLast(({ device }) => device === `0:${connection}`)?.mountpoint;
}
