/**
 * A layer whose store is a clone of the base (reflink): a file that shares the base's blocks until they are written to, so
 * that the file system does the copy-on-write and nobody keeps a map. What sets it apart from the base is found out from
 * the places of their blocks, when it is asked for. One instance a thread.
 */
import { fstatSync } from 'node:fs';
import type { Base } from '../base/base.ts';
import { ENXIO, type Errno, OK } from '../lib/errno.ts';
import { bytesMoved, readAll } from '../sys/file-bytes.ts';
import { lseek, lseekResult, SEEK_DATA, SEEK_HOLE } from '../sys/libc.ts';
import { CONTENT, Extents } from '../sys/reflink.ts';
import { BASE, BLOCK_BYTES, type BlockIndex, type BlockState, STORE, ZERO } from './block.ts';
import type { ExportSource } from './export/source.ts';

export class Clone implements ExportSource {
  difference: BlockState = BASE;
  readonly placeFd: number;
  placeOffset = 0;
  readonly #base: Base;
  #own: Extents | undefined;
  #bases: Extents | undefined;

  constructor(fd: number, base: Base) {
    this.placeFd = fd;
    this.#base = base;
  }

  get sizeBytes(): number {
    return fstatSync(this.placeFd).size;
  }

  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    const errno = readAll(this.placeFd, offset, length, into, at);
    const done = bytesMoved();
    if (errno === OK && done < length) into.fill(0, at + done, at + length);
    return errno;
  }

  locate(offset: number, length: number): number {
    this.placeOffset = offset;
    return length;
  }

  nextData(offset: number, end: number): number {
    const errno = lseek(this.placeFd, offset, SEEK_DATA);
    if (errno === ENXIO) return end;
    return Math.min(errno === OK ? lseekResult() : offset, end);
  }

  nextHole(offset: number, end: number): number {
    return lseek(this.placeFd, offset, SEEK_HOLE) === OK ? Math.min(lseekResult(), end) : end;
  }

  /**
   * Of a clone that nobody writes to. Blocks whose place cannot be told (compressed, inside of metadata) count as written.
   *
   * @throws Error with the errno of the file system
   */
  differenceAt(block: BlockIndex, limit: number): number {
    this.#own ??= new Extents(this.placeFd, true);
    this.#bases ??= new Extents(this.#base.placeFd, true);
    const offset = block * BLOCK_BYTES;
    const ownEnd = this.#own.at(offset, offset + limit * BLOCK_BYTES);
    const end = this.#bases.at(offset, ownEnd);
    const { content, place } = this.#own;
    const isBeyond = offset >= this.#base.sizeBytes;
    const was = isBeyond ? CONTENT.NOTHING : this.#bases.content;
    if (content === CONTENT.NOTHING) this.difference = was === CONTENT.NOTHING ? BASE : ZERO;
    else if (content === CONTENT.PLACED && was === CONTENT.PLACED && place === this.#bases.place)
      this.difference = BASE;
    else this.difference = STORE;
    return Math.max(1, Math.floor((end - offset) / BLOCK_BYTES));
  }
}
