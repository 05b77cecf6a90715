/**
 * What the process of a mount in the background is to the caller of `cowfs mount`: the command itself, until it lets go of
 * all that is the caller's and serves on. `bin/cowfs` waits for it meanwhile, on a pipe that takes the exit code. Main
 * thread.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { closeOnExec, duplicateTo, fileFlags, newSession, setFileFlags } from '../sys/libc.ts';

/** Set by `bin/cowfs`, for this process alone: the pipe's descriptor, and those that were open before. */
const STATUS_FD = 'COWFS_STATUS_FD';
const INHERITED = 'COWFS_INHERITED';

const STDIO = [0, 1, 2] as const;
const STDERR = 2;

export class Launcher {
  readonly #statusFd: number;
  readonly #inherited: readonly number[];
  /** Node has its pipes not block, and these are the caller's. */
  readonly #stdioFlags = [fileFlags(0), fileFlags(1), fileFlags(2)] as const;
  readonly #onExit = (status: number): void => {
    this.tell(status);
  };

  /** Before anything else is opened, or standard output written to. */
  static find(): Launcher | undefined {
    const { [STATUS_FD]: statusFd, [INHERITED]: inherited } = process.env;
    delete process.env[STATUS_FD];
    delete process.env[INHERITED];
    return statusFd === undefined ? undefined : new Launcher(Number(statusFd), inherited ?? '');
  }

  private constructor(statusFd: number, inherited: string) {
    this.#statusFd = statusFd;
    const open = inherited.split(' ').filter((word) => /^\d+$/.test(word));
    this.#inherited = open.map(Number).filter((fd) => fd > STDERR && fd !== statusFd);
    // Node sees to that for the first ones only (uv_disable_stdio_inheritance); the watcher would have the others.
    for (const fd of this.#inherited) closeOnExec(fd);
    process.once('exit', this.#onExit);
  }

  /** Ends the command with this exit code. @returns whether the caller still waited for it */
  tell(status: number): boolean {
    process.off('exit', this.#onExit);
    this.#giveBackFlags();
    try {
      writeSync(this.#statusFd, `${status}`);
      return true;
    } catch {
      // Killed meanwhile (EPIPE).
      return false;
    } finally {
      closeSync(this.#statusFd);
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
    const nothing = openSync('/dev/null', constants.O_RDWR);
    for (const fd of STDIO) if (fd !== STDERR || !keepsStderr) duplicateTo(nothing, fd);
    closeSync(nothing);
    for (const fd of this.#inherited) if (fd !== kept) closeSync(fd);
    return this.tell(status);
  }

  #giveBackFlags(): void {
    for (const fd of STDIO) setFileFlags(fd, this.#stdioFlags[fd]);
  }
}
