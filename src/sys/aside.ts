/**
 * Names aside: what a new file is called until it takes its place, where it needs a name before. Whoever is killed in that
 * time leaves it; whoever makes a file of the same name next sweeps it away. A lock tells which is which: a file is
 * locked before it has such a name, or its maker makes another; and the kernel lets go of the lock however its holder ends.
 * So a sweep takes what nobody works on, and nothing else. Any thread.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, existsSync, openSync, readdirSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EACCES, EAGAIN, OK } from '../lib/errno.ts';
import { lockExclusive } from './libc.ts';

/** The byte on which overlay files and redo logs are locked, too: whoever has such a one has both (fcntl(2), OFD locks). */
const LOCK_BYTE = 0;
/** Of the final name; with what is added it stays below the 143 that the strictest file system has (eCryptfs). */
const MOST_NAME_BYTES = 100;
const SUFFIX = /^[0-9a-f]{16}\.cowfs-new$/;

/** A name for a file that is to become `path`, which nobody else has. */
export function asideOf(path: string): string {
  return join(dirname(path), `${prefixOf(path)}${randomBytes(8).toString('hex')}.cowfs-new`);
}

function prefixOf(path: string): string {
  return `.${cut(basename(path))}.`;
}

/** As many whole characters as have room: file systems count bytes. */
function cut(name: string): string {
  const bytes = Buffer.from(name);
  let end = Math.min(bytes.length, MOST_NAME_BYTES);
  // 10xxxxxx goes on with a character (RFC 3629).
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}

/**
 * Locks a file against sweeps, for as long as its descriptor is open. Where a file system has no locks nobody can sweep.
 *
 * @param aside its name, if it has one already
 * @returns false when a sweep was faster: the file has lost its name, or is about to
 */
export function keepFromSweeps(fd: number, aside: string | undefined): boolean {
  const errno = lockExclusive(fd, LOCK_BYTE, 1);
  if (errno === EAGAIN || errno === EACCES) return false;
  return aside === undefined || existsSync(aside);
}

/** Removes what makers of a file left who were killed; what is another user's, or cannot be removed, stays. */
export function sweepAsides(path: string): void {
  const directory = dirname(path);
  const prefix = prefixOf(path);
  for (const name of namesIn(directory)) {
    if (name.startsWith(prefix) && SUFFIX.test(name.slice(prefix.length))) sweep(join(directory, name));
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // One may make files in a directory that one may not list.
    return [];
  }
}

function sweep(aside: string): void {
  try {
    const fd = openSync(aside, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      // Under the lock: so its maker, who may have had no time to take it, finds that out.
      if (lockExclusive(fd, LOCK_BYTE, 1) === OK) unlinkSync(aside);
    } finally {
      closeSync(fd);
    }
  } catch {
    // Somebody else has swept it, or it is not ours.
  }
}
