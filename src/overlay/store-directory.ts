/**
 * The directory in which stores are made, by its descriptor: it may be renamed or removed while the mount lives. One
 * instance a thread.
 */
import { closeSync, constants, openSync, statfsSync } from 'node:fs';
import { openUnnamed } from '../sys/unnamed-file.ts';

export class StoreDirectory {
  readonly #path: string;

  /** @returns a descriptor of the directory, for the life of the mount; main thread */
  static open(directory: string): number {
    return openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  static close(fd: number): void {
    closeSync(fd);
  }

  constructor(fd: number) {
    this.#path = `/proc/self/fd/${fd}`;
  }

  /**
   * @returns a read-write descriptor of an empty file without a name
   * @throws what the file system says
   */
  open(): number {
    return openUnnamed(this.#path);
  }

  /** Free bytes there, for this user (statfs(2), f_bavail). */
  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.#path);
    return bavail * bsize;
  }
}
