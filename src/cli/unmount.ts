/**
 * `cowfs unmount`: takes a mount down and waits until the daemon, and with it the store, is gone.
 */
import type { Command } from 'commander';
import type { RegistryEntry } from '../daemon/registry.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';

/** How long an unmounted daemon may take to go. */
const GONE_MS = 10_000;
/** One that keeps a disk has that to bring to its end: little, after the sync before, but on a slow medium. */
const GONE_KEPT_MS = 120_000;

export function registerUnmount(program: Command): void {
  program
    .command('unmount')
    .alias('umount')
    .summary('unmount a disk and discard what was written')
    .description('Unmounts and returns when the daemon is gone and its space is free. Refuses while the disk is open.')
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
  const { unmountFuse } = await import('../transport/unmount.ts');
  const mountpoint = canonicalMountpoint(givenPath);
  const entry = findEntry(mountpoint);
  if (entry !== undefined && !isAlive(entry)) {
    reap(entry);
    return;
  }
  if (entry === undefined && mountAt(mountpoint)?.type !== MOUNT_TYPE) {
    throw new CowfsError('usage', `${givenPath} is no cowfs mount; \`cowfs list\` shows them`);
  }
  if (force && entry !== undefined) {
    await detach(entry.socket, mountpoint);
  } else {
    if (entry?.overlay != null) await syncKept(entry, entry.overlay);
    const reason = unmountFuse(mountpoint, force);
    // Of several that unmount at once, one does it and the others wait with it.
    const isMounted = mountAt(mountpoint)?.type === MOUNT_TYPE;
    if (reason !== undefined && isMounted) throw await busyError(mountpoint, reason);
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
 * @throws CowfsError of kind `failed`; then it stays mounted
 */
async function syncKept({ socket, mountpoint }: RegistryEntry, overlay: string): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { flush } = await import('./flush.ts');
  try {
    const { disks } = await askDaemon(socket, { command: 'status' });
    await flush(disks.filter((disk) => disk.overlay !== null));
  } catch (error) {
    throw new CowfsError(
      'failed',
      `${mountpoint}: not all that was written could be kept in ${overlay} (${reasonOf(error)}); --force unmounts all the same`,
      error,
    );
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

async function busyError(mountpoint: string, reason: string): Promise<CowfsError> {
  const { usersBelow } = await import('../sys/processes.ts');
  const users = usersBelow(mountpoint).map(({ pid, command }) =>
    pid === 0 ? `loop device ${command}` : `${command}, pid ${pid}`,
  );
  if (users.length === 0 && !/busy/i.test(reason))
    return new CowfsError('refused', `${mountpoint} could not be unmounted: ${reason}`);
  const who = users.length === 0 ? 'a process that this user cannot see' : users.join('; ');
  return new CowfsError('refused', `${mountpoint} is in use by ${who}; stop it first, or insist with --force`);
}
