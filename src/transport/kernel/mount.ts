/**
 * Opens a FUSE connection and mounts it: by mount(2) where we may, through fusermount3 elsewhere. Main thread and
 * `doctor`.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { EPERM, type Errno, errnoName, OK } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { MS_NODEV, MS_NOSUID, MS_RDONLY, mount } from '../../sys/libc.ts';
import { DEVICE, deviceError } from '../device.ts';
import { escapeOption, MOUNT_SUBTYPE, MOUNT_TYPE, type MountRequest } from '../transport.ts';
import { FUSERMOUNT, helperMessage } from '../unmount.ts';

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

function openDevice(): number {
  try {
    return openSync(DEVICE, 'r+');
  } catch (error) {
    throw deviceError(error);
  }
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
    `fsname=${escapeOption(request.source)}`,
    `subtype=${MOUNT_SUBTYPE}`,
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
