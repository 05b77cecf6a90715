/**
 * Files whose content is written when they are opened, and stays the same for that handle. Main thread: what they tell
 * is known there. Both transports ask here.
 */
import { EBADF, type Errno, errnoOf, OK } from '../lib/errno.ts';

export class GeneratedFiles {
  /** Handle that `open` gave out. */
  readonly #contents = new Map<number, Buffer>();
  readonly #generate: () => Promise<string>;
  readonly #report: (error: unknown) => void;
  #last = 0;

  constructor(generate: () => Promise<string>, report: (error: unknown) => void) {
    this.#generate = generate;
    this.#report = report;
  }

  /** Writes the content; the handle is above 0. */
  async open(): Promise<{ errno: Errno; handle: number }> {
    try {
      const content = Buffer.from(await this.#generate(), 'utf8');
      this.#last += 1;
      this.#contents.set(this.#last, content);
      return { errno: OK, handle: this.#last };
    } catch (error) {
      this.#report(error);
      return { errno: errnoOf(error), handle: 0 };
    }
  }

  /** The bytes from `offset` on, at most `length`; undefined for a handle that is none. */
  read(handle: number, offset: number, length: number): Uint8Array | undefined {
    return this.#contents.get(handle)?.subarray(offset, offset + length);
  }

  release(handle: number): Errno {
    return this.#contents.delete(handle) ? OK : EBADF;
  }
}
