/**
 * Opens a FUSE connection and mounts it: by mount(2) where we may, through fusermount3 elsewhere. Also takes mounts down. Main thread and commands.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { EACCES, EPERM, type Errno, errnoName, errnoOf, OK } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { MNT_DETACH, MS_NODEV, MS_NOSUID, MS_RDONLY, mount, umount2 } from '../../sys/libc.ts';

/** `fuse.SUBTYPE`, as mount(8) and /proc/self/mountinfo show it. */
export const MOUNT_TYPE = 'fuse.cowfs';
const FUSERMOUNT = 'fusermount3';
const DEVICE = '/dev/fuse';

export interface MountRequest {
  readonly mountpoint: string;
  /** Shown as the mount's source. */
  readonly source: string;
  readonly readOnly: boolean;
  readonly allowOther: boolean;
}

/**
 * @returns the connection's descriptor, close-on-exec
 * @throws CowfsError of kind `missing` when this machine or user lacks what it takes
 */
export async function mountFuse(request: MountRequest): Promise<number> {
  if (process.geteuid?.() !== 0) return mountByHelper(request);
  const fd = openDevice();
  const errno = mountByCall(fd, request);
  if (errno === OK) return fd;
  closeSync(fd);
  // Root without CAP_SYS_ADMIN, as in most containers: the set-uid helper may still be allowed to.
  if (errno === EPERM) return mountByHelper(request);
  throw new CowfsError('failed', `mount ${request.mountpoint}: ${errnoName(errno)}; see \`cowfs doctor\``);
}

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

function openDevice(): number {
  try {
    return openSync(DEVICE, 'r+');
  } catch (error) {
    throw new CowfsError('missing', `${DEVICE}: ${reasonOf(error)}; ${deviceHint(error)}`, error);
  }
}

/** What to do about a device that cannot be opened. */
export function deviceHint(error: unknown): string {
  return errnoOf(error) === EACCES
    ? `let root make it usable for all, as distributions do: chmod 0666 ${DEVICE}`
    : 'load the module (modprobe fuse) or give the container the device';
}

function mountByCall(fd: number, request: MountRequest): Errno {
  const flags = MS_NOSUID | MS_NODEV | (request.readOnly ? MS_RDONLY : 0);
  const options = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.geteuid?.() ?? 0}`,
    `group_id=${process.getegid?.() ?? 0}`,
    'default_permissions',
    ...(request.allowOther ? ['allow_other'] : []),
  ];
  return mount(request.source, request.mountpoint, MOUNT_TYPE, flags, options.join(','));
}

/** libfuse's protocol: the helper mounts and sends the descriptor over the socket named in _FUSE_COMMFD. */
async function mountByHelper(request: MountRequest): Promise<number> {
  const { receiveFd, socketPair } = await import('../../sys/scm-rights.ts');
  const [ours, theirs] = socketPair();
  const options = [
    request.readOnly ? 'ro' : 'rw',
    'nosuid',
    'nodev',
    'default_permissions',
    // The helper takes commas for separators unless a backslash stands before.
    `fsname=${request.source.replace(/[\\,]/g, '\\$&')}`,
    'subtype=cowfs',
    ...(request.allowOther ? ['allow_other'] : []),
  ];
  const helper = spawnSync(FUSERMOUNT, ['-o', options.join(','), '--', request.mountpoint], {
    stdio: ['ignore', 'ignore', 'pipe', theirs],
    env: { ...process.env, _FUSE_COMMFD: '3' },
    encoding: 'utf8',
  });
  closeSync(theirs);
  if (helper.error !== undefined) {
    closeSync(ours);
    throw new CowfsError(
      'missing',
      `${FUSERMOUNT}: ${reasonOf(helper.error)}; install it (apt-get install fuse3) or mount as root`,
      helper.error,
    );
  }
  const fd = receiveFd(ours);
  if (helper.status === 0 && fd >= 0) return fd;
  const message = helperMessage(helper.stderr);
  const hint = message.includes('user_allow_other')
    ? 'let root put user_allow_other into /etc/fuse.conf, or leave out --allow-other'
    : message.includes(DEVICE) && message.includes('ermission')
      ? `let root make it usable for all: chmod 0666 ${DEVICE}`
      : 'see `cowfs doctor`';
  throw new CowfsError('missing', `${FUSERMOUNT} could not mount ${request.mountpoint}: ${message}; ${hint}`);
}

function helperMessage(stderr: string): string {
  return (
    stderr
      .trim()
      .split('\n')
      .at(-1)
      ?.replace(/^fusermount3?: /, '') || 'no reason given'
  );
}
