/**
 * Sees every change that the overlay file of a test gets, and can make calls fail. For `vi.mock` of `node:fs` and of
 * `src/sys/libc.ts`; all calls go to the real file, too, but for fdatasync(2), which would only cost time. Imports no
 * modules: what it replaces would import it.
 */
import type * as fs from 'node:fs';
import type * as libc from '../../../src/sys/libc.ts';

export type FileEvent =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'punch'; readonly offset: number; readonly length: number }
  | { readonly kind: 'reserve'; readonly offset: number; readonly length: number; readonly keepsSize: boolean }
  | { readonly kind: 'truncate'; readonly sizeBytes: number }
  | { readonly kind: 'sync' };

export interface Tap {
  /** Looked at whenever it is opened by this name for writing. */
  readonly path: string;
  fd: number;
  /** An errno makes the call fail, before anything has happened. */
  before?: (event: FileEvent) => number | undefined;
  /** It has happened. */
  after?: (event: FileEvent) => void;
}

/** fcntl.h */
const O_RDWR = 2;
/** linux/falloc.h */
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;

/** One file at a time. */
export const tap: { current: Tap | undefined } = { current: undefined };

function errnoFor(fd: number, event: FileEvent): number | undefined {
  return tap.current?.fd === fd ? tap.current.before?.(event) : undefined;
}

function seen(fd: number, event: FileEvent): void {
  if (tap.current?.fd === fd) tap.current.after?.(event);
}

function failure(errno: number): Error {
  return Object.assign(new Error(`errno ${errno}, as the test wants it`), { errno: -errno });
}

/** Runs a call of node:fs with the tap around it. */
function watched<T>(fd: number, event: FileEvent, call: () => T): T {
  const errno = errnoFor(fd, event);
  if (errno !== undefined) throw failure(errno);
  const result = call();
  seen(fd, event);
  return result;
}

export function tappedFs(real: typeof fs): typeof fs {
  const isTapped = (fd: number): boolean => tap.current?.fd === fd;
  return {
    ...real,
    openSync: (path, flags, mode) => {
      const fd = real.openSync(path, flags, mode);
      const isForWriting = typeof flags === 'number' && (flags & O_RDWR) !== 0;
      if (tap.current !== undefined && path === tap.current.path && isForWriting) tap.current.fd = fd;
      return fd;
    },
    closeSync: (fd) => {
      if (tap.current?.fd === fd) tap.current.fd = -1;
      real.closeSync(fd);
    },
    writeSync: ((fd: number, from: Uint8Array, at: number, length: number, offset: number) => {
      if (!isTapped(fd)) return real.writeSync(fd, from, at, length, offset);
      const bytes = Buffer.from(from.subarray(at, at + length));
      return watched(fd, { kind: 'write', offset, bytes }, () => real.writeSync(fd, from, at, length, offset));
    }) as typeof fs.writeSync,
    ftruncateSync: (fd, length) => {
      const sizeBytes = length ?? 0;
      watched(fd, { kind: 'truncate', sizeBytes }, () => real.ftruncateSync(fd, sizeBytes));
    },
    fdatasyncSync: (fd) => watched(fd, { kind: 'sync' }, () => (isTapped(fd) ? undefined : real.fdatasyncSync(fd))),
  };
}

export function tappedLibc(real: typeof libc): typeof libc {
  return {
    ...real,
    fallocate: (fd, mode, offset, length) => {
      const event: FileEvent =
        (mode & PUNCH_HOLE) !== 0
          ? { kind: 'punch', offset, length }
          : { kind: 'reserve', offset, length, keepsSize: (mode & KEEP_SIZE) !== 0 };
      const failed = errnoFor(fd, event);
      if (failed !== undefined) return failed;
      const errno = real.fallocate(fd, mode, offset, length);
      if (errno === 0) seen(fd, event);
      return errno;
    },
  };
}
