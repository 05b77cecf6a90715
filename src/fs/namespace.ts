/**
 * Names in a mount: making, removing and moving disks and the one level of directories that there is. A disk that has
 * lost its name lives until nobody knows it any more: no handle is open, and the kernel has forgotten it. Any thread;
 * everything about names happens under the lock of the table of inodes.
 */
import { EBUSY, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, type Errno, OK } from '../lib/errno.ts';
import { closeStores } from '../overlay/layers.ts';
import type { Sessions } from '../overlay/sessions.ts';
import { SharedAttributes } from './attributes.ts';
import { CONTROL_NAME } from './control-directory.ts';
import { INODE, type Inodes, KIND, type Kind } from './inodes.ts';
import { checkSnapshotName, inherit, NameRules } from './name-rules.ts';
import { NAME_MAX_BYTES, NO_NODE, type NodeId, ROOT_NODE } from './node.ts';
import type { NewFile } from './ops.ts';
import type { Passthrough } from './passthrough.ts';

/** rename(2) flags (linux/fs.h). */
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

export class Namespace {
  /** The node that `create` or `makeDirectory` made, or `find` found. */
  found: NodeId = NO_NODE;

  readonly #inodes: Inodes;
  readonly #sessions: Sessions;
  readonly #passthrough: Passthrough;
  readonly #rules: NameRules;

  constructor(inodes: Inodes, sessions: Sessions, passthrough: Passthrough) {
    this.#inodes = inodes;
    this.#sessions = sessions;
    this.#passthrough = passthrough;
    this.#rules = new NameRules(inodes, sessions);
  }

  find(parent: NodeId, name: string): Errno {
    const kind = this.#inodes.kind(parent);
    if (kind !== KIND.DIRECTORY) return kind === KIND.FREE ? ENOENT : ENOTDIR;
    if (Buffer.byteLength(name) > NAME_MAX_BYTES) return ENAMETOOLONG;
    this.found = this.childOf(parent, name);
    return this.found === NO_NODE ? ENOENT : OK;
  }

  /** What a directory or a disk has by that name, an entry or a snapshot; none if there is nothing. */
  childOf(parent: NodeId, name: string): NodeId {
    return this.#inodes.locked(() => this.#inodes.child(parent, name));
  }

  /** A new disk of `sizeBytes` over the base. */
  create(parent: NodeId, name: string, file: NewFile, sizeBytes: number): Errno {
    return this.#make(parent, name, file, KIND.DISK, () => this.#sessions.create(sizeBytes));
  }

  /** A new disk with the content of a session that nobody is inside of. */
  fork(parent: NodeId, name: string, file: NewFile, session: number): Errno {
    return this.#make(parent, name, file, KIND.DISK, () => this.#sessions.fork(session));
  }

  /** Directories are for the root: one level is enough. */
  makeDirectory(parent: NodeId, name: string, file: NewFile): Errno {
    return parent === ROOT_NODE ? this.#make(parent, name, file, KIND.DIRECTORY, () => 0) : EPERM;
  }

  /** Names a layer as a snapshot of a disk; it goes with the disk. */
  addSnapshot(disk: NodeId, name: string, layer: () => number): Errno {
    const inodes = this.#inodes;
    return inodes.locked(() => {
      const errno = checkSnapshotName(name);
      if (errno !== OK) return errno;
      if (inodes.child(disk, name) !== NO_NODE) return EEXIST;
      const node = this.#allocate(KIND.SNAPSHOT, { mode: 0, uid: 0, gid: 0 }, layer);
      inodes.link(disk, node, name);
      return OK;
    });
  }

  removeSnapshot(snapshot: NodeId): void {
    closeStores(this.#inodes.locked(() => this.#endSnapshot(snapshot)));
  }

  /** What a path from the root leads to, known once more until it is forgotten; none if there is nothing. */
  hold(path: string): NodeId {
    const inodes = this.#inodes;
    return inodes.locked(() => {
      let node: NodeId = ROOT_NODE;
      for (const name of path.split('/')) {
        if (inodes.kind(node) !== KIND.DIRECTORY) return NO_NODE;
        node = inodes.child(node, name);
        if (node === NO_NODE) return NO_NODE;
      }
      inodes.add(node, INODE.LOOKUPS, 1);
      return node;
    });
  }

  #make(parent: NodeId, name: string, file: NewFile, kind: Kind, content: () => number): Errno {
    const inodes = this.#inodes;
    return inodes.locked(() => {
      const errno = this.#rules.checkNewName(parent, name);
      if (errno !== OK) return errno;
      if (inodes.child(parent, name) !== NO_NODE) return EEXIST;
      // It would show the base while that is being written to.
      if (kind === KIND.DISK && this.#sessions.base.isCommitting) return EBUSY;
      const node = this.#allocate(kind, inherit(file, kind, new SharedAttributes(inodes, parent)), content);
      inodes.link(parent, node, name);
      this.#touch(parent);
      this.found = node;
      return OK;
    });
  }

  #allocate(kind: Kind, { mode, uid, gid }: NewFile, content: () => number): NodeId {
    const inodes = this.#inodes;
    const node = inodes.allocate();
    try {
      inodes.set(node, INODE.CONTENT, content());
    } catch (error) {
      inodes.free(node);
      throw error;
    }
    new SharedAttributes(inodes, node).initialise(mode, uid, gid, Date.now());
    inodes.set(node, INODE.KIND, kind);
    return node;
  }

  /** unlink(2) and rmdir(2). */
  remove(parent: NodeId, name: string, kind: typeof KIND.DISK | typeof KIND.DIRECTORY): Errno {
    const inodes = this.#inodes;
    inodes.lock();
    let node: NodeId;
    try {
      if (inodes.kind(parent) !== KIND.DIRECTORY) return ENOTDIR;
      node = inodes.child(parent, name);
      if (node === NO_NODE) return parent === ROOT_NODE && name === CONTROL_NAME ? EPERM : ENOENT;
      const errno = this.#rules.checkRemoval(node, kind);
      if (errno !== OK) return errno;
      inodes.unlink(node);
      this.#touch(parent);
    } finally {
      inodes.unlock();
    }
    this.dropIfUnused(node);
    return OK;
  }

  /** rename(2), with the flags of renameat2(2). */
  rename(parent: NodeId, name: string, newParent: NodeId, newName: string, flags: number): Errno {
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return EINVAL;
    const inodes = this.#inodes;
    inodes.lock();
    let replaced: NodeId = NO_NODE;
    try {
      if (inodes.kind(parent) !== KIND.DIRECTORY) return ENOTDIR;
      const node = inodes.child(parent, name);
      if (node === NO_NODE) return ENOENT;
      const errno = this.#rules.checkNewName(newParent, newName);
      if (errno !== OK) return errno;
      if (this.#rules.hidesWhatIsKept(node, newName)) return EPERM;
      const target = inodes.child(newParent, newName);
      if (target === node) return OK;
      if ((flags & RENAME_EXCHANGE) !== 0) return this.#exchange(node, target);
      if (target !== NO_NODE) {
        if ((flags & RENAME_NOREPLACE) !== 0) return EEXIST;
        const refused = this.#rules.checkRemoval(target, inodes.kind(node));
        if (refused !== OK) return refused;
      }
      if (inodes.kind(node) === KIND.DIRECTORY && newParent !== ROOT_NODE) return EPERM;
      if (target !== NO_NODE) inodes.unlink(target);
      replaced = target;
      inodes.unlink(node);
      inodes.link(newParent, node, newName);
      for (const touched of [parent, newParent]) this.#touch(touched);
      new SharedAttributes(inodes, node).setTimeMs('CTIME', Date.now());
    } finally {
      inodes.unlock();
    }
    if (replaced !== NO_NODE) this.dropIfUnused(replaced);
    return OK;
  }

  /** Counts that the kernel knows the node, once more; false if it is gone. */
  remember(node: NodeId): boolean {
    return this.#inodes.locked(() => {
      if (this.#inodes.kind(node) === KIND.FREE) return false;
      this.#inodes.add(node, INODE.LOOKUPS, 1);
      return true;
    });
  }

  /** Ends a disk or directory that has no name when nobody knows it any more. */
  dropIfUnused(node: NodeId): void {
    const inodes = this.#inodes;
    if (inodes.parent(node) !== NO_NODE || node === ROOT_NODE) return;
    inodes.lock();
    const stores: number[] = [];
    try {
      const kind = inodes.kind(node);
      const isUsed =
        inodes.parent(node) !== NO_NODE ||
        inodes.get(node, INODE.OPEN_HANDLES) !== 0 ||
        inodes.get(node, INODE.LOOKUPS) !== 0;
      if ((kind !== KIND.DISK && kind !== KIND.DIRECTORY) || isUsed) return;
      for (let snapshot = inodes.childAfter(node, 0); snapshot !== NO_NODE; snapshot = inodes.childAfter(node, 0)) {
        stores.push(...this.#endSnapshot(snapshot));
      }
      const content = inodes.get(node, INODE.CONTENT);
      inodes.free(node);
      if (kind === KIND.DISK) {
        this.#passthrough.drop(content);
        stores.push(...this.#sessions.discard(content));
      }
    } finally {
      inodes.unlock();
    }
    // After the lock: it may take long.
    closeStores(stores);
  }

  #endSnapshot(snapshot: NodeId): number[] {
    const layer = this.#inodes.get(snapshot, INODE.CONTENT);
    this.#inodes.unlink(snapshot);
    this.#inodes.free(snapshot);
    return this.#sessions.layers.release(layer);
  }

  /** From the mountpoint; without a leading slash, and empty for the root. What has lost its name has its last one. */
  path(node: NodeId): string {
    return this.#inodes.locked(() => {
      return this.pathLocked(node);
    });
  }

  /** As `path`, for a caller that holds the lock of the table. */
  pathLocked(node: NodeId): string {
    const inodes = this.#inodes;
    if (node === ROOT_NODE) return '';
    const parent = inodes.parent(node);
    const name = inodes.name(node);
    return parent === ROOT_NODE || parent === NO_NODE ? name : `${inodes.name(parent)}/${name}`;
  }

  #exchange(node: NodeId, target: NodeId): Errno {
    if (target === NO_NODE) return ENOENT;
    const inodes = this.#inodes;
    const [from, to] = [inodes.parent(node), inodes.parent(target)];
    const leavesRoot = (moved: NodeId, into: NodeId): boolean =>
      inodes.kind(moved) === KIND.DIRECTORY && into !== ROOT_NODE;
    if (leavesRoot(node, to) || leavesRoot(target, from)) return EPERM;
    const [name, newName] = [inodes.name(node), inodes.name(target)];
    inodes.unlink(node);
    inodes.unlink(target);
    inodes.link(to, node, newName);
    inodes.link(from, target, name);
    for (const touched of [from, to]) this.#touch(touched);
    for (const moved of [node, target]) new SharedAttributes(inodes, moved).setTimeMs('CTIME', Date.now());
    return OK;
  }

  /** The content of a directory changed. */
  #touch(directory: NodeId): void {
    new SharedAttributes(this.#inodes, directory).touch();
  }
}
