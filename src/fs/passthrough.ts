/**
 * Disks that the kernel reads and writes by itself: which file of the kernel's stands for which session. All openers of a
 * disk must have the same (fs/fuse/iomode.c), so what was found out for the first holds for as long as the session. Any
 * thread, state in shared memory.
 */
import type { ClonedSessions } from '../overlay/cloned-sessions.ts';
import { closeBackingFile, openBackingFile } from '../sys/backing-file.ts';

/** In place of a file's number: the kernel will not have it. */
const REFUSED = -1;

export class Passthrough {
  readonly #sessions: ClonedSessions;
  readonly #fuseFd: number | undefined;

  /** @param fuseFd the connection; undefined where the kernel passes nothing by */
  constructor(sessions: ClonedSessions, fuseFd: number | undefined) {
    this.#sessions = sessions;
    this.#fuseFd = fuseFd;
  }

  /** @returns the number that the kernel has given the session's file, or 0: then requests come here */
  fileOf(session: number): number {
    if (this.#fuseFd === undefined) return 0;
    const known = this.#sessions.backingFile(session);
    if (known !== 0) return Math.max(0, known);
    const fd = this.#sessions.file(session);
    const found = fd === undefined ? REFUSED : openBackingFile(this.#fuseFd, fd);
    const file = this.#sessions.setBackingFile(session, found > 0 ? found : REFUSED);
    // Another thread was first.
    if (found > 0 && file !== found) closeBackingFile(this.#fuseFd, found);
    return Math.max(0, file);
  }

  /** The session ends. */
  drop(session: number): void {
    const file = this.#fuseFd === undefined ? 0 : this.#sessions.backingFile(session);
    if (this.#fuseFd !== undefined && file > 0) closeBackingFile(this.#fuseFd, file);
  }
}
