/**
 * Answers that depend on the end of a file while the kernel may have moved it without telling us (writeback cache):
 * where holes are, and what a read beside the cache finds in the gap before data that is still cached. Main thread: the
 * size is asked for by another process, and the request waits here, not in a worker. (A notification that makes the
 * kernel write back would do as well, but whoever sends it waits in the kernel; if the daemon is killed then, that
 * thread never ends and the connection never closes.)
 */
import type { NodeId } from '../../fs/node.ts';
import type { FsOps } from '../../fs/ops.ts';
import { FUSE_LSEEK_OUT, FUSE_OUT_HEADER } from '../../fuse/abi.ts';
import type { SizeRequest } from '../../fuse/call.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { OK } from '../../lib/errno.ts';
import { sendReply } from './loop.ts';

export interface SizeDeskOptions {
  readonly fuseFd: number;
  readonly ops: FsOps;
  /** The size in bytes of a file in the mount as the kernel knows it; undefined when nobody can tell. */
  readonly sizeOf: (node: NodeId) => Promise<number | undefined>;
  readonly warn: (message: string) => void;
}

export class SizeDesk {
  readonly #options: SizeDeskOptions;

  constructor(options: SizeDeskOptions) {
    this.#options = options;
  }

  async answer(request: SizeRequest): Promise<void> {
    const { fuseFd, sizeOf, warn } = this.#options;
    const kernelSize = await sizeOf(request.node);
    if (kernelSize === undefined) warn('the size of the disk could not be asked for; what was appended may be missed');
    const payload = new ReplyWriter(new Uint8Array(FUSE_OUT_HEADER.BYTES + payloadBytes(request)));
    const { uniqueLow, uniqueHigh } = request;
    const { errno, bytes } = this.#serve(request, payload, kernelSize ?? 0);
    sendReply(fuseFd, payload.bytes, payload.finish(uniqueLow, uniqueHigh, errno, bytes));
  }

  #serve(request: SizeRequest, into: ReplyWriter, kernelSize: number): { errno: number; bytes: number } {
    const { ops } = this.#options;
    const { node, offset } = request;
    if (request.kind === 'seek') {
      const errno = ops.seek(node, offset, request.whence, kernelSize);
      into.u64(FUSE_LSEEK_OUT.offset, ops.found);
      return { errno, bytes: FUSE_LSEEK_OUT.BYTES };
    }
    const errno = ops.read(node, offset, request.length, into.bytes, into.payloadAt);
    if (errno !== OK) return { errno, bytes: 0 };
    // The buffer is fresh: past what we have, up to the kernel's end, it holds zeros.
    const wanted = Math.max(0, Math.min(request.length, kernelSize - offset));
    return { errno, bytes: Math.max(ops.transferred, wanted) };
  }
}

function payloadBytes(request: SizeRequest): number {
  return request.kind === 'seek' ? FUSE_LSEEK_OUT.BYTES : request.length;
}
