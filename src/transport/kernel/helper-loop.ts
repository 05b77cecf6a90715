/**
 * The loop of a thread that serves what the one with the ring hands over: requests that may have to wait for the base, the
 * store, a lock or a gate. It sends the replies itself.
 */
import type { FuseServer } from '../../fuse/server.ts';
import type { HandOver } from './hand-over.ts';
import { sendReply } from './loop.ts';

/**
 * Serves until no more is handed over, or the file system is unmounted.
 *
 * @param servers one for each slot, in its memory
 */
export function serveHandedOver(fuseFd: number, servers: readonly FuseServer[], handOver: HandOver): void {
  for (;;) {
    const slot = handOver.take();
    if (slot < 0) return;
    const server = servers[slot] as FuseServer;
    const replyLength = server.serve(handOver.length);
    const isThere = replyLength === 0 || sendReply(fuseFd, server.replyBytes, replyLength);
    handOver.release(slot);
    if (!isThere) return;
  }
}
