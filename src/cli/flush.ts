/**
 * Makes the kernel hand over what it still caches of a disk before a command looks at the disk past the kernel: an
 * fsync of the disk file, from outside the daemon, which would wait for itself. Another process does it (sync(1)):
 * where the store has no room the fsync waits and cannot be interrupted, and the command must not wait with it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { MountStatus } from '../daemon/status.ts';
import { reasonOf } from '../lib/error.ts';
import { warn } from './exit.ts';

const POLL_MS = 50;
const LIMIT_MS = 10_000;

/** @param ask for the status as it is now */
export async function flushDisks(status: MountStatus, ask: () => Promise<MountStatus>): Promise<void> {
  const flushed = Promise.all(status.disks.map(({ path }) => flush(path))).then(() => true);
  for (const deadline = performance.now() + LIMIT_MS; performance.now() < deadline; ) {
    // The usual end, long before the first poll.
    if (await Promise.race([flushed, delay(POLL_MS, false)])) return;
    if ((await ask()).store.heldBytes > 0) return;
  }
  warn(
    `${status.mountpoint}: it did not write back in ${LIMIT_MS / 1000} s; figures leave out what the kernel still caches`,
  );
}

async function flush(path: string): Promise<void> {
  const child = spawn('sync', ['--', path], { stdio: 'ignore', detached: true });
  child.unref();
  try {
    const [code] = await once(child, 'exit');
    if (code !== 0) warn(`${path} could not be synced; figures leave out what the kernel still caches`);
  } catch (error) {
    warn(`sync: ${reasonOf(error)}; figures leave out what the kernel still caches`);
  }
}
