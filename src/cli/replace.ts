/**
 * Replaces the content of a disk, once it is closed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { askDaemon } from '../daemon/control.ts';
import type { ControlRequest } from '../daemon/control-requests.ts';
import { CowfsError } from '../lib/error.ts';

/** Most time that a daemon takes to free what a disk had in its store. */
const REPLACE_MS = 120_000;
/** close(2) reaches the daemon in its own time. */
const CLOSED_MS = 500;
const POLL_MS = 20;

/** @throws CowfsError as the daemon says: open, busy, no such disk */
export async function replaceContent(
  socket: string,
  request: Extract<ControlRequest, { command: 'reset' | 'rollback' }>,
): Promise<void> {
  for (const deadline = performance.now() + CLOSED_MS; ; ) {
    try {
      await askDaemon(socket, request, REPLACE_MS);
      return;
    } catch (error) {
      const mayClose = error instanceof CowfsError && error.kind === 'refused' && performance.now() < deadline;
      if (!mayClose) throw error;
    }
    await delay(POLL_MS);
  }
}
