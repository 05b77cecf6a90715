/**
 * Finds layers that have become superfluous, since what else stood on them is gone, and has them merged
 * (`overlay/merge.ts`). Main thread, in slices between which everything else goes on. A frozen layer is merged while the
 * disks above it are in use; one that takes writes at one go while nobody is inside, if it is small, else frozen first.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import { type Errno, errnoName, OK } from '../lib/errno.ts';
import { reasonOf } from '../lib/error.ts';
import { BASE_LAYER, closeStores } from '../overlay/layers.ts';
import { Merge } from '../overlay/merge.ts';
import type { Journal } from './journal.ts';

const INTERVAL_MS = 1000;
/** How long the users of a disk may be kept waiting for each other before it is tried again later. */
const QUIET_MS = 200;
/** After a merge that could not be done: the store is full, or a request takes long. */
const RETRY_MS = 10_000;
/** A layer of up to 16 MiB is merged while its disk waits: some milliseconds. */
const SMALL_BLOCKS = 4096;

interface Pair {
  readonly above: number;
  readonly below: number;
  /** The session that writes to the upper layer, unless that is frozen. */
  readonly writer: number | undefined;
}

export class Merger {
  readonly #fs: CowFs;
  readonly #journal: Journal;
  readonly #timer: NodeJS.Timeout;
  #seenReleases = 0;
  #notBefore = 0;
  #isBusy = false;
  #isClosed = false;

  constructor(fs: CowFs, journal: Journal) {
    this.#fs = fs;
    this.#journal = journal;
    this.#timer = setInterval(() => this.look(), INTERVAL_MS);
    this.#timer.unref();
  }

  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
  }

  /** Looks for something to merge, where anything has gone since the last look. */
  look(): void {
    const { releases } = this.#fs.sessions.layers;
    if (this.#isBusy || this.#isClosed || releases === this.#seenReleases || performance.now() < this.#notBefore)
      return;
    const pair = this.#find();
    if (pair === undefined) {
      this.#seenReleases = releases;
      return;
    }
    this.#isBusy = true;
    this.#merge(pair)
      .catch((error: unknown) => {
        this.#journal.error(`merging layers: ${reasonOf(error)}`, error instanceof Error ? error.stack : undefined);
        return false;
      })
      .then((isDone) => {
        this.#isBusy = false;
        if (!isDone) this.#notBefore = performance.now() + RETRY_MS;
        else setImmediate(() => this.look());
      });
  }

  /** The sessions of all disks, those without a name included. */
  #sessions(): number[] {
    const { inodes } = this.#fs;
    return inodes.all(KIND.DISK).map((node) => inodes.get(node, INODE.CONTENT));
  }

  #find(): Pair | undefined {
    const { sessions } = this.#fs;
    const { layers } = sessions;
    const writers = new Map(this.#sessions().map((session) => [sessions.top(session), session]));
    for (const above of layers.all()) {
      const below = layers.backing(above);
      if (below === BASE_LAYER || layers.references(below) !== 1) continue;
      const writer = writers.get(above);
      // Room that was set aside stays where it is.
      if (writer === undefined || !layers.hasReservations(above)) return { above, below, writer };
    }
    return undefined;
  }

  /** @returns false when it could not be done now */
  async #merge(pair: Pair): Promise<boolean> {
    const { sessions } = this.#fs;
    const { above, writer } = pair;
    if (writer === undefined) return this.#mergeFrozen(pair);
    return this.#alone([writer], () => {
      if (sessions.top(writer) !== above) return true;
      if (sessions.layers.ownBlocks(above) > SMALL_BLOCKS) {
        sessions.freeze(writer);
        return true;
      }
      return this.#mergeTop(pair, writer);
    });
  }

  #mergeTop({ above, below }: Pair, writer: number): boolean {
    const { sessions } = this.#fs;
    if (sessions.layers.hasReservations(above)) return false;
    const merge = new Merge(sessions.layers, above, below);
    let errno: Errno = OK;
    while (errno === OK && !merge.isDone) errno = merge.step();
    if (errno === OK) errno = merge.finish();
    if (errno !== OK) return this.#giveUp(merge, below, errno);
    const stores = sessions.layers.replace(above, below);
    sessions.layers.recount(below);
    sessions.lowerTop(writer, below);
    closeStores(stores);
    return true;
  }

  async #mergeFrozen({ above, below }: Pair): Promise<boolean> {
    const { layers } = this.#fs.sessions;
    // It may lose its users meanwhile.
    layers.reference(above);
    let held = above;
    const merge = new Merge(layers, above, below);
    try {
      let errno: Errno = OK;
      while (errno === OK && !merge.isDone) {
        errno = merge.step();
        await nextTurn();
        if (this.#isClosed) return true;
      }
      if (errno !== OK) return this.#giveUp(merge, below, errno);
      if (layers.references(above) === 1) return true;
      const users = this.#sessions().filter((session) => this.#standsOn(session, above));
      if (!this.#alone(users, () => this.#relink(merge, above, below))) return false;
      // References went over, ours among them.
      held = below;
      return true;
    } finally {
      closeStores(layers.release(held));
    }
  }

  #relink(merge: Merge, above: number, below: number): boolean {
    const { inodes, sessions } = this.#fs;
    inodes.lock();
    try {
      const errno = merge.finish();
      if (errno !== OK) return this.#giveUp(merge, below, errno);
      const stores = sessions.layers.replace(above, below);
      sessions.layers.recount(below);
      for (const snapshot of inodes.all(KIND.SNAPSHOT)) {
        if (inodes.get(snapshot, INODE.CONTENT) === above) inodes.set(snapshot, INODE.CONTENT, below);
      }
      for (const session of this.#sessions()) {
        if (this.#standsOn(session, below)) sessions.recount(session);
      }
      closeStores(stores);
      return true;
    } finally {
      inodes.unlock();
    }
  }

  #standsOn(session: number, layer: number): boolean {
    const { sessions } = this.#fs;
    let at = sessions.top(session);
    while (at !== BASE_LAYER && at !== layer) at = sessions.layers.backing(at);
    return at === layer;
  }

  #giveUp(merge: Merge, below: number, errno: Errno): boolean {
    const { sessions } = this.#fs;
    const before = sessions.layers.ownBlocks(below);
    const left = merge.giveUp();
    const gone = before - sessions.layers.ownBlocks(below);
    for (const session of this.#sessions()) if (this.#standsOn(session, below)) sessions.refund(session, gone);
    this.#journal.warn(
      `layers that could be merged stay apart: ${errnoName(errno)}${left === OK ? '' : `, ${errnoName(left)}`}`,
    );
    return false;
  }

  /** Runs `action` while no thread is inside any of the sessions; false when that takes too long. */
  #alone(users: readonly number[], action: () => boolean): boolean {
    const { gate } = this.#fs.sessions;
    const closed: number[] = [];
    try {
      for (const session of users) {
        if (!gate.close(session, QUIET_MS)) return false;
        closed.push(session);
      }
      return action();
    } finally {
      for (const session of closed) gate.open(session);
    }
  }
}
