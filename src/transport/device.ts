/**
 * /dev/fuse, and what to do about one that cannot be opened.
 */
import { EACCES, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';

export const DEVICE = '/dev/fuse';

export function deviceError(error: unknown): CowfsError {
  return new CowfsError('missing', `${DEVICE}: ${reasonOf(error)}; ${deviceHint(error)}`, error);
}

export function deviceHint(error: unknown): string {
  return errnoOf(error) === EACCES
    ? `let root make it usable for all, as distributions do: chmod 0666 ${DEVICE}`
    : 'load the module (modprobe fuse) or give the container the device';
}
