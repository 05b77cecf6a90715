/**
 * Requests and replies as a person would read them, for `--trace`:
 * `rx 12 READ disk.raw off=4096 len=131072` and `tx 12 OK 131072 B 0.2 ms`. Only loaded into the path when asked for.
 */

import type { NodeId } from '../fs/node.ts';
import type { FsOps } from '../fs/ops.ts';
import { errnoName, OK } from '../lib/errno.ts';
import { FUSE_FALLOCATE_IN, FUSE_LSEEK_IN, FUSE_OPEN_IN, FUSE_READ_IN, FUSE_SETATTR_IN, OPCODE } from './abi.ts';
import { NO_REPLY, type Operation } from './call.ts';
import type { RequestReader } from './decode.ts';

export class Trace {
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  received(ops: FsOps, request: RequestReader, operation: Operation | undefined): void {
    const name = operation?.name ?? `opcode ${request.opcode}`;
    const complete = operation !== undefined && request.argumentBytes >= operation.inBytes;
    const detail = complete ? describe(request) : ` (${request.length} bytes)`;
    this.request(numberOf(request), name, ops.nameOf(request.nodeid as NodeId), detail);
  }

  answered(request: RequestReader, errno: number, payloadBytes: number, elapsedMs: number): void {
    if (errno === NO_REPLY) return;
    this.answer(numberOf(request), errno, payloadBytes, elapsedMs);
  }

  /** @param detail starts with a blank, if there is any */
  request(number: number, name: string, file: string, detail: string): void {
    this.#print(`rx ${number} ${name} ${file}${detail}`);
  }

  answer(number: number, errno: number, payloadBytes: number, elapsedMs: number): void {
    const result = errno === OK ? `OK ${payloadBytes} B` : errnoName(errno);
    this.#print(`tx ${number} ${result} ${elapsedMs.toFixed(1)} ms`);
  }
}

/** `unique` without its lowest bit, which marks interrupts (FUSE_INT_REQ_BIT). */
function numberOf(request: RequestReader): number {
  return Math.floor((request.uniqueHigh * 2 ** 32 + request.uniqueLow) / 2);
}

function describe(request: RequestReader): string {
  switch (request.opcode) {
    case OPCODE.LOOKUP:
      return ` name=${JSON.stringify(request.name() ?? '')}`;
    case OPCODE.OPEN:
      return ` flags=0${request.u32(FUSE_OPEN_IN.flags).toString(8)}`;
    case OPCODE.SETATTR:
      return ` valid=0x${request.u32(FUSE_SETATTR_IN.valid).toString(16)} size=${request.u64(FUSE_SETATTR_IN.size)}`;
    case OPCODE.READ:
    case OPCODE.WRITE:
    case OPCODE.READDIR:
      return ` off=${request.u64(FUSE_READ_IN.offset)} len=${request.u32(FUSE_READ_IN.size)}`;
    case OPCODE.FALLOCATE:
      return (
        ` mode=0x${request.u32(FUSE_FALLOCATE_IN.mode).toString(16)}` +
        ` off=${request.u64(FUSE_FALLOCATE_IN.offset)} len=${request.u64(FUSE_FALLOCATE_IN.length)}`
      );
    case OPCODE.LSEEK:
      return ` off=${request.u64(FUSE_LSEEK_IN.offset)} whence=${request.u32(FUSE_LSEEK_IN.whence)}`;
    default:
      return '';
  }
}
