/**
 * Waits for the end of libfuse's connection, of which fuse-native tells nobody. Main thread, by looking: a thread that
 * waited in poll(2) would be woken by every request, and so cost each of them.
 */
import { hasHungUp } from '../../sys/libc.ts';
import { openFileOf } from '../../sys/processes.ts';

export const HANGUP_INTERVAL_MS = 50;

/** Resolves when the file system is unmounted, or its connection aborted. */
export function untilHangup(fuseFd: number): Promise<void> {
  const connection = openFileOf(fuseFd);
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      // libfuse closes it by then, most often, and the number may be another file's.
      if (openFileOf(fuseFd) === connection && !hasHungUp(fuseFd)) return;
      clearInterval(timer);
      resolve();
    }, HANGUP_INTERVAL_MS);
  });
}
