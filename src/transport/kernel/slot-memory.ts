/**
 * The memory that requests are served in by the thread with the ring and those that help it: a slot for each that is under
 * way. The slot that is used first lies in a huge page, which the kernel copies to and from with less ado: 1 MiB reads of one
 * job 1.10 times as fast, buffered 64k reads in sequence 1.13, writes the same; a second huge page makes nothing faster. The
 * other slots have none even where each program gets them (transparent_hugepage/enabled is `always`): a request of some
 * bytes would take 2 MiB. There, memory after a GiB of writes grew by 10 MiB, and by 4 now. Main thread and workers.
 */
import { slotBytes } from '../../fuse/transfer-server.ts';
import { addressOf } from '../../sys/io-uring.ts';
import { adviseHugePages, HUGE_PAGE_BYTES } from '../../sys/memory-io.ts';
import { SLOTS } from './hand-over.ts';

/** Main thread, once a mount. */
export function createSlots(maxTransferBytes: number): SharedArrayBuffer {
  const usedBytes = SLOTS * slotBytes(maxTransferBytes);
  const memory = new SharedArrayBuffer(HUGE_PAGE_BYTES + usedBytes);
  const unused = unusedBytes(memory);
  const bytes = new Uint8Array(memory, unused, usedBytes);
  const start = addressOf(bytes);
  adviseHugePages(start, HUGE_PAGE_BYTES, true);
  adviseHugePages(start + HUGE_PAGE_BYTES, usedBytes - HUGE_PAGE_BYTES, false);
  // Has the kernel find the page now, so that a daemon is no larger when it has served.
  bytes[0] = 0;
  return memory;
}

/** In the order in which they are to be used. */
export function slotsOf(memory: SharedArrayBuffer): Uint8Array<SharedArrayBuffer>[] {
  const bytes = (memory.byteLength - HUGE_PAGE_BYTES) / SLOTS;
  const start = unusedBytes(memory);
  return Array.from({ length: SLOTS }, (_, slot) => new Uint8Array(memory, start + slot * bytes, bytes));
}

/** Before the first slot, so that it begins where a huge page does. */
function unusedBytes(memory: SharedArrayBuffer): number {
  const over = addressOf(new Uint8Array(memory)) % HUGE_PAGE_BYTES;
  return over === 0 ? 0 : HUGE_PAGE_BYTES - over;
}
