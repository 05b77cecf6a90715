/**
 * Mounts through libfuse 2. Main thread. The package's own `unmount` is never called: it builds a shell line of the
 * mountpoint.
 */
import { accessSync, closeSync, constants, readdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CacheMode } from '../../fs/options.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { closeOnExec, duplicate, duplicateTo, hasHungUp } from '../../sys/libc.ts';
import { leadNowhere } from '../../sys/null-device.ts';
import { openFileOf } from '../../sys/processes.ts';
import { DEVICE, deviceError } from '../device.ts';
import { mountFuse } from '../kernel/mount.ts';
import { escapeOption, MOUNT_SUBTYPE, type MountRequest } from '../transport.ts';
import { unmountFuse } from '../unmount.ts';
import type { FuseNative } from './addon.ts';
import { HANGUP_INTERVAL_MS } from './hangup.ts';

/** What fuse-native copies mountpoint and options into, NUL included (fuse-native.c). */
const ARGUMENT_BYTES = 1024;
const STDERR_FD = 2;
/** The largest request that libfuse 2 has a buffer for (its lib/fuse_kern_chan.c, MIN_BUFSIZE). */
const MAX_WRITE_BYTES = 128 * 1024;

/**
 * @returns the connection's descriptor, which is libfuse's
 * @throws CowfsError
 */
export async function mountFuseNative(fuse: FuseNative, request: MountRequest, cacheMode: CacheMode): Promise<number> {
  const options = mountOptions(request, cacheMode);
  checkRequest(request, options);
  fuse._fuseOptions = () => `-o${options}`;
  const before = new Set(connections());
  const connection = (): number | undefined => connections().find((fd) => !before.has(fd));
  const speakAgain = hush();
  const outcome = await mountOrLose(fuse, connection).finally(speakAgain);
  if (outcome instanceof Error) throw await mountError(request, outcome);
  const fuseFd = connection();
  if (outcome !== 'lost' && fuseFd !== undefined) {
    // libfuse leaves it to every program started from here: one that outlives us would keep the mount from ending.
    closeOnExec(fuseFd);
    return fuseFd;
  }
  throw new CowfsError('failed', `${request.mountpoint} was unmounted before it was ready`);
}

/**
 * Keeps what libfuse and its helper say from standard error: what went wrong is told in one line.
 *
 * @returns ends that
 */
function hush(): () => void {
  const stderr = duplicate(STDERR_FD);
  if (stderr < 0) return () => {};
  leadNowhere([STDERR_FD]);
  return () => {
    duplicateTo(stderr, STDERR_FD);
    closeSync(stderr);
  };
}

/** fuse-native tells of a mount once the kernel has greeted, and nobody of one that is gone before. */
function mountOrLose(fuse: FuseNative, connection: () => number | undefined): Promise<Error | null | 'lost'> {
  return new Promise((resolve) => {
    let seen = false;
    const timer = setInterval(() => {
      const fuseFd = connection();
      if (fuseFd === undefined ? seen : hasHungUp(fuseFd)) settle('lost');
      seen ||= fuseFd !== undefined;
    }, HANGUP_INTERVAL_MS);
    const settle = (outcome: Error | null | 'lost'): void => {
      clearInterval(timer);
      resolve(outcome);
    };
    fuse.mount(settle);
  });
}

/** See mount.fuse(8) of libfuse 2. */
function mountOptions({ source, readOnly, allowOther }: MountRequest, cacheMode: CacheMode): string {
  return [
    `fsname=${escapeOption(source)}`,
    `subtype=${MOUNT_SUBTYPE}`,
    'default_permissions',
    'big_writes',
    `max_write=${MAX_WRITE_BYTES}`,
    // Our node numbers, so that a file has the same one over each transport.
    'use_ino',
    // The flags of open(2) come with the open, so that a file made to be truncated starts empty.
    'atomic_o_trunc',
    // The cache outlives an open, unless the file's time has changed meanwhile: a command has replaced the content. What
    // libfuse was told of a file more than a millisecond ago it asks again; 0 would have it drop the cache at each open.
    ...(cacheMode === 'none' ? ['direct_io'] : ['auto_cache', 'ac_attr_timeout=0.001']),
    ...(readOnly ? ['ro'] : []),
    ...(allowOther ? ['allow_other'] : []),
  ].join(',');
}

/** Says in words what libfuse would say on standard error, or not at all. */
function checkRequest({ mountpoint, source }: MountRequest, options: string): void {
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK);
  } catch (error) {
    throw deviceError(error);
  }
  if (Buffer.byteLength(mountpoint) >= ARGUMENT_BYTES) {
    throw new CowfsError(
      'usage',
      `mountpoint ${mountpoint}: fuse-native takes at most ${ARGUMENT_BYTES - 1} bytes; mount on a shorter path`,
    );
  }
  if (Buffer.byteLength(options) >= ARGUMENT_BYTES - '-o'.length) {
    throw new CowfsError('usage', `base ${source}: its path is too long for fuse-native; use --transport kernel`);
  }
  // fuse-native would call it "in use".
  if (statSync(mountpoint).dev !== statSync(dirname(mountpoint)).dev) {
    throw new CowfsError(
      'usage',
      `mountpoint ${mountpoint} is a mount of its own, which fuse-native does not take; mount on a directory inside it`,
    );
  }
}

/**
 * libfuse's reason is lost, as its helper inherits no standard error from Node. The same mount without libfuse fails for
 * the same reason, and gives it.
 */
async function mountError(request: MountRequest, error: Error): Promise<CowfsError> {
  const { mountpoint } = request;
  let left: string | undefined;
  try {
    closeSync(await mountFuse(request));
    left = unmountFuse(mountpoint, true);
  } catch (reason) {
    if (!(reason instanceof CowfsError)) throw reason;
    return reason;
  }
  return new CowfsError(
    'missing',
    `libfuse could not mount ${mountpoint}${left === undefined ? '' : ` (and it stays mounted: ${left})`}: ` +
      `${reasonOf(error)}; without root it needs fusermount on the PATH; --transport kernel does not`,
    error,
  );
}

/** Descriptors of this process that are FUSE connections. */
function connections(): number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => openFileOf(fd) === DEVICE);
}
