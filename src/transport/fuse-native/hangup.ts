/**
 * Waits for the end of libfuse's connection, of which fuse-native tells nobody. Main thread, by looking: a thread that
 * waited in poll(2) would be woken by every request, and so cost each of them.
 */
import { hasHungUp } from '../../sys/libc.ts';

export const HANGUP_INTERVAL_MS = 50;

/** Resolves when the file system is unmounted, or its connection aborted. */
export function untilHangup(fuseFd: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      // Its thread closes the descriptor then, and the number may be somebody else's: the next look comes soon enough.
      if (!hasHungUp(fuseFd)) return;
      clearInterval(timer);
      resolve();
    }, HANGUP_INTERVAL_MS);
  });
}
