/**
 * Opens a base: decides what it is, refuses what cannot be one, locks it and remembers what it looked like. Main
 * thread of the daemon, once per mount. The descriptor stays open for the life of the daemon.
 */
import { closeSync, constants, fstatSync, openSync, realpathSync, type Stats, statSync } from 'node:fs';
import { EBUSY, EPERM, errnoName, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { blockDeviceSize } from '../sys/libc.ts';
import type { BaseDescriptor } from './base.ts';
import { formatWarning } from './format.ts';
import { lockBase } from './lock.ts';

export interface OpenedBase {
  /** Canonical path. */
  readonly path: string;
  readonly kind: 'file' | 'block device';
  readonly descriptor: BaseDescriptor;
  /** As found at opening; times and block count serve the disk's first attributes. */
  readonly stats: Stats;
  readonly warnings: readonly string[];
}

/**
 * @param force go on although somebody else writes to the base
 * @throws CowfsError that names the path and what to do
 */
export function openBase(givenPath: string, force: boolean): OpenedBase {
  const path = canonicalPath(givenPath);
  const stats = statSync(path);
  const kind = kindOf(path, stats);
  const warnings = kind === 'block device' ? claimWarnings(path, force) : [];
  const fd = openForReading(path);
  try {
    const sizeBytes = kind === 'file' ? stats.size : blockDeviceSize(fd);
    if (sizeBytes < 0) throw new CowfsError('failed', `${path}: its size cannot be read (${errnoName(-sizeBytes)})`);
    if (sizeBytes === 0) {
      throw new CowfsError(
        'usage',
        `${path} is empty; give an image with content, or make one: truncate -s 1G ${path}`,
      );
    }
    warnings.push(...lockBase(path, fd, force));
    const warning = formatWarning(path, fd);
    if (warning !== undefined) warnings.push(warning);
    return {
      path,
      kind,
      descriptor: { fd, sizeBytes, hasHoles: kind === 'file' },
      stats: fstatSync(fd),
      warnings,
    };
  } catch (error) {
    closeSync(fd);
    throw error instanceof CowfsError ? error : new CowfsError('failed', `${path}: ${reasonOf(error)}`, error);
  }
}

function canonicalPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new CowfsError('usage', `base ${path}: ${reasonOf(error)}; check the path`, error);
  }
}

function kindOf(path: string, stats: Stats): OpenedBase['kind'] {
  if (stats.isFile()) return 'file';
  if (stats.isBlockDevice()) return 'block device';
  const what = stats.isDirectory() ? 'a directory' : stats.isFIFO() ? 'a FIFO' : 'neither a file nor a block device';
  throw new CowfsError('usage', `base ${path} is ${what}; give a raw disk image or a block device`);
}

/** Reading must leave no trace, so the access time stays too where we may say so (open(2), O_NOATIME). */
function openForReading(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOATIME);
  } catch (error) {
    if (errnoOf(error) !== EPERM) throw unreadable(path, error);
  }
  try {
    return openSync(path, constants.O_RDONLY);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): CowfsError {
  return new CowfsError('usage', `base ${path}: ${reasonOf(error)}; it must be readable for this user`, error);
}

/**
 * A device that is mounted, or part of an array or a volume group, is claimed: an exclusive open fails (open(2),
 * O_EXCL). The claim is only tried, not kept, so that many disks can share one device.
 */
function claimWarnings(path: string, force: boolean): string[] {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL));
    return [];
  } catch (error) {
    if (errnoOf(error) !== EBUSY) throw unreadable(path, error);
  }
  const found = `${path} is in use (mounted, or part of an array or a volume group)`;
  if (force) return [`${found}; going on because of --force: what is written to it may show through`];
  throw new CowfsError('refused', `${found}; unmount it first, or insist with --force`);
}
