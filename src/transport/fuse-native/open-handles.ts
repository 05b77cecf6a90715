/**
 * Open files by the number that libfuse carries for us from open to release (`fuse_file_info.fh`), which is all that
 * fuse-native passes on of what they were opened with.
 */
import type { NodeId } from '../../fs/node.ts';

export interface OpenFile {
  readonly name: string;
  readonly node: NodeId;
  /** Flags of open(2). */
  readonly flags: number;
}

/** fuse-native takes a signed 32-bit number and keeps the one from before for 0. */
const LAST = 2 ** 31 - 1;

export class OpenHandles {
  readonly #files = new Map<number, OpenFile>();
  #last = 0;

  add(file: OpenFile): number {
    do {
      this.#last = this.#last === LAST ? 1 : this.#last + 1;
    } while (this.#files.has(this.#last));
    this.#files.set(this.#last, file);
    return this.#last;
  }

  get(handle: number): OpenFile | undefined {
    return this.#files.get(handle);
  }

  /** Gives the number back. */
  take(handle: number): OpenFile | undefined {
    const file = this.#files.get(handle);
    this.#files.delete(handle);
    return file;
  }
}
