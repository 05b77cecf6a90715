/**
 * Mountpoints that `run` makes for one mount alone: directories in the runtime directory, named after the process that
 * made them. What a process leaves that was killed before its mount was registered, the next command removes.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { ENOENT, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { startTimeOf } from '../sys/processes.ts';
import { runtimeDirectory } from './runtime-directory.ts';

/** `disk-PID-STARTTIME-XXXXXX`: a later process with its number has started later. */
const NAME = /^disk-(\d+)-(\d+)-/;

export function makePrivate(): string {
  const parent = parentDirectory();
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  return mkdtempSync(join(parent, `disk-${process.pid}-${startTimeOf(process.pid) ?? 0}-`));
}

/** It may be gone already. */
export function removePrivate(mountpoint: string): void {
  try {
    rmdirSync(mountpoint);
  } catch (error) {
    if (errnoOf(error) !== ENOENT) throw new CowfsError('failed', `${mountpoint}: ${reasonOf(error)}`, error);
  }
}

/** @param registered those that are taken care of otherwise: there may be something mounted */
export function removeOrphans(registered: readonly string[]): void {
  const parent = parentDirectory();
  for (const name of namesIn(parent)) {
    const [, pid, startTime] = NAME.exec(name) ?? [];
    const mountpoint = join(parent, name);
    const isOrphan = pid !== undefined && startTimeOf(Number(pid)) !== Number(startTime);
    if (isOrphan && !registered.includes(mountpoint)) removePrivate(mountpoint);
  }
}

function parentDirectory(): string {
  return join(runtimeDirectory(), 'run');
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === ENOENT) return [];
    throw new CowfsError('failed', `${directory}: ${reasonOf(error)}`, error);
  }
}
