/**
 * What a mount in the background has to know of whoever called: taken down before anything else, since Node has pipes not
 * block that are the caller's, too, as soon as it has a second thread or writes. Imports next to nothing.
 */
import { readFileSync } from 'node:fs';

/** Set by `bin/cowfs`, for this process alone: the pipe's descriptor, and those that were open before. */
const STATUS_FD = 'COWFS_STATUS_FD';
const INHERITED = 'COWFS_INHERITED';

export interface Caller {
  /** A pipe that takes the exit code and this process's number. */
  readonly statusFd: number;
  /** Its descriptors that this process has, too, but for the standard ones. */
  readonly inherited: readonly number[];
  /** The flags of the standard ones (open(2)); nothing for one that is closed. */
  readonly stdioFlags: readonly (number | undefined)[];
}

/** @returns undefined where nobody waits for this process to let go */
export function caller(): Caller | undefined {
  const { [STATUS_FD]: status, [INHERITED]: inherited = '' } = process.env;
  delete process.env[STATUS_FD];
  delete process.env[INHERITED];
  if (status === undefined) return undefined;
  const statusFd = Number(status);
  const open = inherited.split(' ').filter((word) => /^\d+$/.test(word));
  return {
    statusFd,
    inherited: open.map(Number).filter((fd) => fd > 2 && fd !== statusFd),
    stdioFlags: [0, 1, 2].map(flagsOf),
  };
}

/** proc_pid_fdinfo(5) */
function flagsOf(fd: number): number | undefined {
  try {
    const octal = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
    return octal === undefined ? undefined : Number.parseInt(octal, 8);
  } catch {
    return undefined;
  }
}
