/**
 * Layers over a base in a command's process, outside of any mount: those of an overlay file, or those that a daemon lends. One
 * thread.
 */
import { Base, type BaseDescriptor } from '../../base/base.ts';
import type { OpenedOverlay } from '../file/open.ts';
import type { OverlayFile } from '../file/overlay-file.ts';
import type { Layer } from '../layer.ts';
import { Sessions } from '../sessions.ts';
import { StoreDirectory } from '../store-directory.ts';

const NO_DIRECTORY = -1;

export interface StackedLayer {
  readonly sizeBytes: number;
  readonly backingLimit: number;
  /** Descriptor of its store, where there is one. */
  readonly fd: number | undefined;
  /** Byte of the store at which the disk begins. */
  readonly origin: number;
}

export class LayerStack {
  readonly base: Base;
  readonly #sessions: Sessions;
  readonly #isKept: boolean;
  #top = 0;

  /** @param file that the one layer is kept in, where it is to be changed */
  constructor(base: BaseDescriptor, file?: OverlayFile) {
    this.base = new Base(base);
    this.#isKept = file !== undefined;
    this.#sessions = new Sessions({
      memory: Sessions.create(1),
      thread: 0,
      base: this.base,
      directory: new StoreDirectory(NO_DIRECTORY),
      quotas: { maxStoreBytes: undefined, maxSessionStoreBytes: undefined },
      file,
    });
  }

  /** Puts a layer on top; the caller fills its map. */
  push({ sizeBytes, backingLimit, fd, origin }: StackedLayer): Layer {
    const { layers } = this.#sessions;
    this.#top = layers.create(this.#top, sizeBytes, backingLimit);
    if (fd !== undefined) layers.giveStore(this.#top, fd, origin);
    if (this.#isKept) layers.keep(this.#top);
    return this.top;
  }

  /** Puts what an overlay file keeps on top; the caller fills its map. */
  pushFile({ fd, header }: Pick<OpenedOverlay, 'fd' | 'header'>): Layer {
    const { diskBytes: sizeBytes, backingLimit, dataOffset: origin } = header;
    return this.push({ sizeBytes, backingLimit, fd, origin });
  }

  /** Makes the one layer one to which nothing was written. */
  clear(sizeBytes: number): void {
    this.#sessions.layers.clear(this.#top, sizeBytes, sizeBytes);
  }

  /** The disk: everything below shows through it. */
  get top(): Layer {
    return this.#sessions.layers.open(this.#top);
  }
}
