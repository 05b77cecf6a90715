/**
 * `cowfs unmount`: takes a mount down and waits until the daemon, and with it the store, is gone.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { RegistryEntry } from '../daemon/registry.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import type { ProcessUse } from '../sys/processes.ts';

/** Within it another command that unmounts has done so, and a sync after ours has ended. */
const MOMENT_MS = 1000;
const POLL_MS = 20;
/** How long an unmounted daemon may take to go. */
const GONE_MS = 10_000;
/** One that keeps a disk has that to bring to its end: little, after the sync before, but on a slow medium. */
const GONE_KEPT_MS = 120_000;

export function registerUnmount(program: Command): void {
  program
    .command('unmount')
    .alias('umount')
    .summary('unmount a disk and discard what is not kept')
    .description(
      'Unmounts, discards what was written, and returns when the daemon is gone and its space is free. What --overlay keeps ' +
        'is complete then. Refuses while the disk is open.',
    )
    .argument('<mountpoint>')
    .option('--force', 'detach although files are open: their users get errors')
    .addHelpText(
      'after',
      `
Examples:
  cowfs unmount /mnt/vm
  cowfs unmount --force /mnt/vm`,
    )
    .action((mountpoint: string, { force }: { force?: boolean }) => unmount(mountpoint, force === true));
}

async function unmount(givenPath: string, force: boolean): Promise<void> {
  const { canonicalMountpoint } = await import('../daemon/mountpoint.ts');
  const { findEntry, isAlive } = await import('../daemon/registry.ts');
  const { reap, pollUntil } = await import('../daemon/reap.ts');
  const { mountAt } = await import('../sys/mountinfo.ts');
  const { MOUNT_TYPE } = await import('../transport/transport.ts');
  const mountpoint = canonicalMountpoint(givenPath);
  const isMounted = (): boolean => mountAt(mountpoint)?.type === MOUNT_TYPE;
  const entry = findEntry(mountpoint);
  if (entry !== undefined && !isAlive(entry)) {
    reap(entry);
    return;
  }
  if (entry === undefined && !isMounted()) {
    throw new CowfsError('usage', `${givenPath} is no cowfs mount; \`cowfs list\` shows them`);
  }
  if (force && entry !== undefined) {
    await detach(entry.socket, mountpoint);
  } else {
    if (entry?.overlay != null) {
      await syncKept(entry, entry.overlay, () => pollUntil(() => !isMounted() || !isAlive(entry), MOMENT_MS));
    }
    if (isMounted()) await unmountUnused(mountpoint, force, isMounted);
  }
  const goneMs = entry?.overlay == null ? GONE_MS : GONE_KEPT_MS;
  if (entry === undefined || pollUntil(() => !isAlive(entry), goneMs)) return;
  if (!force)
    throw new CowfsError('failed', `unmounted, but the daemon (pid ${entry.pid}) did not end in ${goneMs / 1000} s`);
  process.kill(entry.pid, 'SIGKILL');
  const gone = pollUntil(() => !isAlive(entry), GONE_MS);
  reap(entry);
  if (gone) return;
  throw new CowfsError(
    'failed',
    `unmounted, but the daemon (pid ${entry.pid}) waits for its base or store, and ends when that answers`,
  );
}

/**
 * What is kept is made durable while somebody can still be told that it cannot be.
 *
 * @param isGoing whether it is being unmounted by somebody else; he has done the same
 * @throws CowfsError of kind `failed`; then it stays mounted
 */
async function syncKept({ socket, mountpoint }: RegistryEntry, overlay: string, isGoing: () => boolean): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { flush } = await import('./flush.ts');
  try {
    const { disks } = await askDaemon(socket, { command: 'status' });
    await flush(disks.filter((disk) => disk.overlay !== null));
  } catch (error) {
    if (isGoing()) return;
    throw new CowfsError(
      'failed',
      `${mountpoint}: not all that was written could be kept in ${overlay} (${reasonOf(error)}); --force unmounts all the same`,
      error,
    );
  }
}

/**
 * Waits a moment for those that hold it only to have it written back: another command like this one, `cowfs status`.
 *
 * @throws CowfsError of kind `refused`: it is in use
 */
async function unmountUnused(mountpoint: string, force: boolean, isMounted: () => boolean): Promise<void> {
  const { usersBelow } = await import('../sys/processes.ts');
  const { unmountFuse } = await import('../transport/unmount.ts');
  for (const deadline = performance.now() + MOMENT_MS; ; await delay(POLL_MS)) {
    const reason = unmountFuse(mountpoint, force);
    // Of several that unmount at once, one does it and the others wait with it.
    if (reason === undefined || !isMounted()) return;
    const users = usersBelow(mountpoint);
    // One that has ended since is not seen any more.
    const mayEnd = isBusy(reason) && users.every(({ command }) => command === 'sync') && performance.now() < deadline;
    if (!mayEnd) throw busyError(mountpoint, reason, users);
  }
}

/** Asks the daemon to end; takes the mount away over the head of one that does not answer. */
async function detach(socket: string, mountpoint: string): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { unmountFuse } = await import('../transport/unmount.ts');
  try {
    await askDaemon(socket, { command: 'detach' });
  } catch (error) {
    const reason = unmountFuse(mountpoint, true);
    if (reason !== undefined) throw new CowfsError('failed', `${mountpoint}: ${reason}; ${reasonOf(error)}`, error);
  }
}

function busyError(mountpoint: string, reason: string, users: readonly ProcessUse[]): CowfsError {
  if (users.length === 0 && !isBusy(reason))
    return new CowfsError('refused', `${mountpoint} could not be unmounted: ${reason}`);
  const names = users.map(({ pid, command }) => (pid === 0 ? `loop device ${command}` : `${command}, pid ${pid}`));
  const who = users.length === 0 ? 'a process that this user cannot see' : names.join('; ');
  return new CowfsError('refused', `${mountpoint} is in use by ${who}; stop it first, or insist with --force`);
}

/** EBUSY, or as the helper says it. */
function isBusy(reason: string): boolean {
  return /busy/i.test(reason);
}
