/**
 * Takes mounts down, whichever transport made them. Commands, and the daemon only after its connection is gone: it would
 * wait for itself.
 */
import { spawnSync } from 'node:child_process';
import { EPERM, errnoName, OK } from '../lib/errno.ts';
import { reasonOf } from '../lib/error.ts';
import { MNT_DETACH, umount2 } from '../sys/libc.ts';

/** libfuse's set-uid helper, which mounts and unmounts for users. */
export const FUSERMOUNT = 'fusermount3';

/**
 * @param lazy detach now, although files are open
 * @returns undefined, or why it could not be unmounted
 */
export function unmountFuse(mountpoint: string, lazy: boolean): string | undefined {
  if (process.geteuid?.() === 0) {
    const errno = umount2(mountpoint, lazy ? MNT_DETACH : 0);
    if (errno === OK) return undefined;
    if (errno !== EPERM) return errnoName(errno);
  }
  const helper = spawnSync(FUSERMOUNT, [...(lazy ? ['-u', '-z'] : ['-u']), '--', mountpoint], { encoding: 'utf8' });
  if (helper.error !== undefined) return `${FUSERMOUNT}: ${reasonOf(helper.error)}`;
  return helper.status === 0 ? undefined : helperMessage(helper.stderr);
}

/** The last thing that the helper said. */
export function helperMessage(stderr: string): string {
  return (
    stderr
      .trim()
      .split('\n')
      .at(-1)
      ?.replace(/^fusermount3?: /, '') || 'no reason given'
  );
}
