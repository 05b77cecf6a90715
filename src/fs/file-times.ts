/**
 * The times of a disk that is one file: whoever writes to it past us (the kernel) tells nobody, but the file's own time
 * does. Any thread, state in shared memory.
 */
import type { Stats } from 'node:fs';
import type { Sessions } from '../overlay/sessions.ts';
import type { SharedAttributes } from './attributes.ts';
import type { AttributeChange } from './ops.ts';

/** A tick where there are fewest (CONFIG_HZ_100). */
const TICK_MS = 10;

/** Has the disk's times say what the file's do, if it was written since the last look. */
export function touchIfWritten(attributes: SharedAttributes, { cloned }: Sessions, session: number, file: Stats): void {
  if (cloned.noteTime(session, file.mtimeMs)) attributes.touch(preciseMs(file.mtimeMs));
}

/** Changes what a caller wants changed but the size; the caller is inside of the session. */
export function changeDisk(
  attributes: SharedAttributes,
  sessions: Sessions,
  session: number,
  change: AttributeChange,
): void {
  const file = sessions.cloned.stats(session);
  if (file !== undefined) {
    touchIfWritten(attributes, sessions, session, file);
    // A write in this very tick is to be told from those before.
    if (change.mtime !== undefined) sessions.cloned.resetTime(session);
  }
  attributes.change(change);
}

/** Times of files are those of the last tick (current_time()); one of just now is not to seem older than what came before. */
function preciseMs(tickMs: number): number {
  const now = Date.now();
  return now - tickMs < TICK_MS ? now : Math.floor(tickMs);
}
