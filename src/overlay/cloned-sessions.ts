/**
 * Sessions whose disk is one file, a clone of the base: which file, what the kernel knows it by, and when it was written.
 * For `Sessions`, whose part it is, and for those that let the kernel serve such a disk. One instance a thread, over shared
 * memory.
 */
import type { Stats } from 'node:fs';
import type { Arena } from './arena.ts';
import type { Sessions } from './sessions.ts';
import { SESSION } from './shared.ts';

export class ClonedSessions {
  readonly #sessions: Pick<Sessions, 'clones' | 'top'>;
  readonly #arena: Arena;

  constructor(sessions: Pick<Sessions, 'clones' | 'top'>, arena: Arena) {
    this.#sessions = sessions;
    this.#arena = arena;
  }

  /** A fresh record: nobody has looked yet. */
  begin(session: number): void {
    const record = this.#record(session);
    Atomics.store(record, SESSION.BACKING_FILE, 0);
    Atomics.store(record, SESSION.WRITTEN_AT, 0);
  }

  /** Descriptor of the file that has all bytes of the session's disk, if there is one. */
  file(session: number): number | undefined {
    const { clones } = this.#sessions;
    const top = this.#sessions.top(session);
    return clones.isClone(top) ? clones.fd(top) : undefined;
  }

  /** What the host says of that file. */
  stats(session: number): Stats | undefined {
    const { clones } = this.#sessions;
    const top = this.#sessions.top(session);
    return clones.isClone(top) ? clones.stats(top) : undefined;
  }

  /** Takes note of the time of that file. @returns whether it was written since the last look */
  noteTime(session: number, modifiedMs: number): boolean {
    const time = Math.floor(modifiedMs) | 0;
    return Atomics.exchange(this.#record(session), SESSION.WRITTEN_AT, time) !== time && time !== 0;
  }

  /** The file is as if it had not been written yet. */
  resetTime(session: number): void {
    const { clones } = this.#sessions;
    clones.resetTime(this.#sessions.top(session));
    Atomics.store(this.#record(session), SESSION.WRITTEN_AT, 0);
  }

  /** What `setBackingFile` was given first; 0 before. */
  backingFile(session: number): number {
    return Atomics.load(this.#record(session), SESSION.BACKING_FILE);
  }

  /** @returns the one that was set first */
  setBackingFile(session: number, file: number): number {
    return Atomics.compareExchange(this.#record(session), SESSION.BACKING_FILE, 0, file) || file;
  }

  #record(session: number): Int32Array {
    return this.#arena.record(session, SESSION.WORDS);
  }
}
