/**
 * Lends the content of a disk to a command, which reads the stores themselves by the daemon's descriptors: as it is at the
 * moment, in layers that stay as they are until the command's connection ends. Main thread.
 *
 * A command that writes the content into the base (`commit`) has the base for itself meanwhile. From when it begins to
 * write there until it says that it is done, only the disk that is committed knows what the base should have: if the
 * command dies in between, nobody else may look at it until another commit has come to its end.
 */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { BaseDescriptor } from '../base/base.ts';
import { baseChange } from '../base/change.ts';
import { lockAlone, shareAgain, useAlone } from '../base/lock.ts';
import type { OpenedBase } from '../base/open.ts';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import type { NodeId } from '../fs/node.ts';
import { CowfsError } from '../lib/error.ts';
import { redoLogPath } from '../overlay/commit/log-path.ts';
import { cloneStore } from '../overlay/file/clone.ts';
import { BASE_LAYER, closeStores } from '../overlay/layers.ts';
import type { HoldPurpose, LentDisk, LentLayer, LentRuns } from './control-requests.ts';
import type { DiskAccess } from './disk-access.ts';

/** Runs in one answer: some 100 KiB of text. */
const MOST_RUNS = 8192;

interface Hold {
  readonly path: string;
  readonly node: NodeId;
  /** The topmost one. */
  readonly layer: number;
  /** Whether the layer is referenced for it: what a kept disk has is only looked at. */
  readonly isFrozen: boolean;
  /** As they were lent: a commit may end meanwhile and take some of them out from under the disk. */
  readonly layers: readonly LentLayer[];
  readonly purpose: HoldPurpose;
}

export interface HoldsOptions {
  readonly fs: CowFs;
  readonly access: DiskAccess;
  readonly readOnly: boolean;
  /** File that keeps a disk. */
  readonly overlay: string | undefined;
  readonly base: () => OpenedBase;
  /** Told when the base has become what a disk was. */
  readonly committed: () => void;
}

export class Holds {
  readonly #options: HoldsOptions;
  readonly #holds = new Map<object, Hold>();
  /** The disk whose commit has begun to write to the base. */
  #unfinished: NodeId | undefined;

  constructor(options: HoldsOptions) {
    this.#options = options;
  }

  /** Whether anything is lent. */
  get any(): boolean {
    return this.#holds.size > 0;
  }

  /**
   * @param client who gets it; it is his until `release`
   * @throws CowfsError: no such disk, in use, kept
   */
  hold(client: object, path: string, purpose: HoldPurpose): LentDisk {
    if (this.#holds.has(client)) throw new CowfsError('usage', 'hold: one at a time');
    const { access, base, fs } = this.#options;
    const { layers } = fs.sessions;
    if (purpose === 'commit') this.#prepareCommit(path);
    else this.#checkFinished(path);
    let hold: Hold;
    try {
      const lent = this.#lend(path, purpose);
      hold = { path, purpose, ...lent, layers: this.#lentLayers(lent.layer) };
    } catch (error) {
      if (purpose === 'commit') this.#endCommit();
      throw error;
    }
    // Below the topmost one, which `#lend` has referenced.
    if (hold.isFrozen) for (const { id } of hold.layers) if (id !== hold.layer) layers.reference(id);
    this.#holds.set(client, hold);
    const { path: basePath, descriptor } = base();
    return {
      pid: process.pid,
      path: access.full(path),
      base: { path: basePath, ...this.#descriptorNow(descriptor) },
      layers: hold.layers,
      isUnfinished: this.#unfinished !== undefined,
    };
  }

  map(client: object, layer: number, from: number): LentRuns {
    const hold = this.#holds.get(client);
    const { layers } = this.#options.fs.sessions;
    if (hold === undefined || !hold.layers.some(({ id }) => id === layer)) {
      throw new CowfsError('usage', `map: layer ${layer} is not lent`);
    }
    const { map } = layers.open(layer);
    const runs: number[] = [];
    let block = from;
    while (block < map.blocks && runs.length < 2 * MOST_RUNS) {
      const run = map.runAt(block, map.blocks - block);
      runs.push(run, map.runState);
      block += run;
    }
    return { runs, next: block < map.blocks ? block : null };
  }

  commitBegins(client: object): void {
    this.#unfinished = this.#committing(client).node;
  }

  commitDone(client: object): void {
    const hold = this.#committing(client);
    const { access, fs, committed } = this.#options;
    const sizeBytes = fs.sessions.layerBytes(hold.layer);
    // It may have been moved, or removed.
    if (fs.inodes.kind(hold.node) === KIND.DISK) {
      const session = fs.inodes.get(hold.node, INODE.CONTENT);
      access.alone(hold.path, session, () => fs.sessions.rebase(session, hold.layer, sizeBytes));
    }
    committed();
    this.#unfinished = undefined;
    this.release(client);
  }

  /** @returns whether a layer may have become superfluous */
  release(client: object): boolean {
    const hold = this.#holds.get(client);
    if (hold === undefined) return false;
    this.#holds.delete(client);
    const { layers } = this.#options.fs.sessions;
    if (hold.isFrozen) for (const { id } of hold.layers) closeStores(layers.release(id));
    if (hold.purpose === 'commit') {
      if (!this.#hasBegun()) this.#unfinished = undefined;
      this.#endCommit();
    }
    return hold.isFrozen;
  }

  /**
   * Freezes what a disk has.
   *
   * @returns the layer, referenced for the caller if it is frozen
   */
  #lend(path: string, purpose: HoldPurpose): Pick<Hold, 'layer' | 'isFrozen' | 'node'> {
    const { access, fs } = this.#options;
    const { sessions } = fs;
    return access.withDisk(path, (node, session) => {
      if (session === sessions.kept.session) {
        if (purpose === 'look') return { node, layer: sessions.top(session), isFrozen: false };
        if (purpose === 'commit') access.checkNotKept(path, session, 'be committed while it is mounted');
        return { node, layer: this.#copyKept(path, session), isFrozen: true };
      }
      if (purpose === 'commit') this.#checkAlone(path, node);
      return access.alone(path, session, () => ({ node, layer: sessions.snapshot(session), isFrozen: true }));
    });
  }

  /** Freezing what is kept would have the writes that follow go elsewhere; so it is copied. */
  #copyKept(path: string, session: number): number {
    const { access, fs, overlay = '' } = this.#options;
    const { sessions } = fs;
    return access.alone(path, session, () => {
      const top = sessions.top(session);
      const copy = cloneStore(dirname(overlay), sessions.layers.open(top), sessions.layers.writtenBytes(top));
      if (typeof copy === 'number') return sessions.kept.copy(copy);
      throw new CowfsError(
        'refused',
        `${access.full(path)} is kept in ${overlay}, of which no copy can be made while it is mounted (${copy}); unmount it, then name that file`,
      );
    });
  }

  /** @throws CowfsError of kind `refused` where another disk, or a snapshot, shows the base */
  #checkAlone(path: string, node: NodeId): void {
    const { access, fs, readOnly } = this.#options;
    if (readOnly) throw new CowfsError('refused', `${access.full(path)} is read-only: there is nothing to commit`);
    const { inodes, namespace } = fs;
    const others = inodes.locked(() =>
      [...inodes.all(KIND.DISK), ...inodes.all(KIND.SNAPSHOT)]
        .filter((each) => each !== node)
        .map((each) =>
          inodes.kind(each) === KIND.DISK ? namespace.pathLocked(each) : `snapshot ${inodes.name(each)}`,
        ),
    );
    if (others.length === 0) return;
    const named = `${others.slice(0, 3).join(', ')}${others.length > 3 ? ' and others' : ''}`;
    throw new CowfsError(
      'refused',
      `${access.full(path)}: ${named} of this mount would change with the base; remove them first, or commit to a new file with --to`,
    );
  }

  /** Whether the base may have been written to; a command can say so and die before. */
  #hasBegun(): boolean {
    const { base } = this.#options;
    return existsSync(redoLogPath(base().path)) || baseChange(base()) !== undefined;
  }

  #committing(client: object): Hold {
    const hold = this.#holds.get(client);
    if (hold?.purpose === 'commit') return hold;
    throw new CowfsError('usage', 'nothing is lent for a commit');
  }

  #prepareCommit(path: string): void {
    const { access, base, fs } = this.#options;
    this.#checkFinished(path);
    if ([...this.#holds.values()].some(({ purpose }) => purpose === 'commit')) {
      throw new CowfsError('refused', `${access.full(path)}: another commit is under way; wait for it`);
    }
    if (this.#holds.size > 0) {
      throw new CowfsError('refused', `${access.full(path)}: an export or diff is under way; wait for it`);
    }
    const { path: basePath, descriptor } = base();
    const change = baseChange(base());
    // What an interrupted commit wrote there is ours.
    if (change !== undefined && this.#unfinished === undefined) {
      throw new CowfsError(
        'refused',
        `the base ${basePath} changed under this mount (${change}); what the disk shows is not to be trusted: use --to, and look`,
      );
    }
    try {
      useAlone(basePath, descriptor.fd);
    } catch (error) {
      if (this.#unfinished !== undefined) lockAlone(descriptor.fd);
      throw error;
    }
    if (this.#unfinished === undefined && existsSync(redoLogPath(basePath))) {
      shareAgain(descriptor.fd);
      throw new CowfsError(
        'refused',
        `the base ${basePath} has a commit of another disk that was interrupted (${redoLogPath(basePath)}); use --to, unmount, and mount again`,
      );
    }
    // Nobody may make a disk, or change what lies under one.
    fs.sessions.base.isCommitting = true;
  }

  #endCommit(): void {
    if (this.#unfinished !== undefined) return;
    const { base, fs } = this.#options;
    fs.sessions.base.isCommitting = false;
    shareAgain(base().descriptor.fd);
  }

  #checkFinished(path: string): void {
    if (this.#unfinished === undefined) return;
    const { access } = this.#options;
    if (access.withDisk(path, (node) => node) !== this.#unfinished) throw this.#unfinishedError(path);
  }

  #unfinishedError(path: string): CowfsError {
    const { access, fs } = this.#options;
    const disk = access.full(this.#unfinished === undefined ? '' : fs.namespace.path(this.#unfinished));
    return new CowfsError(
      'refused',
      `${access.full(path)}: the commit of ${disk} was interrupted; run cowfs commit ${disk} again`,
    );
  }

  /** The base's size may have changed by a commit. */
  #descriptorNow(descriptor: BaseDescriptor): Pick<BaseDescriptor, 'fd' | 'sizeBytes' | 'hasHoles'> {
    const { fd, hasHoles } = descriptor;
    return { fd, hasHoles, sizeBytes: this.#options.fs.sessions.base.bytes };
  }

  #lentLayers(top: number): LentLayer[] {
    const { clones, layers } = this.#options.fs.sessions;
    if (clones.isClone(top)) {
      const sizeBytes = clones.sizeBytes(top);
      const storeFd = clones.fd(top);
      return [{ id: top, sizeBytes, backingLimit: sizeBytes, storeFd, origin: 0, isClone: true }];
    }
    const lent: LentLayer[] = [];
    for (let at = top; at !== BASE_LAYER; at = layers.backing(at)) {
      const { sizeBytes, backingLimit } = layers.extent(at).both();
      const { fd, origin } = layers.open(at).store;
      lent.unshift({ id: at, sizeBytes, backingLimit, storeFd: fd < 0 ? null : fd, origin, isClone: false });
    }
    return lent;
  }
}
