/**
 * Answers to SEEK_DATA and SEEK_HOLE that depend on the file's end while the kernel may have moved it without telling
 * us (writeback cache). Main thread: the size is asked for by another process, and the request waits here, not in a
 * worker. (A notification that makes the kernel write back would do as well, but whoever sends it waits in the kernel;
 * if the daemon is killed then, that thread never ends and the connection never closes.)
 */
import type { FsOps } from '../../fs/ops.ts';
import { FUSE_LSEEK_OUT, FUSE_OUT_HEADER } from '../../fuse/abi.ts';
import type { DeferredSeek } from '../../fuse/call.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { sendReply } from './loop.ts';

export interface SeekOptions {
  readonly fuseFd: number;
  readonly ops: FsOps;
  /** The size in bytes of a file in the mount as the kernel knows it; undefined when nobody can tell. */
  readonly sizeOf: (name: string) => Promise<number | undefined>;
  readonly warn: (message: string) => void;
}

export class SeekDesk {
  readonly #options: SeekOptions;

  constructor(options: SeekOptions) {
    this.#options = options;
  }

  async answer({ uniqueLow, uniqueHigh, node, offset, whence }: DeferredSeek): Promise<void> {
    const { fuseFd, ops, sizeOf, warn } = this.#options;
    const kernelSize = await sizeOf(ops.nameOf(node));
    if (kernelSize === undefined)
      warn('the size of the disk could not be asked for; SEEK_HOLE may miss what was appended');
    const errno = ops.seek(node, offset, whence, kernelSize);
    const reply = new ReplyWriter(new Uint8Array(FUSE_OUT_HEADER.BYTES + FUSE_LSEEK_OUT.BYTES));
    reply.u64(FUSE_LSEEK_OUT.offset, ops.found);
    sendReply(fuseFd, reply.bytes, reply.finish(uniqueLow, uniqueHigh, errno, FUSE_LSEEK_OUT.BYTES));
  }
}
