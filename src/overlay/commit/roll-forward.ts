/**
 * Finishes a commit that was interrupted: whoever is about to look at a base calls it first. Main thread of a daemon
 * before the mount, or a command.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { useAlone } from '../../base/lock.ts';
import { openBase } from '../../base/open.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { sweepAsides } from '../../sys/aside.ts';
import { openOverlay, overlayExists } from '../file/open.ts';
import { applyRedoLog } from './apply.ts';
import { findInterrupted, redoLogPath } from './log-path.ts';

/**
 * @param basePath as the user gave it
 * @returns what was done, for the user; undefined if there was nothing to do
 * @throws CowfsError: somebody uses the base, it cannot be written to, the log belongs to another file
 */
export function rollForward(basePath: string): string | undefined {
  const path = findInterrupted(basePath);
  if (path === undefined) return undefined;
  const unfinished = `${path} has a commit that was interrupted (${redoLogPath(path)})`;
  // What commits left that were killed while their log was given its name; one that is at work has its own locked. Before
  // the log is: they may be two names of one file.
  sweepAsides(redoLogPath(path));
  const log = openOverlay(redoLogPath(path), 'redo log', 'write');
  try {
    // Finished by somebody else meanwhile.
    if (!overlayExists(redoLogPath(path))) return undefined;
    const fd = openForWriting(path, unfinished);
    try {
      useAlone(path, fd);
      const base = openBase(path, true);
      try {
        const { ino, birthtimeNs } = fstatSync(base.descriptor.fd, { bigint: true });
        const { base: then, diskBytes } = log.header;
        // The number of its device may change when a machine starts again.
        const isSame =
          ino === then.ino &&
          birthtimeNs === then.birthNs &&
          [then.sizeBytes, diskBytes].includes(base.descriptor.sizeBytes);
        if (!isSame && !log.header.applied) {
          throw new CowfsError(
            'refused',
            `${unfinished}, but is another file now; remove that log if the image was replaced`,
          );
        }
        applyRedoLog(log, base, fd, () => {});
        return `${path}: a commit that was interrupted is finished now`;
      } finally {
        closeSync(base.descriptor.fd);
      }
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(log.fd);
  }
}

function openForWriting(path: string, unfinished: string): number {
  try {
    return openSync(path, constants.O_RDWR);
  } catch (error) {
    throw new CowfsError(
      'refused',
      `${unfinished} and cannot be written to: ${reasonOf(error)}; finish it as its owner`,
      error,
    );
  }
}
