/**
 * The account of a layer's blocks in the store, against the quotas of its session and of the mount, in shared memory.
 * Space is booked before it is written and given back if that fails, so that workers together never exceed a quota.
 */
import { BLOCK_BYTES, MAX_STORE_BLOCKS } from './block.ts';
import { LAYER, MOUNT, SESSION } from './shared.ts';

/** Most bytes that blocks may take in the store; undefined for what the host has. */
export interface Quotas {
  readonly maxStoreBytes: number | undefined;
  readonly maxSessionStoreBytes: number | undefined;
}

export class StoreAccount {
  readonly #layer: Int32Array;
  readonly #session: Int32Array;
  readonly #mount: Int32Array;
  readonly #sessionBlocks: number;
  readonly #mountBlocks: number;

  /** @param layer the records, as are `session` and `mount` */
  constructor(layer: Int32Array, session: Int32Array, mount: Int32Array, quotas: Quotas) {
    this.#layer = layer;
    this.#session = session;
    this.#mount = mount;
    this.#sessionBlocks = quotaBlocks(quotas.maxSessionStoreBytes);
    this.#mountBlocks = quotaBlocks(quotas.maxStoreBytes);
  }

  /** Bytes of blocks whose content is in this layer's store. */
  get writtenBytes(): number {
    return blocksAt(this.#layer, LAYER.WRITTEN_BLOCKS) * BLOCK_BYTES;
  }

  /** Bytes that the session's blocks take or are promised in the store; what its quota counts. */
  get occupiedBytes(): number {
    return blocksAt(this.#session, SESSION.OCCUPIED_BLOCKS) * BLOCK_BYTES;
  }

  /** Books `blocks` more; false, and nothing booked, if they do not fit. */
  charge(blocks: number): boolean {
    if (blocks === 0) return true;
    if (!book(this.#mount, MOUNT.OCCUPIED_BLOCKS, blocks, this.#mountBlocks)) return false;
    if (!book(this.#session, SESSION.OCCUPIED_BLOCKS, blocks, this.#sessionBlocks)) {
      Atomics.sub(this.#mount, MOUNT.OCCUPIED_BLOCKS, blocks);
      return false;
    }
    Atomics.add(this.#layer, LAYER.OCCUPIED_BLOCKS, blocks);
    return true;
  }

  /** Gives back what was booked. */
  refund(blocks: number): void {
    if (blocks === 0) return;
    Atomics.sub(this.#layer, LAYER.OCCUPIED_BLOCKS, blocks);
    Atomics.sub(this.#session, SESSION.OCCUPIED_BLOCKS, blocks);
    Atomics.sub(this.#mount, MOUNT.OCCUPIED_BLOCKS, blocks);
  }
}

/** A counter of blocks, which is unsigned. */
export function blocksAt(words: Int32Array, slot: number): number {
  return Atomics.load(words, slot) >>> 0;
}

function quotaBlocks(bytes: number | undefined): number {
  return bytes === undefined ? MAX_STORE_BLOCKS : Math.min(MAX_STORE_BLOCKS, Math.floor(bytes / BLOCK_BYTES));
}

function book(words: Int32Array, slot: number, blocks: number, most: number): boolean {
  for (;;) {
    const before = Atomics.load(words, slot);
    const after = (before >>> 0) + blocks;
    if (after > most) return false;
    if (Atomics.compareExchange(words, slot, before, after | 0) === before) return true;
  }
}
