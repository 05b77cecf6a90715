/**
 * Write-backs for which the store had no room. The kernel took their data from the writer long ago, so failing them
 * would lose it: they are tried again until there is room or a time limit passes (as dm-thin's queue_if_no_space and
 * no_space_timeout). The main thread does it, so that no worker waits: reads go on, and so does the trim of another
 * disk that may make the room.
 */

import type { FsOps } from '../../fs/ops.ts';
import { FUSE_OUT_HEADER, FUSE_WRITE_OUT } from '../../fuse/abi.ts';
import type { HeldWrite } from '../../fuse/call.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { ENOSPC, errnoName, isNoSpace, OK } from '../../lib/errno.ts';
import { formatBytes } from '../../lib/units.ts';
import { sendReply } from './loop.ts';

const RETRY_MS = 100;

export interface HoldOptions {
  readonly fuseFd: number;
  readonly ops: FsOps;
  /** Whether the mount is gone and nobody has a file open: then nothing will be read again, and nothing is lost. */
  readonly isDiscarded: () => boolean;
  /** How long a write-back may wait before it fails with ENOSPC, in milliseconds. */
  readonly timeoutMs: number;
  readonly warn: (message: string) => void;
  readonly error: (message: string) => void;
}

export class HoldQueue {
  #waiting: { readonly write: HeldWrite; readonly sinceMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #options: HoldOptions;
  readonly #reply = new ReplyWriter(new Uint8Array(FUSE_OUT_HEADER.BYTES + FUSE_WRITE_OUT.BYTES));

  constructor(options: HoldOptions) {
    this.#options = options;
  }

  /** Bytes that wait for room now. */
  get heldBytes(): number {
    return this.#waiting.reduce((sum, { write }) => sum + write.data.byteLength, 0);
  }

  add(write: HeldWrite): void {
    if (this.#closed) {
      this.#answer(write, ENOSPC);
      return;
    }
    if (this.#waiting.length === 0) {
      this.#options.warn(
        `the store is full: data that programs have written already waits for room, ` +
          `${this.#options.timeoutMs / 1000} s at most, then it is lost; make room where the store is`,
      );
    }
    this.#waiting.push({ write, sinceMs: performance.now() });
    this.#timer ??= setInterval(() => this.#retry(), RETRY_MS);
  }

  /** Gives up waiting, now and from now on: the mount is being taken away by force. */
  close(): void {
    this.#closed = true;
    this.#stop();
    for (const { write } of this.#waiting.splice(0)) this.#answer(write, ENOSPC);
  }

  #stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #retry(): void {
    // An unmount waits for these, and throws away what they bring.
    if (this.#options.isDiscarded()) {
      for (const { write } of this.#waiting.splice(0)) this.#answer(write, OK);
      this.#stop();
      return;
    }
    const now = performance.now();
    let lostBytes = 0;
    let stillFull = false;
    this.#waiting = this.#waiting.filter(({ write, sinceMs }) => {
      const { node, offset, data } = write;
      const expired = now - sinceMs >= this.#options.timeoutMs;
      // Once one finds no room the younger ones need not try; the expired have a last chance each.
      if (stillFull && !expired) return true;
      const errno = this.#options.ops.write(node, offset, data.byteLength, data, 0);
      if (isNoSpace(errno) && !expired) {
        stillFull = true;
        return true;
      }
      if (errno !== OK) lostBytes += data.byteLength;
      this.#answer(write, isNoSpace(errno) ? ENOSPC : errno);
      return false;
    });
    if (lostBytes > 0) {
      this.#options.error(
        `no room came: ${formatBytes(lostBytes)} of cached writes are lost (${errnoName(ENOSPC)}); ` +
          'fsync reports it; use --cache writethrough to get the error at write',
      );
    }
    if (this.#waiting.length > 0) return;
    this.#stop();
    if (lostBytes === 0) this.#options.warn('the store has room again: everything that waited is written');
  }

  #answer(write: HeldWrite, errno: number): void {
    this.#reply.u64(FUSE_WRITE_OUT.size, write.data.byteLength);
    const length = this.#reply.finish(write.uniqueLow, write.uniqueHigh, errno, FUSE_WRITE_OUT.BYTES);
    sendReply(this.#options.fuseFd, this.#reply.bytes, length);
  }
}
