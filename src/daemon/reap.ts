/**
 * Finishes what a killed daemon and its watcher left: the mount, the registry entry, a private mountpoint. Called by
 * whoever finds an entry of the dead: a new mount of the place, `list`, `unmount`.
 */
import { startTimeOf } from '../sys/processes.ts';
import { removeDeadMount } from './dead-mount.ts';
import { removeOrphans, removePrivate } from './private-mountpoint.ts';
import { allEntries, isAlive, type RegistryEntry, removeEntry } from './registry.ts';

const POLL_MS = 5;
const WATCHER_MS = 3000;

/**
 * The watcher goes first: it wakes when the daemon dies and must not meet a new mount at the old place. One that does
 * not end by itself is killed.
 *
 * @throws CowfsError of kind `refused` when the dead mount cannot be taken away
 */
export function reap(entry: RegistryEntry): void {
  const watcherLives = (): boolean => entry.watcherPid > 0 && startTimeOf(entry.watcherPid) === entry.watcherStartTime;
  if (!pollUntil(() => !watcherLives(), WATCHER_MS)) {
    process.kill(entry.watcherPid, 'SIGKILL');
    pollUntil(() => !watcherLives(), WATCHER_MS);
  }
  const { mountpoint } = entry;
  removeDeadMount(mountpoint);
  if (entry.privateMountpoint) removePrivate(mountpoint);
  removeEntry(entry);
}

/** The entries of live daemons; what the dead left is cleared away. */
export function liveEntries(): RegistryEntry[] {
  const entries = allEntries();
  removeOrphans(entries.map(({ mountpoint }) => mountpoint));
  return entries.filter((entry) => {
    if (isAlive(entry)) return true;
    reap(entry);
    return false;
  });
}

/** Waits for something that no event tells of; false after `timeoutMs`. For commands, not for a daemon at work. */
export function pollUntil(done: () => boolean, timeoutMs: number): boolean {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (const deadline = performance.now() + timeoutMs; performance.now() < deadline; ) {
    if (done()) return true;
    Atomics.wait(sleeper, 0, 0, POLL_MS);
  }
  return done();
}
