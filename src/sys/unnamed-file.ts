/**
 * Files without a name: nobody else can open them, and the kernel takes their space back however this process ends. And
 * their way to a name, once they are whole: so nobody ever finds half of one. Any thread.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync, renameSync, rmSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, type Errno, errnoName, errnoOf, OK } from '../lib/errno.ts';
import { linkDescriptor } from './libc.ts';

/** open(2), asm-generic/fcntl.h: `__O_TMPFILE | O_DIRECTORY`; Node does not name it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** What file systems and kernels without O_TMPFILE say (open(2)). */
const NO_TMPFILE: readonly Errno[] = [EOPNOTSUPP, EISDIR, ENOENT, EINVAL];

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
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, mode);
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
    let fd: number;
    try {
      fd = openSync(this.#directory, O_TMPFILE | constants.O_RDWR, mode);
    } catch (error) {
      if (!NO_TMPFILE.includes(errnoOf(error))) throw error;
      this.#aside = this.#freshName();
      fd = openExclusive(this.#aside, mode);
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
    else if (errno !== OK) throw linkError(errno, this.#path);
    this.#forgetAside();
    syncDirectory(this.#directory);
  }

  #replace(): void {
    let aside = this.#aside;
    if (aside === undefined) {
      aside = asideOf(this.#path);
      removeAside(this.#path);
      const errno = linkDescriptor(this.fd, aside);
      if (errno !== OK) throw linkError(errno, aside);
      this.#aside = aside;
    }
    renameSync(aside, this.#path);
    this.#aside = undefined;
  }

  #forgetAside(): void {
    if (this.#aside !== undefined) unlinkSync(this.#aside);
    this.#aside = undefined;
  }

  /** Closes it; without a name it is gone. */
  close(): void {
    this.#forgetAside();
    closeSync(this.fd);
  }

  #freshName(): string {
    return join(this.#directory, `.${basename(this.#path).slice(0, 200)}.${randomUUID().slice(0, 8)}`);
  }
}

/** The name that a file has for the moment in which it takes another's place. */
function asideOf(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 200)}.cowfs-new`);
}

/** Removes what somebody left who was killed in that moment. */
export function removeAside(path: string): void {
  rmSync(asideOf(path), { force: true });
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

function linkError(errno: Errno, path: string): Error {
  return Object.assign(new Error(`${errnoName(errno)}: cannot link, link '${path}'`), { errno: -errno });
}
