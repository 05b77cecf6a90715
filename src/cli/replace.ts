/**
 * Replaces the content of a disk that the kernel may cache. The daemon must not have the kernel drop its cache: it would
 * wait for itself. So from the replacement on it has every opener drop what is cached, as part of open(2); this process
 * opens the disk, after which nothing stale is left, and tells the daemon so. If it is killed before, openers go on
 * dropping the cache: slower, and right.
 */
import { closeSync, constants, fstatSync, openSync, truncateSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { askDaemon } from '../daemon/control.ts';
import type { ControlRequest, Replaced } from '../daemon/control-requests.ts';
import { CowfsError } from '../lib/error.ts';

/** Most time that a daemon takes to free what a disk had in its store. */
const REPLACE_MS = 120_000;
/** close(2) reaches the daemon in its own time. */
const CLOSED_MS = 500;
const POLL_MS = 20;
const TOLD_MS = 2;

/** @throws CowfsError as the daemon says: open, busy, no such disk */
export async function replaceContent(
  socket: string,
  path: string,
  request: Extract<ControlRequest, { command: 'reset' | 'rollback' }>,
): Promise<void> {
  const { sizeBytes, replacement } = await untilClosed(() => askDaemon(socket, request, REPLACE_MS));
  // libfuse 2 goes by what it was told of the file within the last millisecond.
  await delay(TOLD_MS);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    // With the writeback cache the kernel believes its own size, until it is changed through it.
    if (fstatSync(fd).size !== sizeBytes) truncateSync(path, sizeBytes);
  } finally {
    closeSync(fd);
  }
  await askDaemon(socket, { command: 'cache-dropped', disk: request.disk, replacement });
}

async function untilClosed(ask: () => Promise<Replaced>): Promise<Replaced> {
  for (const deadline = performance.now() + CLOSED_MS; ; ) {
    try {
      return await ask();
    } catch (error) {
      const mayClose = error instanceof CowfsError && error.kind === 'refused' && performance.now() < deadline;
      if (!mayClose) throw error;
    }
    await delay(POLL_MS);
  }
}
