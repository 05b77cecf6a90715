/**
 * Files without a name: nobody else can open them, and the kernel takes their space back however this process ends. And
 * their way to a name, once they are whole: so nobody ever finds half of one. Any thread.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, constants, fsyncSync, ftruncateSync, lstatSync, openSync, renameSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  EEXIST,
  EINVAL,
  EISDIR,
  ENOENT,
  ENOSYS,
  EOPNOTSUPP,
  EPERM,
  type Errno,
  errnoName,
  errnoOf,
  OK,
} from '../lib/errno.ts';
import { asideOf, keepFromSweeps, sweepAsides } from './aside.ts';
import { linkDescriptor, renameNoReplace } from './libc.ts';

/** open(2), asm-generic/fcntl.h: `__O_TMPFILE | O_DIRECTORY`; Node does not name it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** What file systems and kernels without O_TMPFILE say (open(2); EPERM: FUSE servers that do not know it). */
const NO_TMPFILE: readonly Errno[] = [EOPNOTSUPP, EISDIR, ENOENT, EINVAL, EPERM];
/** What file systems without hard links say (link(2); FUSE passes on the last two). */
const NO_LINKS: readonly Errno[] = [EPERM, EOPNOTSUPP, ENOSYS];

/**
 * @param mode permission bits, of which the umask takes some
 * @returns a read-write descriptor of an empty file
 * @throws what open(2) says
 */
export function openUnnamed(directory: string, mode = 0o600): number {
  try {
    return openSync(directory, O_TMPFILE | constants.O_RDWR, mode);
  } catch (error) {
    if (!NO_TMPFILE.includes(errnoOf(error))) throw error;
  }
  const path = join(directory, `.cowfs-${randomUUID()}`);
  const fd = openExclusive(path, mode);
  unlinkSync(path);
  return fd;
}

function openExclusive(path: string, mode: number): number {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, mode);
  // In a mount of cowfs a new file has the content of its base.
  ftruncateSync(fd, 0);
  return fd;
}

/** A file that appears under its name when it is whole, or never. */
export class NewFile {
  readonly fd: number;
  readonly #path: string;
  readonly #directory: string;
  /** Its name until then, where the file system has no files without one. */
  #aside: string | undefined;

  /**
   * @param path what it will be called; there may be something of that name
   * @throws what open(2) says of the directory
   */
  constructor(path: string, mode: number) {
    this.#path = path;
    this.#directory = dirname(path);
    sweepAsides(path);
    let fd: number;
    try {
      fd = openSync(this.#directory, O_TMPFILE | constants.O_RDWR, mode);
      // It may get a name aside later.
      keepFromSweeps(fd, undefined);
    } catch (error) {
      if (!NO_TMPFILE.includes(errnoOf(error))) throw error;
      ({ fd, aside: this.#aside } = openAside(path, mode));
    }
    this.fd = fd;
  }

  /**
   * Makes it durable and gives it its name. The descriptor stays open.
   *
   * @param replace whether it may take the place of another file
   * @throws what the file system says: EEXIST where it may not
   */
  publish(replace: boolean): void {
    fsyncSync(this.fd);
    // link(2) never replaces, rename(2) always does; a name that is left between the two the next one removes.
    const errno = linkDescriptor(this.fd, this.#path);
    if (errno === EEXIST && replace) this.#replace();
    else if (NO_LINKS.includes(errno) && this.#aside !== undefined) this.#rename(this.#aside, replace);
    else if (errno !== OK) throw callError('link', errno, this.#path);
    this.#forgetAside();
    syncDirectory(this.#directory);
  }

  #replace(): void {
    if (this.#aside === undefined) {
      const aside = asideOf(this.#path);
      const errno = linkDescriptor(this.fd, aside);
      if (errno !== OK) throw callError('link', errno, aside);
      this.#aside = aside;
    }
    this.#rename(this.#aside, true);
  }

  #rename(aside: string, replace: boolean): void {
    if (replace) renameSync(aside, this.#path);
    else renameNew(aside, this.#path);
    this.#aside = undefined;
  }

  /** What cannot be removed the next one sweeps: it must not hide why this one failed, nor that it did not. */
  #forgetAside(): void {
    if (this.#aside === undefined) return;
    try {
      unlinkSync(this.#aside);
    } catch {
      // Somebody may have removed it already.
    }
    this.#aside = undefined;
  }

  /** Closes it; without a name it is gone. */
  close(): void {
    this.#forgetAside();
    closeSync(this.fd);
  }
}

function openAside(path: string, mode: number): { readonly fd: number; readonly aside: string } {
  for (;;) {
    const aside = asideOf(path);
    const fd = openExclusive(aside, mode);
    if (keepFromSweeps(fd, aside)) return { fd, aside };
    closeSync(fd);
  }
}

/**
 * For file systems without links.
 *
 * @throws EEXIST when there is something of that name
 */
function renameNew(from: string, to: string): void {
  let errno = renameNoReplace(from, to);
  if (errno === EINVAL || errno === ENOSYS) {
    // As near as such a file system lets one come: who makes a file between the look and the rename loses it.
    errno = lstatSync(to, { throwIfNoEntry: false }) === undefined ? OK : EEXIST;
    if (errno === OK) renameSync(from, to);
  }
  if (errno !== OK) throw callError('rename', errno, to);
}

/** Makes names durable (fsync(2) of a directory). */
export function syncDirectory(directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function callError(call: string, errno: Errno, path: string): Error {
  return Object.assign(new Error(`${errnoName(errno)}: cannot ${call}, ${call} '${path}'`), { errno: -errno });
}
