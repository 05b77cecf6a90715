/**
 * What may be said about mtime, which two files do not share: after utimes(2) it is what was set, until something
 * changes the file, and then it is no more. Two things are left open, since no file system in user space can do better:
 *
 * - With its writeback cache the kernel keeps mtime itself, whatever the daemon says, and forgets it at writes through
 *   an O_DIRECT handle (fs/fuse/file.c: fuse_direct_write_iter has no file_update_time).
 * - Without that cache it leaves mtime to the daemon, which sees a write to a mapping when the page is written back,
 *   maybe after a later utimes(2). mmap(2) allows that: any moment up to msync(2) will do.
 */
import type { CacheMode } from '../../src/fs/options.ts';
import type { HandleKind, Operation, Outcome } from './operation.ts';

const WITHOUT_EFFECT = ['read', 'stat', 'chmod', 'extents', 'sync', 'close', 'content', 'mapRead', 'mapPrivate'];

export class TimeRule {
  readonly #kernelKeepsTime: boolean;
  readonly #kinds = new Map<string, HandleKind | undefined>();
  #setMs: number | undefined;
  #certainlyChanged = false;
  #maybeChanged = false;
  /** Whether a page that was written to through a mapping may still have to be written back. */
  #pagesAreDirty = false;

  constructor(cacheMode: CacheMode) {
    this.#kernelKeepsTime = cacheMode === 'writeback';
  }

  /** The result without what the plain file need not share. */
  normalise(op: Operation, outcome: Outcome): Outcome {
    const { mtimeMs, ...rest } = outcome;
    if (op.op !== 'stat' || this.#setMs === undefined || (this.#maybeChanged && !this.#certainlyChanged)) return rest;
    return { ...rest, mtimeMs: mtimeMs === this.#setMs ? mtimeMs : -1 };
  }

  follow(op: Operation, outcome: Outcome): void {
    if (outcome.errno !== undefined) return;
    const handle = `${op.p}/${op.slot}`;
    if (op.op === 'open') this.#kinds.set(handle, op.kind);
    if (op.op === 'mapWrite') this.#pagesAreDirty = true;
    if (op.op === 'sync') this.#pagesAreDirty = false;
    if (op.op === 'utimes') {
      this.#setMs = (op.seconds ?? 0) * 1000;
      this.#certainlyChanged = false;
      this.#maybeChanged = this.#pagesAreDirty && !this.#kernelKeepsTime;
    } else if (op.op === 'append' || (op.op === 'write' && !this.#isForgotten(handle))) {
      this.#certainlyChanged = true;
    } else if (!WITHOUT_EFFECT.includes(op.op) && (op.op !== 'open' || op.kind === 'truncate')) {
      this.#maybeChanged = true;
    }
  }

  #isForgotten(handle: string): boolean {
    return this.#kernelKeepsTime && this.#kinds.get(handle) === 'direct';
  }
}
