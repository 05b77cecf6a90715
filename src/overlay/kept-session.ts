/**
 * The one session of a mount whose writes go to the overlay file and are there at the next mount. For `Sessions`, whose
 * part it is; the prepared file itself is `file/`'s. One instance a thread.
 */
import { type Errno, OK } from '../lib/errno.ts';
import type { Header } from './file/layout.ts';
import type { OverlayFile } from './file/overlay-file.ts';
import type { Layer } from './layer.ts';
import { BASE_LAYER } from './layers.ts';
import type { Sessions } from './sessions.ts';
import { MOUNT } from './shared.ts';

export class KeptSession {
  readonly #sessions: Pick<Sessions, 'layers' | 'top' | 'recount'>;
  readonly #mount: Int32Array;
  readonly #file: OverlayFile | undefined;

  constructor(
    sessions: Pick<Sessions, 'layers' | 'top' | 'recount'>,
    mount: Int32Array,
    file: OverlayFile | undefined,
  ) {
    this.#sessions = sessions;
    this.#mount = mount;
    this.#file = file;
  }

  /** Its number; 0 if nothing is kept. */
  get session(): number {
    return Atomics.load(this.#mount, MOUNT.KEPT_SESSION);
  }

  /**
   * Makes a fresh session keep its writes in the overlay file, and gives it what that has already.
   *
   * @param load fills the map
   */
  keep(
    session: number,
    fd: number,
    { dataOffset, diskBytes, backingLimit }: Header,
    load: (layer: Layer) => void,
  ): void {
    const { layers } = this.#sessions;
    const top = this.#sessions.top(session);
    layers.giveStore(top, fd, dataOffset);
    layers.keep(top);
    layers.extent(top).initialise(diskBytes, backingLimit);
    load(layers.open(top));
    layers.recount(top);
    this.#sessions.recount(session);
    Atomics.store(this.#mount, MOUNT.KEPT_SESSION, session);
  }

  /**
   * What it has now as a layer that stays, referenced once for the caller. The gate is closed.
   *
   * @param fd of a copy of its store
   */
  copy(fd: number): number {
    const { layers } = this.#sessions;
    const top = this.#open();
    const copy = layers.create(BASE_LAYER, top.sizeBytes, top.extent.backingLimit);
    layers.giveStore(copy, fd, top.store.origin);
    const { map } = layers.open(copy);
    for (let block = 0; block < map.blocks; ) {
      const run = top.map.runAt(block, map.blocks - block);
      map.set(block, run, top.map.runState);
      block += run;
    }
    return copy;
  }

  /** Makes durable what is kept. */
  sync(): Errno {
    return this.session === 0 ? OK : this.#open().sync();
  }

  /** The same at the end, when nobody writes any more. */
  finish(): Errno {
    return this.session === 0 ? OK : (this.#file?.finish(this.#open()) ?? OK);
  }

  /** Back to the base. The gate is closed. */
  empty(sizeBytes: number, baseBytes: number): Errno {
    const { session } = this;
    const forget = (): void => {
      this.#sessions.layers.clear(this.#sessions.top(session), sizeBytes, baseBytes);
      this.#sessions.recount(session);
    };
    return this.#file?.empty(this.#open(), forget) ?? OK;
  }

  #open(): Layer {
    return this.#sessions.layers.open(this.#sessions.top(this.session));
  }
}
