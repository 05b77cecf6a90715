/**
 * Finds layers that have become superfluous, since what else stood on them is gone, and has them merged
 * (`overlay/merge.ts`). Main thread, in slices between which everything else goes on. A frozen layer is merged while the
 * disks above it are in use; one that takes writes at one go while nobody is inside, if it is small, else frozen first.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import type { NodeId } from '../fs/node.ts';
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
}

/** A disk that stands on a layer. */
interface User {
  readonly node: NodeId;
  readonly session: number;
}

/** What became of the upper layer; undefined where nothing could be done now. */
type Outcome = 'replaced' | 'frozen' | undefined;

export class Merger {
  readonly #fs: CowFs;
  readonly #journal: Journal;
  readonly #timer: NodeJS.Timeout;
  #seenReleases = 0;
  #notBefore = 0;
  #isBusy = false;
  #isClosed = false;

  readonly #isHeld: () => boolean;

  /** @param isHeld whether layers are lent: those stay as they are */
  constructor(fs: CowFs, journal: Journal, isHeld: () => boolean) {
    this.#isHeld = isHeld;
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
    if (this.#isBusy || this.#isClosed || this.#isHeld()) return;
    if (releases === this.#seenReleases || performance.now() < this.#notBefore) return;
    const pair = this.#claim();
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

  /**
   * A pair to merge, with a reference on the upper layer: it stays, whatever becomes of the disks above it. Under the lock
   * of the names, since disks end under it.
   */
  #claim(): Pair | undefined {
    const { inodes, sessions } = this.#fs;
    const { layers } = sessions;
    return inodes.locked(() => {
      const tops = new Set(inodes.all(KIND.DISK).map((node) => sessions.top(inodes.get(node, INODE.CONTENT))));
      for (const above of layers.all()) {
        const below = layers.backing(above);
        if (below === BASE_LAYER || layers.references(below) !== 1) continue;
        // Room that was set aside stays where it is.
        if (tops.has(above) && layers.hasReservations(above)) continue;
        layers.reference(above);
        return { above, below };
      }
      return undefined;
    });
  }

  /** @returns false when it could not be done now */
  async #merge(pair: Pair): Promise<boolean> {
    const { layers } = this.#fs.sessions;
    // Where the upper layer was replaced, its references went over to the lower, ours among them.
    let held = pair.above;
    try {
      const users = this.#hold(pair.above);
      const writer = users.find(({ session }) => this.#fs.sessions.top(session) === pair.above);
      if (writer !== undefined) {
        const outcome = this.#alone(users, () => this.#mergeTop(pair, writer.session));
        if (outcome === 'replaced') held = pair.below;
        return outcome !== undefined;
      }
      this.#letGo(users);
      const merge = new Merge(layers, pair.above, pair.below);
      const errno = await this.#move(merge);
      if (errno !== OK) return this.#giveUp(merge, pair, errno);
      // Nothing stands on it any more but ourselves, or the mount ends.
      if (layers.references(pair.above) === 1 || !merge.isDone) return true;
      if (this.#isHeld()) return false;
      const outcome = this.#alone(this.#hold(pair.above), () => this.#relink(merge, pair));
      if (outcome === 'replaced') held = pair.below;
      return outcome !== undefined;
    } finally {
      closeStores(layers.release(held));
    }
  }

  /** At one go, of a layer that takes writes; if there is much, it is frozen, and merged when it comes up again. */
  #mergeTop(pair: Pair, writer: number): Outcome {
    const { sessions } = this.#fs;
    const { layers } = sessions;
    const { above, below } = pair;
    if (layers.hasReservations(above)) return undefined;
    if (layers.ownBlocks(above) > SMALL_BLOCKS) {
      sessions.freeze(writer);
      return 'frozen';
    }
    const merge = new Merge(layers, above, below);
    let errno: Errno = OK;
    while (errno === OK && !merge.isDone) errno = merge.step();
    if (errno === OK) errno = merge.finish();
    if (errno !== OK) {
      this.#giveUp(merge, pair, errno);
      return undefined;
    }
    const stores = layers.replace(above, below);
    layers.recount(below);
    sessions.lowerTop(writer, below);
    closeStores(stores);
    return 'replaced';
  }

  async #move(merge: Merge): Promise<Errno> {
    let errno: Errno = OK;
    while (errno === OK && !merge.isDone && !this.#isClosed) {
      errno = merge.step();
      await nextTurn();
    }
    return errno;
  }

  #relink(merge: Merge, pair: Pair): Outcome {
    const { inodes, sessions } = this.#fs;
    const { above, below } = pair;
    const errno = merge.finish();
    if (errno !== OK) {
      this.#giveUp(merge, pair, errno);
      return undefined;
    }
    inodes.lock();
    try {
      const stores = sessions.layers.replace(above, below);
      sessions.layers.recount(below);
      for (const snapshot of inodes.all(KIND.SNAPSHOT)) {
        if (inodes.get(snapshot, INODE.CONTENT) === above) inodes.set(snapshot, INODE.CONTENT, below);
      }
      for (const { session } of this.#usersOf(below)) sessions.recount(session);
      closeStores(stores);
      return 'replaced';
    } finally {
      inodes.unlock();
    }
  }

  #giveUp(merge: Merge, { below }: Pair, errno: Errno): boolean {
    const { inodes, sessions } = this.#fs;
    inodes.lock();
    try {
      const before = sessions.layers.ownBlocks(below);
      const left = merge.giveUp();
      const gone = before - sessions.layers.ownBlocks(below);
      for (const { session } of this.#usersOf(below)) sessions.refund(session, gone);
      this.#journal.warn(
        `layers that could be merged stay apart: ${errnoName(errno)}${left === OK ? '' : `, ${errnoName(left)}`}`,
      );
    } finally {
      inodes.unlock();
    }
    return false;
  }

  /** The disks that stand on a layer; the caller holds the lock of the names. */
  #usersOf(layer: number): User[] {
    const { inodes } = this.#fs;
    return inodes
      .all(KIND.DISK)
      .map((node) => ({ node, session: inodes.get(node, INODE.CONTENT) }))
      .filter(({ session }) => this.#standsOn(session, layer));
  }

  /** The same, so that they stay until they are let go. */
  #hold(layer: number): User[] {
    const { inodes } = this.#fs;
    return inodes.locked(() => {
      const users = this.#usersOf(layer);
      for (const { node } of users) inodes.add(node, INODE.LOOKUPS, 1);
      return users;
    });
  }

  #letGo(users: readonly User[]): void {
    for (const { node } of users) this.#fs.forget(node, 1);
  }

  #standsOn(session: number, layer: number): boolean {
    const { sessions } = this.#fs;
    let at = sessions.top(session);
    while (at !== BASE_LAYER && at !== layer) at = sessions.layers.backing(at);
    return at === layer;
  }

  /** Runs `action` while no thread is inside any of the disks, and lets them go; undefined when that takes too long. */
  #alone(users: readonly User[], action: () => Outcome): Outcome {
    const { gate } = this.#fs.sessions;
    const closed: number[] = [];
    try {
      for (const { session } of users) {
        if (!gate.close(session, QUIET_MS)) return undefined;
        closed.push(session);
      }
      return action();
    } finally {
      for (const session of closed) gate.open(session);
      this.#letGo(users);
    }
  }
}
