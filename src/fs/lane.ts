/**
 * What one READ or WRITE needs of the file system while its bytes are moved by somebody else: the disk that it is of, a
 * place in its session, and the plan; and one FALLOCATE that moves none. A thread that has many under way has a lane for
 * each.
 */
import { BLOCK_BYTES } from '../overlay/block.ts';
import type { Gate } from '../overlay/gate.ts';
import { PLAN, type Plan, Transfer } from '../overlay/transfer.ts';
import type { DiskFile, DiskFiles } from './disk-file.ts';
import { tryFallocate } from './fallocate.ts';
import type { NodeId } from './node.ts';

/** What operations throw in a thread that must not wait, where they would have to (`gate.ts`). */
export { GateClosed } from '../overlay/gate.ts';
export { PLAN } from '../overlay/transfer.ts';

/** Bytes that a copy-up reads and writes. */
export const COPY_UP_BYTES = BLOCK_BYTES;

export class Lane {
  readonly transfer = new Transfer();
  readonly #files: DiskFiles;
  readonly #gate: Gate;
  #file: DiskFile | undefined;
  #writes = false;

  /** @param gate its own row of the gates */
  constructor(files: DiskFiles, gate: Gate) {
    this.#files = files;
    this.#gate = gate;
  }

  /** Unless it is `ELSEWHERE`, `finish` or `abandon` must follow. */
  planRead(node: NodeId, offset: number, length: number): Plan {
    const file = this.#enter(node, false);
    return file === undefined ? PLAN.ELSEWHERE : this.#entered(this.transfer.planRead(file.disk, offset, length));
  }

  /** As `planRead`. */
  planWrite(node: NodeId, offset: number, length: number): Plan {
    const file = this.#enter(node, true);
    return file === undefined ? PLAN.ELSEWHERE : this.#entered(this.transfer.planWrite(file.disk, offset, length));
  }

  /**
   * `FsOps.allocate` where that needs no waiting.
   *
   * @returns whether it is done; if not, nothing has happened, and the request is for `FsOps`
   * @throws RangeError when no memory is left for the map; then nothing has changed
   */
  tryAllocate(node: NodeId, mode: number, offset: number, length: number): boolean {
    const file = this.#enter(node, true);
    if (file === undefined) return false;
    try {
      const isDone = tryFallocate(file.disk, mode, offset, length);
      if (isDone) file.attributes.touch();
      return isDone;
    } finally {
      this.#leave();
    }
  }

  /**
   * All bytes have been moved.
   *
   * @throws RangeError as `Transfer`; then nothing has changed
   */
  finish(): void {
    try {
      this.transfer.finish();
      if (this.#writes) this.#file?.attributes.touch();
    } finally {
      this.#leave();
    }
  }

  /** They have not: the request is for `FsOps`. */
  abandon(): void {
    this.transfer.abandon();
    this.#leave();
  }

  #enter(node: NodeId, writes: boolean): DiskFile | undefined {
    this.#writes = writes;
    this.#file = this.#files.tryEnter(node, this.#gate);
    return this.#file;
  }

  #entered(plan: Plan): Plan {
    if (plan === PLAN.ELSEWHERE) this.#leave();
    return plan;
  }

  #leave(): void {
    this.#file = undefined;
    this.#gate.leave();
  }
}
