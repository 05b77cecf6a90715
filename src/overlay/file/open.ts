/**
 * Makes and opens overlay files: locks, headers, the map. Main thread of a daemon before the mount, or a command. What is
 * served and synced afterwards is `overlay-file.ts`.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, realpathSync } from 'node:fs';
import { endianness } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { EACCES, EAGAIN, ENOENT, EROFS, type Errno, errnoName, errnoOf, OK } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { writeAll } from '../../sys/file-bytes.ts';
import { lockExclusive, lockShared } from '../../sys/libc.ts';
import { namesOf, usersOfFile } from '../../sys/processes.ts';
import { NewFile } from '../../sys/unnamed-file.ts';
import {
  type BaseIdentity,
  capacityFor,
  encodeHeader,
  HEADER_BYTES,
  HEADER_SLOTS,
  type Header,
  MOST_PATH_BYTES,
  type Origin,
  type Role,
} from './layout.ts';
import { type Headers, readHeaders } from './slots.ts';

/** `look`: at the headers, while somebody else may be writing. */
export type Access = 'write' | 'read' | 'look';

export interface OpenedOverlay {
  readonly path: string;
  readonly fd: number;
  readonly headers: Headers;
  readonly header: Header;
  /** Whether it is held for writing; else others may read it, too. */
  readonly writable: boolean;
}

export interface CreatedOverlay {
  /** Locked for writing. */
  readonly file: NewFile;
  readonly opened: OpenedOverlay;
}

export interface NewOverlay {
  readonly role: Role;
  readonly diskBytes: number;
  readonly base: BaseIdentity;
  readonly origin: Origin | undefined;
}

/** What was given is something else. */
export class NoOverlayError extends CowfsError {}

/** Locks are held on this byte (fcntl(2)): exclusively by whoever writes. */
const LOCK_BYTE = 0;
const MODE = 0o600;

/**
 * An empty overlay in a file that has no name yet.
 *
 * @throws CowfsError that names the path: the directory, room
 */
export function createOverlay(path: string, { role, diskBytes, base, origin }: NewOverlay): CreatedOverlay {
  checkMachine();
  if (Buffer.byteLength(base.path) + Buffer.byteLength(origin?.path ?? '') > MOST_PATH_BYTES) {
    throw new CowfsError('usage', `${base.path}: this path is too long for an overlay to hold; move the base`);
  }
  const header: Header = {
    id: randomBytes(16),
    role,
    clean: false,
    applied: false,
    generation: 1,
    diskBytes,
    backingLimit: Math.min(base.sizeBytes, diskBytes),
    ...capacityFor(diskBytes),
    digest: 0,
    pagesInForce: 0,
    base,
    origin,
  };
  let file: NewFile;
  try {
    file = new NewFile(path, MODE);
  } catch (error) {
    throw new CowfsError('usage', `overlay ${path}: ${reasonOf(error)}; give a path in a writable directory`, error);
  }
  const bytes = encodeHeader(header);
  for (let slot = 0; slot < HEADER_SLOTS; slot++) {
    const errno = writeAll(file.fd, slot * HEADER_BYTES, HEADER_BYTES, bytes, 0);
    if (errno === OK) continue;
    file.close();
    throw new CowfsError('missing', `overlay ${path} cannot be written (${errnoName(errno)}); make room there`);
  }
  lock(path, file.fd, role, true);
  const headers = { slots: [header, header], header, inForce: 0 };
  return { file, opened: { path, fd: file.fd, headers, header, writable: true } };
}

/**
 * @throws CowfsError of kind `usage` when it is none or there is none, `refused` when it is in use, `failed` when it is
 *   damaged
 */
export function openOverlay(path: string, role: Role, access: Access): OpenedOverlay {
  checkMachine();
  const writable = access === 'write';
  const fd = open(path, writable);
  try {
    if (access !== 'look') lock(path, fd, role, writable);
    const headers = readHeaders(path, fd);
    const { header } = headers;
    if (header === undefined) throw noHeader(path, headers);
    if (header.role !== role) {
      throw new CowfsError('usage', `${path} is a ${header.role} of cowfs, not an ${role}; give another file`);
    }
    return { path, fd, headers, header, writable };
  } catch (error) {
    closeSync(fd);
    throw error instanceof CowfsError ? error : new CowfsError('failed', `overlay ${path}: ${reasonOf(error)}`, error);
  }
}

/** The same file after it was written to, under the lock that it has. */
export function reread(opened: OpenedOverlay): OpenedOverlay {
  const headers = readHeaders(opened.path, opened.fd);
  if (headers.header === undefined) throw noHeader(opened.path, headers);
  return { ...opened, headers, header: headers.header };
}

export function overlayExists(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    return true;
  } catch (error) {
    if (errnoOf(error) === ENOENT) return false;
    throw new CowfsError('usage', `overlay ${path}: ${reasonOf(error)}; give a file of yours`, error);
  }
}

/**
 * The path by which all know the file, also one that is yet to be made.
 *
 * @throws CowfsError of kind `usage` for a link that leads nowhere, or in no directory
 */
export function canonicalOverlay(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== ENOENT || isLink(path)) throw unfit(path, error);
  }
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch (error) {
    throw unfit(path, error);
  }
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

function unfit(path: string, error: unknown): CowfsError {
  return new CowfsError('usage', `overlay ${path}: ${reasonOf(error)}; give a file, or where one can be made`, error);
}

function open(path: string, writable: boolean): number {
  let fd: number;
  try {
    // Nobody may be waiting at the other end of a FIFO.
    fd = openSync(path, (writable ? constants.O_RDWR : constants.O_RDONLY) | constants.O_NONBLOCK);
  } catch (error) {
    const errno = errnoOf(error);
    const hint = [EACCES, EROFS].includes(errno) ? 'it must be writable for this user' : 'check the path';
    throw new CowfsError('usage', `overlay ${path}: ${reasonOf(error)}; ${hint}`, error);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new CowfsError('usage', `overlay ${path} is no regular file; give a file`);
}

function lock(path: string, fd: number, role: Role, writable: boolean): void {
  const errno = writable ? lockExclusive(fd, LOCK_BYTE, 1) : lockShared(fd, LOCK_BYTE, 1);
  if (errno === OK) return;
  if (errno !== EAGAIN && errno !== EACCES) throw cannotLock(path, errno);
  const who = namesOf(usersOfFile(realpathSync(path), fstatSync(fd).ino)) || 'another program';
  if (role === 'redo log') {
    throw new CowfsError('refused', `a commit is under way (${who}, ${path}); wait for its end`);
  }
  throw new CowfsError(
    'refused',
    `overlay ${path} is in use (${who}); unmount it first, \`cowfs list\` shows where, or wait for the command's end`,
  );
}

function cannotLock(path: string, errno: Errno): CowfsError {
  return new CowfsError(
    'missing',
    `overlay ${path}: its file system has no locks (${errnoName(errno)}), so two mounts could destroy it; put it elsewhere`,
  );
}

function noHeader(path: string, { slots }: Headers): CowfsError {
  if (slots.includes('version') || slots.includes('feature')) {
    return new CowfsError('usage', `overlay ${path} was made by a newer cowfs; use that one`);
  }
  if (slots.includes('checksum') || slots.includes('field')) {
    return new CowfsError(
      'failed',
      `overlay ${path} is damaged: neither of its headers is whole; restore it from a copy`,
    );
  }
  return new NoOverlayError('usage', `${path} is no overlay of cowfs; give one, or a path where there is nothing yet`);
}

function checkMachine(): void {
  // Maps in memory and in files have the same bytes.
  if (endianness() !== 'LE') throw new CowfsError('missing', 'overlay files need a little-endian machine');
}
