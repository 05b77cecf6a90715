/**
 * Where the written blocks of a layer are: one sparse file in which an offset of the disk is the same offset of the
 * store, or the same distance from where the data of an overlay file begins. A temporary one has no name, and is opened
 * when the first block is written, by whichever thread does so. Called on the thread that serves a request; positional
 * system calls only, so one descriptor serves all threads.
 */
import { fstatSync, ftruncateSync } from 'node:fs';
import { EFBIG, EIO, EOPNOTSUPP, type Errno, errnoOf, isNoSpace, OK } from '../lib/errno.ts';
import { lock, unlock } from '../lib/mutex.ts';
import { bytesMoved, readAll, writeAll } from '../sys/file-bytes.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../sys/libc.ts';
import { BLOCK_BYTES } from './block.ts';
import type { KeptMemory } from './file/kept-memory.ts';
import { LAYER } from './shared.ts';
import type { StoreDirectory } from './store-directory.ts';

/** No file yet: nothing was written. */
const NONE = -1;

const ZEROS = new Uint8Array(64 * 1024);

export class Store {
  /** Bytes that the last `write` put down, also when it failed half-way. */
  writtenBytes = 0;

  readonly #layer: Int32Array;
  readonly #directory: StoreDirectory;
  /** Byte of the file at which the disk begins. */
  readonly origin: number;
  /** Of an overlay file. */
  readonly #kept: KeptMemory | undefined;
  /** Remembered: it stays the same as long as the layer lives. */
  #knownFd = NONE;

  /**
   * @param layer the record of the layer that it belongs to
   * @param origin byte of the file at which the disk begins
   */
  constructor(layer: Int32Array, directory: StoreDirectory, origin: number, kept: KeptMemory | undefined) {
    this.#layer = layer;
    this.#directory = directory;
    this.origin = origin;
    this.#kept = kept;
  }

  /** Reads `length` bytes of blocks that are here; zeros past the end of the file. */
  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const errno = readAll(this.fd, this.origin + offset, length, into, at);
    const done = bytesMoved();
    if (errno === OK && done < length) into.fill(0, at + done, at + length);
    return errno;
  }

  /** Writes all of it, or says why not and how far it came in `writtenBytes`. */
  write(offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.writtenBytes = 0;
    const opened = this.#open();
    if (opened !== OK) return opened;
    const errno = writeAll(this.fd, this.origin + offset, length, from, at);
    this.writtenBytes = bytesMoved();
    this.noteWrite();
    return errno;
  }

  /** Somebody else has written to the file. */
  noteWrite(): void {
    this.#kept?.noteWrite();
  }

  /** Gives whole blocks back to the host. Where its file system cannot, they stay until the store goes: no error. */
  discard(offset: number, length: number): Errno {
    const errno = this.#punch(offset, length);
    return errno === EOPNOTSUPP ? OK : errno;
  }

  /** Makes the bytes zero, giving back what can be given back. */
  zero(offset: number, length: number): Errno {
    const errno = this.#punch(offset, length);
    if (errno !== EOPNOTSUPP) return errno;
    for (let done = 0; done < length; done += ZEROS.length) {
      const failed = this.write(offset + done, Math.min(ZEROS.length, length - done), ZEROS, 0);
      if (failed !== OK) return failed;
    }
    return OK;
  }

  /**
   * Sets space aside so that later writes find room; the bytes stay as they are (fallocate(2), mode 0). The file grows
   * over it: ext4 gives back nothing that lies past a file's end.
   */
  reserve(offset: number, length: number): Errno {
    const opened = this.#open();
    return opened === OK ? fallocate(this.fd, 0, this.origin + offset, length) : opened;
  }

  /** Drops everything from `size` on. An overlay file keeps whole blocks: of the last the rest becomes zeros. */
  cut(size: number): Errno {
    if (this.fd === NONE) return OK;
    let end = this.origin + size;
    if (this.#kept !== undefined) {
      const errno = this.zeroTail(size);
      if (errno !== OK) return errno;
      end = this.origin + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
    }
    try {
      if (fstatSync(this.fd).size > end) ftruncateSync(this.fd, end);
      return OK;
    } catch (error) {
      // Larger than a file can be here, so there is nothing to drop.
      const errno = errnoOf(error);
      return errno === EFBIG ? OK : errno;
    }
  }

  /** Makes zeros of what the last block of a disk of this size has past its end. */
  zeroTail(size: number): Errno {
    const tail = size % BLOCK_BYTES;
    return tail === 0 ? OK : this.zero(size, BLOCK_BYTES - tail);
  }

  /** Bytes that the host's file system really spends on it (st_blocks). */
  get usedBytes(): number {
    return this.fd === NONE ? 0 : fstatSync(this.fd).blocks * 512;
  }

  /** -1 before the first write. */
  get fd(): number {
    if (this.#knownFd === NONE) this.#knownFd = Atomics.load(this.#layer, LAYER.STORE) - 1;
    return this.#knownFd;
  }

  /** Makes sure that there is a file. Why it could not be made is not what a writer asked: no space, or EIO. */
  #open(): Errno {
    if (this.fd !== NONE) return OK;
    lock(this.#layer, LAYER.STORE_MUTEX);
    try {
      if (this.fd === NONE) Atomics.store(this.#layer, LAYER.STORE, this.#directory.open() + 1);
      return OK;
    } catch (error) {
      const errno = errnoOf(error);
      return isNoSpace(errno) ? errno : EIO;
    } finally {
      unlock(this.#layer, LAYER.STORE_MUTEX);
    }
  }

  #punch(offset: number, length: number): Errno {
    if (this.fd === NONE) return OK;
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const from = this.origin + offset;
    const errno = fallocate(this.fd, mode, from, length);
    this.#kept?.noteWrite();
    if (errno !== EFBIG) return errno;
    // The disk is larger than a file can be here: what exists ends with the file.
    const end = fstatSync(this.fd).size;
    return end <= from ? OK : fallocate(this.fd, mode, from, Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES - from);
  }
}
