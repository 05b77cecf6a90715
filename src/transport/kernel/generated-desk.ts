/**
 * Requests on files whose content the daemon writes when they are opened. Main thread; workers pass such requests on.
 */
import { FOPEN, FUSE_OPEN_OUT, FUSE_OUT_HEADER } from '../../fuse/abi.ts';
import type { GeneratedRequest } from '../../fuse/call.ts';
import { ReplyWriter } from '../../fuse/reply.ts';
import { EBADF, type Errno, OK } from '../../lib/errno.ts';
import type { GeneratedFiles } from '../generated-files.ts';
import { sendReply } from './loop.ts';

export class GeneratedDesk {
  readonly #fuseFd: number;
  readonly #files: GeneratedFiles;

  constructor(fuseFd: number, files: GeneratedFiles) {
    this.#fuseFd = fuseFd;
    this.#files = files;
  }

  async answer(request: GeneratedRequest): Promise<void> {
    switch (request.kind) {
      case 'generate': {
        const { errno, handle } = await this.#files.open();
        const reply = newReply(FUSE_OPEN_OUT.BYTES);
        reply.u64(FUSE_OPEN_OUT.fh, handle);
        // Past the page cache, where a file of size 0 has an end only when we say so.
        reply.u64(FUSE_OPEN_OUT.open_flags, FOPEN.DIRECT_IO);
        return this.#send(request, reply, errno, FUSE_OPEN_OUT.BYTES);
      }
      case 'generated-read': {
        const bytes = this.#files.read(request.handle, request.offset, request.length);
        const reply = newReply(bytes?.byteLength ?? 0);
        if (bytes === undefined) return this.#send(request, reply, EBADF, 0);
        reply.bytes.set(bytes, reply.payloadAt);
        return this.#send(request, reply, OK, bytes.byteLength);
      }
      case 'generated-release':
        return this.#send(request, newReply(0), this.#files.release(request.handle), 0);
    }
  }

  #send({ uniqueLow, uniqueHigh }: GeneratedRequest, reply: ReplyWriter, errno: Errno, payloadBytes: number): void {
    sendReply(this.#fuseFd, reply.bytes, reply.finish(uniqueLow, uniqueHigh, errno, payloadBytes));
  }
}

function newReply(payloadBytes: number): ReplyWriter {
  return new ReplyWriter(new Uint8Array(FUSE_OUT_HEADER.BYTES + payloadBytes));
}
