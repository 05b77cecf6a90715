/**
 * The sessions of a mount: each a disk of its own over the one base. Makes, opens, forks and discards them, and moves
 * them between layers. One instance a thread, over shared memory.
 *
 * What changes the layers under a session wants its gate closed (`gate.ts`): freezing, going back, starting again.
 */
import type { Base } from '../base/base.ts';
import { type Errno, OK } from '../lib/errno.ts';
import { blocksAt, type Quotas, StoreAccount } from './account.ts';
import { Arena } from './arena.ts';
import { BLOCK_BYTES } from './block.ts';
import { ClonedDisk } from './cloned-disk.ts';
import { ClonedSessions } from './cloned-sessions.ts';
import { Clones } from './clones.ts';
import { Disk } from './disk.ts';
import type { OverlayFile } from './file/overlay-file.ts';
import { Gate } from './gate.ts';
import { KeptSession } from './kept-session.ts';
import { BASE_LAYER, closeStores, Layers } from './layers.ts';
import { RangeLock, STRIPES } from './range-lock.ts';
import { EXTENT, MOUNT, SESSION } from './shared.ts';
import { SharedBase } from './shared-base.ts';
import type { StoreDirectory } from './store-directory.ts';

/** Plain data, posted to every thread. */
export interface OverlayMemory {
  readonly arena: SharedArrayBuffer;
  readonly presence: SharedArrayBuffer;
  /** Index of the mount's record. */
  readonly mount: number;
}

/** A view of the disk of a session. */
export type SessionDisk = Disk | ClonedDisk;

export interface SessionsOptions {
  readonly memory: OverlayMemory;
  /** Number of this thread. */
  readonly thread: number;
  readonly base: Base;
  readonly directory: StoreDirectory;
  readonly quotas: Quotas;
  /** Behind the kept disk, if there is one. */
  readonly file?: OverlayFile | undefined;
  /** Whether fresh disks are clones of the base. */
  readonly clonesBase?: boolean;
}

const RECORD_WORDS = SESSION.WORDS + STRIPES;

export class Sessions {
  readonly base: SharedBase;
  readonly gate: Gate;
  readonly layers: Layers;
  readonly directory: StoreDirectory;
  readonly kept: KeptSession;
  readonly clones: Clones;
  readonly cloned: ClonedSessions;
  readonly #arena: Arena;
  readonly #presence: SharedArrayBuffer;
  readonly #mount: Int32Array;
  readonly #quotas: Quotas;
  readonly #file: OverlayFile | undefined;
  readonly #clonesBase: boolean;

  /** @param threads how many will use it */
  static create(threads: number): OverlayMemory {
    const buffer = Arena.create();
    const arena = new Arena(buffer);
    const mount = arena.locked(() => arena.allocate(MOUNT.WORDS));
    return { arena: buffer, presence: Gate.create(threads), mount };
  }

  constructor({ memory, thread, base, directory, quotas, file, clonesBase = false }: SessionsOptions) {
    this.#arena = new Arena(memory.arena);
    this.#mount = this.#arena.record(memory.mount, MOUNT.WORDS);
    this.base = new SharedBase(base, this.#arena, memory.mount);
    this.#quotas = quotas;
    this.#file = file;
    this.directory = directory;
    this.gate = new Gate(this.#arena, memory.presence, thread);
    this.#presence = memory.presence;
    this.layers = new Layers(this.#arena, this.#mount, base, directory, file);
    this.clones = new Clones(this.layers, directory, base);
    this.cloned = new ClonedSessions(this, this.#arena);
    this.#clonesBase = clonesBase;
    this.kept = new KeptSession(this, this.#mount, file);
  }

  /** The gates with another row than this thread's, for what it has under way besides. */
  gateOf(row: number): Gate {
    return new Gate(this.#arena, this.#presence, row);
  }

  /** Changes whenever a `Disk` that was opened before has to be opened again. */
  get topology(): number {
    return Atomics.load(this.#mount, MOUNT.TOPOLOGY);
  }

  /** Bytes that all sessions take or are promised in the store. */
  get occupiedBytes(): number {
    return blocksAt(this.#mount, MOUNT.OCCUPIED_BLOCKS) * BLOCK_BYTES;
  }

  /** Free bytes where the stores are; of two places those of the fuller one. */
  get freeBytes(): number {
    return Math.min(this.directory.freeBytes, this.#file?.directory.freeBytes ?? Number.POSITIVE_INFINITY);
  }

  /** Bytes of shared memory that records and maps take. */
  get memoryBytes(): number {
    return this.#arena.usedBytes;
  }

  /** A session that shows the base and, past its end, zeros. */
  create(sizeBytes: number): number {
    if (this.#clonesBase) return this.#create(this.clones.create(this.base.fd, sizeBytes));
    return this.#create(this.layers.create(BASE_LAYER, sizeBytes, this.base.bytes));
  }

  /** Gives a session that nobody has written to the file that its writes will go to, as `openTempStore` made it. */
  giveStore(session: number, fd: number): void {
    this.layers.giveStore(this.top(session), fd, 0);
  }

  /** A view of the session's disk as it is composed now. */
  disk(session: number): SessionDisk {
    const fd = this.cloned.file(session);
    return fd === undefined ? this.open(session) : new ClonedDisk(fd);
  }

  /** A view of one that is made of layers. */
  open(session: number): Disk {
    const record = this.#record(session);
    this.base.refresh();
    const layer = this.layers.open(this.top(session));
    return new Disk(
      layer,
      new RangeLock(this.#arena.record(session + SESSION.WORDS, STRIPES)),
      new StoreAccount(layer.control, record, this.#mount, this.#quotas),
    );
  }

  /** Bytes of the session's disk, without opening it. */
  sizeBytes(session: number): number {
    return this.layerBytes(this.top(session));
  }

  /** Bytes of the disk that a layer shows, without opening it. */
  layerBytes(layer: number): number {
    return this.clones.isClone(layer)
      ? this.clones.sizeBytes(layer)
      : this.#arena.double(layer + EXTENT.AT + EXTENT.SIZE * 2);
  }

  /** Bytes that the session's layers take or are promised in the store, without opening its disk; of a clone none. */
  occupiedBytesOf(session: number): number {
    return (this.#load(session, SESSION.OCCUPIED_BLOCKS) >>> 0) * BLOCK_BYTES;
  }

  /** The layer that takes the session's writes. */
  top(session: number): number {
    return this.#load(session, SESSION.TOP);
  }

  /**
   * Ends a session that nobody uses any more.
   *
   * @returns descriptors of stores, for `closeStores`
   */
  discard(session: number): number[] {
    const stores = this.layers.release(this.top(session));
    this.#arena.locked(() => this.#arena.free(session, RECORD_WORDS));
    return stores;
  }

  /** A second session with the content of the first; costs the same whatever was written. The gate is closed. */
  fork(session: number): number {
    const top = this.top(session);
    if (this.clones.isClone(top)) return this.#create(this.clones.copy(top));
    if (!this.layers.isClean(top)) this.freeze(session);
    const { sizeBytes, backingLimit } = this.layers.extent(this.top(session));
    return this.#create(this.layers.create(this.layers.backing(this.top(session)), sizeBytes, backingLimit));
  }

  /** The present content as a layer that stays, referenced once for the caller. The gate is closed. */
  snapshot(session: number): number {
    const top = this.top(session);
    if (this.clones.isClone(top)) return this.clones.copy(top);
    const below = this.layers.backing(top);
    if (below !== BASE_LAYER && this.layers.isClean(top) && this.#showsAllOf(top, below)) {
      this.layers.reference(below);
      return below;
    }
    this.freeze(session);
    this.layers.reference(top);
    return top;
  }

  /** Goes back to a layer; what was written since is discarded. The gate is closed. */
  rollback(session: number, layer: number): void {
    if (this.clones.isClone(layer)) {
      this.clones.replace(this.top(session), this.clones.fd(layer));
      return;
    }
    const { sizeBytes } = this.layers.extent(layer);
    this.#replaceTop(session, this.layers.create(layer, sizeBytes, sizeBytes));
  }

  /**
   * Back to the base. The gate is closed.
   *
   * @returns an error of the overlay file, of a session that is kept
   */
  reset(session: number, sizeBytes: number): Errno {
    if (session === this.kept.session) return this.kept.empty(sizeBytes, this.base.bytes);
    if (this.clones.isClone(this.top(session))) {
      this.clones.replace(this.top(session), this.base.fd, sizeBytes);
      return OK;
    }
    this.#replaceTop(session, this.layers.create(BASE_LAYER, sizeBytes, this.base.bytes));
    return OK;
  }

  /**
   * The base has all that a layer shows: what stands on the layer stands on the base from now on. The gate is closed, and
   * nothing else stands on the base.
   */
  rebase(session: number, layer: number, baseBytes: number): void {
    this.base.bytes = baseBytes;
    closeStores(this.layers.standOnBase(this.top(session), layer));
    this.recount(session);
    Atomics.add(this.#mount, MOUNT.TOPOLOGY, 1);
  }

  /**
   * From here on writes go to a layer of their own; the one that took them until now stays as it is. The gate is closed.
   */
  freeze(session: number): void {
    const frozen = this.top(session);
    this.layers.dropReservations(frozen);
    const { sizeBytes } = this.layers.extent(frozen);
    this.#replaceTop(session, this.layers.create(frozen, sizeBytes, sizeBytes));
  }

  /** After a merge the layer below is the top. The gate is closed. */
  lowerTop(session: number, below: number): void {
    Atomics.store(this.#record(session), SESSION.TOP, below);
    this.recount(session);
  }

  #showsAllOf(top: number, below: number): boolean {
    const { sizeBytes, backingLimit } = this.layers.extent(top);
    const whole = this.layers.extent(below).sizeBytes;
    return sizeBytes === whole && backingLimit === whole;
  }

  #replaceTop(session: number, top: number): void {
    const record = this.#record(session);
    const before = Atomics.exchange(record, SESSION.TOP, top);
    const stores = this.layers.release(before);
    this.recount(session);
    Atomics.add(this.#mount, MOUNT.TOPOLOGY, 1);
    closeStores(stores);
  }

  /** Counts anew what the session's quota counts; the gate is closed. */
  recount(session: number): void {
    Atomics.store(this.#record(session), SESSION.OCCUPIED_BLOCKS, this.layers.occupiedBlocks(this.top(session)) | 0);
  }

  /** Its layers take that much less. */
  refund(session: number, blocks: number): void {
    Atomics.sub(this.#record(session), SESSION.OCCUPIED_BLOCKS, blocks);
  }

  #create(top: number): number {
    let session: number;
    try {
      session = this.#arena.locked(() => this.#arena.allocate(RECORD_WORDS));
    } catch (error) {
      closeStores(this.layers.release(top));
      throw error;
    }
    Atomics.store(this.#record(session), SESSION.TOP, top);
    this.cloned.begin(session);
    this.recount(session);
    return session;
  }

  #load(session: number, slot: number): number {
    this.#arena.reach(session, SESSION.WORDS);
    return Atomics.load(this.#arena.words, session + slot);
  }

  #record(session: number): Int32Array {
    return this.#arena.record(session, SESSION.WORDS);
  }
}
