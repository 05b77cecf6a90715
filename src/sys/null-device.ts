/**
 * Descriptors that lead nowhere (null(4)). Main thread.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { duplicateTo } from './libc.ts';

/** From now on reads of these descriptors end at once, and what is written to them is gone. */
export function leadNowhere(fds: readonly number[]): void {
  const nothing = openSync('/dev/null', constants.O_RDWR);
  for (const fd of fds) duplicateTo(nothing, fd);
  closeSync(nothing);
}
