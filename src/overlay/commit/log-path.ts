/**
 * Where the redo log of a base is, and whether there is one: all that a mount needs of commits unless one was interrupted.
 */
import { closeSync, constants, lstatSync, openSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ENAMETOOLONG, ENOENT, errnoOf } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';

/** Where the log of a base is, by its canonical path. */
export function redoLogPath(basePath: string): string {
  return join(dirname(basePath), `.${basename(basePath)}.cowfs-redo`);
}

/**
 * Asks the file system, before anything is written, whether a log beside the base can have its name.
 *
 * @throws CowfsError of kind `usage` when it is too long
 */
export function checkLogName(basePath: string): void {
  try {
    lstatSync(redoLogPath(basePath));
  } catch (error) {
    if (errnoOf(error) !== ENAMETOOLONG) return;
    throw new CowfsError(
      'usage',
      `${basePath}: the name is too long for a redo log beside it, whose name is longer; use --to, or rename the base`,
      error,
    );
  }
}

/**
 * @param basePath as the user gave it
 * @returns the canonical path of a base whose commit was interrupted; undefined for any other
 * @throws CowfsError of kind `refused` for a log that cannot be read
 */
export function findInterrupted(basePath: string): string | undefined {
  const path = canonical(basePath);
  return path !== undefined && logExists(path) ? path : undefined;
}

function canonical(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    // Whoever opens it says what is wrong.
    return undefined;
  }
}

function logExists(path: string): boolean {
  try {
    closeSync(openSync(redoLogPath(path), constants.O_RDONLY | constants.O_NONBLOCK));
    return true;
  } catch (error) {
    if ([ENOENT, ENAMETOOLONG].includes(errnoOf(error))) return false;
    throw new CowfsError(
      'refused',
      `${path} has a commit that was interrupted (${redoLogPath(path)}), which cannot be read: ${reasonOf(error)}; finish it as its owner`,
      error,
    );
  }
}
