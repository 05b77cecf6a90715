/**
 * Moves bytes from one file to another for export and commit: by the kernel where it can (copy_file_range(2) shares the
 * blocks on file systems that can), else through a buffer. In a command's process.
 */
import { EINVAL, ENOSYS, EOPNOTSUPP, type Errno, EXDEV, errnoName, isNoSpace, OK } from '../../lib/errno.ts';
import { CowfsError } from '../../lib/error.ts';
import { bytesMoved, writeAll } from '../../sys/file-bytes.ts';
import { copyFileRange, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../sys/libc.ts';
import type { ExportSource } from './source.ts';

/** What says that the kernel cannot between these two (copy_file_range(2)). */
const NOT_BY_KERNEL: readonly Errno[] = [EXDEV, EINVAL, ENOSYS, EOPNOTSUPP];
/** So much at a time that a progress bar moves. */
const KERNEL_PIECE_BYTES = 16 * 1024 * 1024;
const PIECE_BYTES = 1024 * 1024;

export class Copier {
  readonly #source: ExportSource;
  readonly #to: number;
  readonly #what: string;
  readonly #moved: (bytes: number) => void;
  readonly #buffer = Buffer.alloc(PIECE_BYTES);
  /** Descriptors between which the kernel does not copy. */
  readonly #byHand = new Set<number>();

  /**
   * @param to descriptor to write to
   * @param what the target is called in messages
   * @param moved is told of each piece
   */
  constructor(source: ExportSource, to: number, what: string, moved: (bytes: number) => void) {
    this.#source = source;
    this.#to = to;
    this.#what = what;
    this.#moved = moved;
  }

  /**
   * Copies a range of the disk to `offset + shift` of the target.
   *
   * @throws CowfsError that says which side failed, and where
   */
  copy(offset: number, length: number, shift: number): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const found = this.#source.locate(at, end - at);
      const { placeFd, placeOffset } = this.#source;
      if (placeFd < 0 || this.#byHand.has(placeFd)) this.#copyByHand(at, found, shift);
      else this.#copyPlaced(at, found, shift, placeFd, placeOffset);
      at += found;
    }
  }

  #copyPlaced(offset: number, length: number, shift: number, fd: number, place: number): void {
    for (let done = 0; done < length; ) {
      const wanted = Math.min(length - done, KERNEL_PIECE_BYTES);
      const copied = copyFileRange(fd, place + done, this.#to, offset + done + shift, wanted);
      if (NOT_BY_KERNEL.includes(-copied)) this.#byHand.add(fd);
      // Which side failed, or ended early, shows when it is done by hand.
      if (copied <= 0) {
        this.#copyByHand(offset + done, length - done, shift);
        return;
      }
      done += copied;
      this.#moved(copied);
    }
  }

  #copyByHand(offset: number, length: number, shift: number): void {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const piece = Math.min(length - done, PIECE_BYTES);
      const errno = this.#source.read(at, piece, this.#buffer, 0);
      if (errno !== OK) throw readError(at, errno);
      const written = writeAll(this.#to, at + shift, piece, this.#buffer, 0);
      if (written !== OK) throw writeError(this.#what, written);
      done += piece;
      this.#moved(piece);
    }
  }
}

/** Makes bytes of a file zero, giving back their space where that can be done. */
export function zeroRange(fd: number, offset: number, length: number, what: string): void {
  const errno = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  if (errno === OK) return;
  if (errno !== EOPNOTSUPP) throw writeError(what, errno);
  const zeros = Buffer.alloc(Math.min(length, PIECE_BYTES));
  for (let done = 0; done < length; done += bytesMoved()) {
    const written = writeAll(fd, offset + done, Math.min(zeros.length, length - done), zeros, 0);
    if (written !== OK) throw writeError(what, written);
  }
}

export function readError(offset: number, errno: Errno): CowfsError {
  return new CowfsError(
    'failed',
    `reading the disk at offset ${offset} failed (${errnoName(errno)}); check the base and the store`,
  );
}

export function writeError(what: string, errno: Errno): CowfsError {
  if (isNoSpace(errno))
    return new CowfsError('missing', `${what}: no room left (${errnoName(errno)}); make room there`);
  return new CowfsError('failed', `${what} cannot be written (${errnoName(errno)})`);
}
