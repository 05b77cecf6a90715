/**
 * How the disks of a mount keep what is written: in a sparse file with a map, or in a clone of the base that shares its
 * blocks (reflink), which the kernel can read and write past us. Decided once, before the mount. Main thread.
 *
 * A clone is not the default: files that share blocks share no page cache, so that each clone of a base that is hot starts
 * cold. 12 disks of one base, of which each reads 256 MiB at random, XFS on a disk (150 MB/s): 450 MB/s with a sparse
 * store, 260 with a clone; with O_DIRECT 445 and 215. Where the disk is as fast as memory it is 424 and 565, 504 and 722.
 * The page cache grows by the same for both, but for readahead. Besides, a clone has the file system note at the base that
 * its blocks are shared.
 */
import { closeSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { OpenedBase } from '../base/open.ts';
import { EINVAL, ENOTTY, EOPNOTSUPP, EXDEV, errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { openTempStore } from '../overlay/temp-store.ts';
import { cloneInto } from '../sys/reflink.ts';
import { userNamespace } from '../sys/user-namespace.ts';
import type { MountOptions, StoreStrategy } from './options.ts';

export interface ChosenStrategy {
  readonly strategy: StoreStrategy;
  /** Why it is that one. */
  readonly reason: string;
  /** Whether the kernel is to read and write disks by itself, if it can. */
  readonly passthrough: boolean;
}

/** linux/capability.h */
const CAP_SYS_ADMIN = 21;
/** The first with FUSE passthrough. */
const PASSTHROUGH_SINCE = [6, 9] as const;

/**
 * @throws CowfsError where `reflink` is asked for and cannot be: of kind `usage` beside what has no clones anywhere,
 *   `missing` where it is the file system that has none
 */
export function chooseStrategy(options: MountOptions, base: OpenedBase): ChosenStrategy {
  const { storeStrategy } = options;
  if (storeStrategy === 'sparse') return sparse('the default, or asked for');
  const unfit = unfitForReflink(options, base);
  const against = unfit ?? againstCloning(options, base);
  const notByKernel = againstPassthrough(options);
  if (storeStrategy === 'reflink') {
    if (against === undefined)
      return { strategy: 'reflink', reason: 'asked for', passthrough: notByKernel === undefined };
    throw new CowfsError(
      unfit === undefined ? 'missing' : 'usage',
      `--store-strategy reflink: ${against}; leave it out, or give --store-strategy sparse`,
    );
  }
  const reason = notByKernel ?? against;
  if (reason !== undefined) return sparse(reason);
  return {
    strategy: 'reflink',
    reason: 'the file system shares blocks, and the kernel can pass by',
    passthrough: true,
  };
}

function sparse(reason: string): ChosenStrategy {
  return { strategy: 'sparse', reason, passthrough: false };
}

/** What was asked for that no clone can be; undefined if nothing was. */
function unfitForReflink(options: MountOptions, { kind, path }: OpenedBase): string | undefined {
  if (options.readOnly) return 'nothing is written to a read-only mount';
  if (options.overlay !== undefined) return 'an overlay file is no clone';
  if (options.maxStoreBytes !== undefined || options.maxSessionStoreBytes !== undefined) {
    return 'only a sparse store has a quota';
  }
  return kind === 'file' ? undefined : `${path} is a ${kind}`;
}

/** What keeps base and store from sharing blocks, by trying it; undefined if nothing does. */
function againstCloning({ storeDirectory }: MountOptions, { path, descriptor }: OpenedBase): string | undefined {
  const store = openTempStore(storeDirectory);
  try {
    const errno = cloneInto(descriptor.fd, store);
    if (errno === OK) return undefined;
    if (errno === EXDEV) return `${storeDirectory} is on another file system than ${path}`;
    if ([EOPNOTSUPP, ENOTTY, EINVAL].includes(errno)) return `the file system of ${path} cannot share its blocks`;
    return `${path} cannot be cloned in ${storeDirectory} (${errnoName(errno)})`;
  } finally {
    closeSync(store);
  }
}

/** What keeps the kernel from reading and writing past us; undefined if nothing does. */
function againstPassthrough({ transport, cacheMode }: MountOptions): string | undefined {
  if (transport !== 'kernel') return `--transport ${transport} cannot pass requests by`;
  if (cacheMode === 'none') return '--cache none has every request come here';
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const [sinceMajor, sinceMinor] = PASSTHROUGH_SINCE;
  if (major < sinceMajor || (major === sinceMajor && minor < sinceMinor)) {
    return `Linux ${release()} cannot pass requests by: it needs ${PASSTHROUGH_SINCE.join('.')}`;
  }
  if (!hasCapability(CAP_SYS_ADMIN)) return 'only root can have the kernel pass requests by';
  return userNamespace().isInitial ? undefined : 'root of a user namespace cannot have the kernel pass requests by';
}

/** proc_pid_status(5), CapEff */
function hasCapability(bit: number): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> BigInt(bit)) & 1n) === 1n;
}
