/**
 * The way from a path in the mount to a disk that a command may change: found, held, and with nobody inside. Main thread
 * of the daemon.
 */
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import { NO_NODE, type NodeId, ROOT_NODE } from '../fs/node.ts';
import { OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';

/** How long a request that is under way may take before a command gives up. */
const QUIET_MS = 3000;

export interface DiskAccessOptions {
  readonly fs: CowFs;
  readonly mountpoint: string;
  readonly readOnly: boolean;
  /** File that keeps one of the disks. */
  readonly overlay: string | undefined;
}

export class DiskAccess {
  readonly #fs: CowFs;
  readonly #options: DiskAccessOptions;

  constructor(options: DiskAccessOptions) {
    this.#fs = options.fs;
    this.#options = options;
  }

  /** Path of a disk from the root. */
  full(path: string): string {
    return `${this.#options.mountpoint}/${path}`;
  }

  /** Runs `action` while no thread is inside the session. */
  alone<T>(path: string, session: number, action: () => T): T {
    const { gate } = this.#fs.sessions;
    if (!gate.close(session, QUIET_MS)) {
      throw new CowfsError(
        'refused',
        `${this.full(path)}: a request has been under way for ${QUIET_MS / 1000} s (is the base or the store slow?); try again`,
      );
    }
    try {
      return action();
    } finally {
      gate.open(session);
    }
  }

  /** Runs `action` on the disk of that path, which does not go meanwhile. */
  withDisk<T>(path: string, action: (node: NodeId, session: number) => T): T {
    const { inodes, namespace } = this.#fs;
    const node = namespace.hold(path);
    if (node === NO_NODE || inodes.kind(node) !== KIND.DISK) {
      if (node !== NO_NODE) this.#fs.forget(node, 1);
      throw new CowfsError(
        'usage',
        `${this.full(path)} is no disk; \`cowfs status ${this.#options.mountpoint}\` lists them`,
      );
    }
    try {
      return action(node, inodes.get(node, INODE.CONTENT));
    } finally {
      this.#fs.forget(node, 1);
    }
  }

  /** Where a new disk is to be made. */
  parentOf(path: string): { parent: NodeId; name: string } {
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    if (slash < 0) return { parent: ROOT_NODE, name };
    const { namespace } = this.#fs;
    if (namespace.find(ROOT_NODE, path.slice(0, slash)) === OK) return { parent: namespace.found, name };
    throw new CowfsError('usage', `${this.full(path.slice(0, slash))} does not exist; make it first`);
  }

  snapshotOf(path: string, node: NodeId, name: string): { snapshot: NodeId; layer: number } {
    const { inodes, namespace } = this.#fs;
    const snapshot = namespace.childOf(node, name);
    if (snapshot !== NO_NODE) return { snapshot, layer: inodes.get(snapshot, INODE.CONTENT) };
    throw new CowfsError(
      'usage',
      `${this.full(path)} has no snapshot ${name}; \`cowfs snapshot ${this.full(path)}\` lists them`,
    );
  }

  /** @throws CowfsError of kind `refused` for the disk that is kept */
  checkNotKept(path: string, session: number, what: string): void {
    if (session !== this.#fs.sessions.kept.session) return;
    throw new CowfsError(
      'refused',
      `${this.full(path)} is kept in ${this.#options.overlay} and cannot ${what}; unmount it first, then copy or name that file`,
    );
  }

  /** @throws CowfsError of kind `refused` while disks must not be changed */
  checkWritable(what: string): void {
    if (this.#fs.sessions.base.isCommitting) {
      throw new CowfsError(
        'refused',
        `${this.#options.mountpoint}: a commit is under way or was interrupted, so no disk there can ${what}; let it come to its end (cowfs commit)`,
      );
    }
    if (this.#options.readOnly) {
      throw new CowfsError('refused', `${this.#options.mountpoint} is read-only: no disk there can ${what}`);
    }
  }
}
