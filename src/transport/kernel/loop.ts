/**
 * The loop of a worker: read a request from /dev/fuse, serve it, write the reply. It blocks in read(2) and has no
 * event loop to go through: 3 such workers answer 35k random 4k reads a second one at a time, where a main-thread hop
 * each gives 8k. Ends when the connection does.
 */
import { readSync, writeSync } from 'node:fs';
import type { FuseServer } from '../../fuse/server.ts';
import { EAGAIN, EINTR, ENODEV, ENOENT, errnoOf } from '../../lib/errno.ts';

/**
 * Serves until the file system is unmounted (ENODEV, fs/fuse/dev.c).
 *
 * @throws what /dev/fuse answers that none of this explains
 */
export function serveConnection(fuseFd: number, server: FuseServer): void {
  const { requestBytes, replyBytes } = server;
  for (;;) {
    let length: number;
    try {
      length = readSync(fuseFd, requestBytes, 0, requestBytes.byteLength, null);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === ENODEV) return;
      // The caller was interrupted before we read, or we were: the next one, please.
      if (errno === ENOENT || errno === EINTR || errno === EAGAIN) continue;
      throw error;
    }
    const replyLength = server.serve(length);
    if (replyLength === 0) continue;
    if (!sendReply(fuseFd, replyBytes, replyLength)) return;
  }
}

/** Writes one reply; false when the connection is gone. ENOENT: the caller was interrupted and waits no more. */
export function sendReply(fuseFd: number, bytes: Uint8Array, length: number): boolean {
  try {
    writeSync(fuseFd, bytes, 0, length, null);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === ENODEV) return false;
    if (errno !== ENOENT) throw error;
  }
  return true;
}
