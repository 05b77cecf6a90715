/**
 * Linux error numbers, positive everywhere; the reply encoder negates them once. This is the one place that turns
 * an exception into an errno. Used by every layer, on every thread. It knows nothing of exit codes (cli/exit.ts).
 */
import { constants } from 'node:os';

/** A positive Linux errno, or 0 for success (errno(3)). */
export type Errno = number;

export const OK: Errno = 0;

const { errno } = constants;

export const EPERM: Errno = errno.EPERM;
export const ENOENT: Errno = errno.ENOENT;
export const EINTR: Errno = errno.EINTR;
export const EIO: Errno = errno.EIO;
export const ENXIO: Errno = errno.ENXIO;
export const EBADF: Errno = errno.EBADF;
export const EAGAIN: Errno = errno.EAGAIN;
export const EACCES: Errno = errno.EACCES;
export const EBUSY: Errno = errno.EBUSY;
export const EEXIST: Errno = errno.EEXIST;
export const EXDEV: Errno = errno.EXDEV;
export const ENODEV: Errno = errno.ENODEV;
export const ENOTDIR: Errno = errno.ENOTDIR;
export const EISDIR: Errno = errno.EISDIR;
export const ENOTEMPTY: Errno = errno.ENOTEMPTY;
export const EILSEQ: Errno = errno.EILSEQ;
export const EINVAL: Errno = errno.EINVAL;
export const ENOTTY: Errno = errno.ENOTTY;
export const EFBIG: Errno = errno.EFBIG;
export const ENOSPC: Errno = errno.ENOSPC;
export const EROFS: Errno = errno.EROFS;
export const ENOSYS: Errno = errno.ENOSYS;
export const EOPNOTSUPP: Errno = errno.EOPNOTSUPP;
const EDQUOT: Errno = errno.EDQUOT;
export const ENAMETOOLONG: Errno = errno.ENAMETOOLONG;
export const ECONNABORTED: Errno = errno.ECONNABORTED;
export const ENOTCONN: Errno = errno.ENOTCONN;

const NAMES = new Map<number, string>(
  // EAGAIN before EWOULDBLOCK, EOPNOTSUPP before ENOTSUP: the first name of a number stays.
  Object.entries(errno)
    .sort(([a], [b]) => (a === 'EWOULDBLOCK' || a === 'ENOTSUP' ? 1 : b === 'EWOULDBLOCK' || b === 'ENOTSUP' ? -1 : 0))
    .reverse()
    .map(([name, number]) => [number, name]),
);

/** `ENOSPC` for 28; `errno 999` for a number without a name. */
export function errnoName(number: Errno): string {
  return NAMES.get(number) ?? `errno ${number}`;
}

/** Numbers from here on are the kernel's own business (include/linux/errno.h, ERESTARTSYS). */
const FIRST_NON_ERRNO = 512;

/**
 * The errno inside an exception: Node's file system errors carry it negated. Anything else (a bug, no memory) is
 * EIO: whoever catches logs it.
 */
export function errnoOf(error: unknown): Errno {
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') {
    const number = Math.abs(error.errno);
    // libuv has errors of its own above the kernel's, which the kernel would refuse in a reply.
    if (number > 0 && number < FIRST_NON_ERRNO) return number;
  }
  return EIO;
}

/** Whether a store refuses more bytes: the host's file system is full, or the user's quota there is (write(2)). */
export function isNoSpace(number: Errno): boolean {
  return number === ENOSPC || number === EDQUOT;
}
