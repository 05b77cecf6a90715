/**
 * Ends a connection at once through the control file system (Documentation/filesystems/fuse.rst, "fusectl"): whoever
 * waits for it gets an error, and nothing more is written back. Where that is not mounted, or not ours, it cannot.
 */
import { writeFileSync } from 'node:fs';
import { EACCES, ENOENT, errnoOf } from '../lib/errno.ts';

/**
 * @param device `0:N` of the mounted file system; N is the connection's number
 * @returns whether it was aborted
 */
export function abortConnection(device: string): boolean {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${device.replace(/^\d+:/, '')}/abort`, '1', { flag: 'r+' });
    return true;
  } catch (error) {
    if ([ENOENT, EACCES].includes(errnoOf(error))) return false;
    throw error;
  }
}
