/**
 * The redo log of a commit: all that a disk has and its base has not, in a file beside the base, with the format of an
 * overlay file. It gets its name when it is whole and durable; from then on the commit comes to its end, whoever is
 * killed: by whoever looks at the base next (`roll-forward.ts`). In a command's process.
 */
import { ftruncateSync } from 'node:fs';
import type { BaseDescriptor } from '../../base/base.ts';
import { EEXIST, type Errno, errnoName, errnoOf, OK } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { writeAll } from '../../sys/file-bytes.ts';
import type { NewFile } from '../../sys/unnamed-file.ts';
import { BLOCK_BYTES, BASE as SAME, STORE } from '../block.ts';
import { Copier } from '../export/copy.ts';
import { differencesOf, type ExportSource } from '../export/source.ts';
import { LayerStack } from '../export/stack.ts';
import { type BaseIdentity, encodeHeader, HEADER_BYTES, HEADER_SLOTS, type Origin } from '../file/layout.ts';
import { specOf } from '../file/load.ts';
import { createOverlay, type OpenedOverlay, reread } from '../file/open.ts';
import { OverlayFile } from '../file/overlay-file.ts';
import { redoLogPath } from './log-path.ts';

export interface NewRedoLog {
  readonly source: ExportSource;
  /** Bytes of the base that the source shows: an interrupted commit may have left something past them. */
  readonly shownBytes: number;
  readonly base: BaseIdentity;
  readonly descriptor: BaseDescriptor;
  /** To be emptied afterwards. */
  readonly origin: Origin | undefined;
  readonly moved: (bytes: number) => void;
}

/** A log without a name: until `publish` nothing has happened. */
export class RedoLog {
  readonly path: string;
  readonly #file: NewFile;
  readonly #opened: OpenedOverlay;

  /** @throws CowfsError: no room, or the directory cannot be written to */
  constructor({ source, shownBytes, base, descriptor, origin, moved }: NewRedoLog) {
    this.path = redoLogPath(base.path);
    const { file, opened } = createOverlay(this.path, {
      role: 'redo log',
      diskBytes: source.sizeBytes,
      base,
      origin,
    });
    this.#file = file;
    this.#opened = opened;
    try {
      const kept = new OverlayFile(specOf(opened));
      const stack = new LayerStack(descriptor, kept);
      const layer = stack.pushFile(opened);
      const { diskBytes: sizeBytes, dataOffset } = opened.header;
      const copier = new Copier(source, file.fd, `redo log ${this.path}`, moved);
      for (const { first, count, state } of differencesOf(source)) {
        const offset = first * BLOCK_BYTES;
        if (state === SAME) {
          // Past the end that the disk knows of an interrupted commit may have left something.
          const from = Math.max(first, Math.floor(shownBytes / BLOCK_BYTES));
          const beyond = base.sizeBytes > shownBytes ? first + count - from : 0;
          if (beyond <= 0) continue;
          const at = from * BLOCK_BYTES;
          copier.copy(at, Math.min(beyond * BLOCK_BYTES, sizeBytes - at), dataOffset);
          layer.map.set(from, beyond, STORE);
          continue;
        }
        if (state === STORE) copier.copy(offset, Math.min(count * BLOCK_BYTES, sizeBytes - offset), dataOffset);
        layer.map.set(first, count, state);
      }
      // Overlay files have whole blocks.
      ftruncateSync(file.fd, dataOffset + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES);
      this.#orThrow(kept.finish(layer));
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * From here on the commit is certain. One that was interrupted before, and that this one contains, is replaced.
   *
   * @returns the log to apply, still locked: nobody else finishes it meanwhile. It is open until `close`.
   */
  publish(replace: boolean): OpenedOverlay {
    try {
      this.#file.publish(replace);
    } catch (error) {
      if (errnoOf(error) === EEXIST) {
        throw new CowfsError('refused', `${this.path} is there already: another commit was faster; try again`, error);
      }
      throw new CowfsError('failed', `redo log ${this.path} cannot be made: ${reasonOf(error)}`, error);
    }
    return reread(this.#opened);
  }

  close(): void {
    this.#file.close();
  }

  #orThrow(errno: Errno): void {
    if (errno === OK) return;
    throw new CowfsError('missing', `redo log ${this.path} cannot be written (${errnoName(errno)}); make room there`);
  }
}

/** The base has all of it: whoever finds the log does not write to the base again. */
export function markApplied(opened: OpenedOverlay): Errno {
  const { fd, header } = opened;
  const bytes = encodeHeader({ ...header, applied: true });
  for (let slot = 0; slot < HEADER_SLOTS; slot++) {
    const errno = writeAll(fd, slot * HEADER_BYTES, HEADER_BYTES, bytes, 0);
    if (errno !== OK) return errno;
  }
  return OK;
}
