/**
 * Makes the kernel hand over what it still caches of disks before a command looks at them past the kernel: an fsync,
 * from outside the daemon, which would wait for itself. Another process does it (sync(1)): where the store has no room
 * the fsync waits and cannot be interrupted.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { DiskStatus, MountStatus } from '../daemon/status.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { warn } from './exit.ts';

const POLL_MS = 50;
const LIMIT_MS = 10_000;
/** Paths for one process: a command line has an end. */
const CHUNK = 500;

/**
 * All disks of a mount, for a command that can do without: it waits for so long and warns.
 *
 * @param ask for the status as it is now
 */
export async function flushDisks(status: MountStatus, ask: () => Promise<MountStatus>): Promise<void> {
  const flushed = sync(status.disks, false, existsSync).catch((error: unknown) =>
    warn(`${reasonOf(error)}; figures leave out what the kernel still caches`),
  );
  for (const deadline = performance.now() + LIMIT_MS; performance.now() < deadline; ) {
    // The usual end, long before the first poll.
    if (await Promise.race([flushed.then(() => true), delay(POLL_MS, false)])) return;
    if ((await ask()).store.heldBytes > 0) return;
  }
  warn(
    `${status.mountpoint}: it did not write back in ${LIMIT_MS / 1000} s; figures leave out what the kernel still caches`,
  );
}

/**
 * For a command that cannot do without: it waits as long as it takes.
 *
 * @param isThere whether a path of a disk is still one; the process that serves the mount cannot look: the look would
 *   wait for an answer of its own
 * @throws CowfsError of kind `failed` when it cannot be done
 */
export async function flush(
  disks: readonly DiskStatus[],
  isThere: (path: string) => boolean = (path) => existsSync(path),
): Promise<void> {
  // What is kept is made durable, too, whether it is open or not.
  await sync(disks, true, isThere, ({ openHandles, overlay }) => openHandles > 0 || overlay !== null);
}

/** The path by which a disk can be opened. */
export function pathToOpen({ removed, path, pathByNumber }: DiskStatus): string {
  return removed ? pathByNumber : path;
}

/**
 * @param stay whether this process stays until it is done
 * @param isWanted which of the disks; of those that are not open the kernel has written back at the last close
 */
async function sync(
  disks: readonly DiskStatus[],
  stay: boolean,
  isThere: (path: string) => boolean,
  isWanted = ({ openHandles }: DiskStatus): boolean => openHandles > 0,
): Promise<void> {
  const wanted = disks.flatMap((disk) => [
    ...(isWanted(disk) ? [pathToOpen(disk)] : []),
    // What the kernel writes past us, or the daemon by its cache, lies in the cache of a clone's own file.
    ...(disk.storeFile === null ? [] : [disk.storeFile]),
  ]);
  for (let at = 0; at < wanted.length; at += CHUNK) {
    const paths = wanted.slice(at, at + CHUNK);
    const child = spawn('sync', ['--', ...paths], { stdio: 'ignore', detached: true });
    if (!stay) child.unref();
    let code: unknown;
    try {
      [code] = await once(child, 'exit');
    } catch (error) {
      throw new CowfsError('failed', `sync: ${reasonOf(error)}`, error);
    }
    // One that has lost its name since is nobody's to be asked for any more.
    if (code === 0 || !paths.every(isThere)) continue;
    throw new CowfsError('failed', `${paths[0]} could not be synced; \`cowfs status\` may say why`);
  }
}
