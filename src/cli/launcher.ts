/**
 * What the process of a mount in the background is to the caller of `cowfs mount`: the command itself, until it lets go of
 * all that is the caller's and serves on. `bin/cowfs` waits for it meanwhile, on a pipe that takes the exit code. Main
 * thread.
 */
import { closeSync, writeSync } from 'node:fs';
import { closeOnExec, newSession, setFileFlags } from '../sys/libc.ts';
import { leadNowhere } from '../sys/null-device.ts';
import type { Caller } from './caller.ts';

const STDIO = [0, 1, 2] as const;
const STDERR = 2;

export class Launcher {
  readonly #caller: Caller;
  readonly #onExit = (status: number): void => {
    this.tell(status);
  };

  constructor(caller: Caller) {
    this.#caller = caller;
    // Node sees to that for the first ones only (uv_disable_stdio_inheritance); the watcher would have the others.
    for (const fd of caller.inherited) closeOnExec(fd);
    process.once('exit', this.#onExit);
  }

  /** Ends the command with this exit code. @returns whether the caller still waited for it */
  tell(status: number): boolean {
    process.off('exit', this.#onExit);
    this.#giveBackFlags();
    try {
      writeSync(this.#caller.statusFd, `${status} ${process.pid}`);
      return true;
    } catch {
      // Killed meanwhile (EPIPE).
      return false;
    } finally {
      closeSync(this.#caller.statusFd);
    }
  }

  /**
   * Ends the command, and leaves this process with nothing of the caller's: session, directory, descriptors.
   *
   * @param kept a descriptor that this process serves
   * @returns whether the caller still waited for it
   */
  letGo(status: number, kept: number | undefined, keepsStderr: boolean): boolean {
    newSession();
    process.chdir('/');
    this.#giveBackFlags();
    leadNowhere(STDIO.filter((fd) => fd !== kept && (fd !== STDERR || !keepsStderr)));
    for (const fd of this.#caller.inherited) if (fd !== kept) closeSync(fd);
    return this.tell(status);
  }

  #giveBackFlags(): void {
    for (const fd of STDIO) {
      const flags = this.#caller.stdioFlags[fd];
      if (flags !== undefined) setFileFlags(fd, flags);
    }
  }
}
