/**
 * What a mount shows: disks, and directories of them. Joins the overlay's bytes to names, attributes and handles. One
 * instance a thread, all state in shared memory. Names are `namespace.ts`, the open views of disks `disk-file.ts`.
 */
import { EINVAL, EIO, EISDIR, ENOENT, ENOSYS, ENXIO, EPERM, EROFS, type Errno, OK } from '../lib/errno.ts';
import type { Sessions } from '../overlay/sessions.ts';
import { SEEK_DATA, SEEK_HOLE } from '../sys/libc.ts';
import { SharedAttributes } from './attributes.ts';
import { CONTROL_NODE, STATUS_NAME, STATUS_NODE } from './control-directory.ts';
import { ControlFiles } from './control-files.ts';
import { DiskFiles } from './disk-file.ts';
import { fallocateOn } from './fallocate.ts';
import { changeDisk } from './file-times.ts';
import { HandleKinds, isWritable, startsEmpty } from './handle-kinds.ts';
import { INODE, type Inodes, KIND } from './inodes.ts';
import { Lane } from './lane.ts';
import { listDirectory } from './listing.ts';
import { Namespace } from './namespace.ts';
import { NO_NODE, type NodeId, ROOT_NODE } from './node.ts';
import type { AttributeChange, Attributes, DirectoryEntry, FsOps, NewFile, Statistics } from './ops.ts';
import type { CowFsOptions } from './options.ts';
import { Passthrough } from './passthrough.ts';
import { emptyAttributes, fillDirectory, fillDisk, linksOf, statisticsOf } from './stat.ts';

export class CowFs implements FsOps {
  readonly attributes: Attributes = emptyAttributes();
  transferred = 0;
  found = 0;
  direct = false;
  keepCache = true;
  backingFile = 0;

  readonly inodes: Inodes;
  readonly sessions: Sessions;
  readonly namespace: Namespace;
  readonly #files: DiskFiles;
  readonly #control: ControlFiles;
  readonly #handles: HandleKinds;
  readonly #passthrough: Passthrough;
  readonly #options: CowFsOptions;

  constructor(inodes: Inodes, sessions: Sessions, options: CowFsOptions) {
    this.inodes = inodes;
    this.sessions = sessions;
    this.#passthrough = new Passthrough(sessions.cloned, options.passthroughFd);
    this.namespace = new Namespace(inodes, sessions, this.#passthrough);
    this.#files = new DiskFiles(inodes, sessions);
    this.#control = new ControlFiles(inodes, options);
    this.#handles = new HandleKinds(options);
    this.#options = options;
  }

  /** @param row of the gates, its own */
  lane(row: number): Lane {
    return new Lane(this.#files, this.sessions.gateOf(row));
  }

  lookup(parent: NodeId, name: string): Errno {
    const control = this.#control.lookup(parent, name);
    if (control !== undefined) return control === NO_NODE ? ENOENT : this.getAttributes(control);
    const errno = this.namespace.find(parent, name);
    return errno === OK ? this.getAttributes(this.namespace.found) : errno;
  }

  getAttributes(node: NodeId): Errno {
    if (this.#control.fill(this.attributes, node)) return OK;
    const kind = this.inodes.kind(node);
    if (kind === KIND.DIRECTORY) {
      fillDirectory(this.attributes, node, new SharedAttributes(this.inodes, node), linksOf(this.inodes, node));
      return OK;
    }
    const session = this.#files.visit(node);
    if (session === undefined) return ENOENT;
    try {
      fillDisk(this.attributes, node, this.inodes, this.sessions, session);
      return OK;
    } finally {
      this.#files.leave();
    }
  }

  setAttributes(node: NodeId, change: AttributeChange): Errno {
    if (this.#options.readOnly) return EROFS;
    if (this.#control.owns(node)) return EPERM;
    if (this.inodes.kind(node) === KIND.DIRECTORY) {
      if (change.sizeBytes !== undefined) return EISDIR;
      new SharedAttributes(this.inodes, node).change(change);
      return this.getAttributes(node);
    }
    if (change.sizeBytes !== undefined) {
      const errno = this.#truncate(node, change.sizeBytes);
      if (errno !== OK) return errno;
    }
    const session = this.#files.visit(node);
    if (session === undefined) return ENOENT;
    try {
      changeDisk(new SharedAttributes(this.inodes, node), this.sessions, session, change);
      fillDisk(this.attributes, node, this.inodes, this.sessions, session);
      return OK;
    } finally {
      this.#files.leave();
    }
  }

  #truncate(node: NodeId, sizeBytes: number): Errno {
    const file = this.#files.enter(node);
    if (file === undefined) return ENOENT;
    try {
      const errno = file.disk.truncate(sizeBytes);
      if (errno === OK) file.attributes.touch();
      return errno;
    } finally {
      this.#files.leave();
    }
  }

  create(parent: NodeId, name: string, file: NewFile, flags: number): Errno {
    if (this.#options.readOnly) return EROFS;
    if (this.#control.owns(parent) || !this.#options.suffixes.some((suffix) => name.endsWith(suffix))) return EPERM;
    const sizeBytes = startsEmpty(flags) ? 0 : this.sessions.base.freshBytes(this.#options.diskBytes);
    const errno = this.namespace.create(parent, name, file, sizeBytes);
    return errno === OK ? this.getAttributes(this.namespace.found) : errno;
  }

  makeDirectory(parent: NodeId, name: string, file: NewFile): Errno {
    if (this.#options.readOnly) return EROFS;
    const errno = this.namespace.makeDirectory(parent, name, file);
    return errno === OK ? this.getAttributes(this.namespace.found) : errno;
  }

  remove(parent: NodeId, name: string): Errno {
    if (this.#options.readOnly) return EROFS;
    // For the kernel that means to forget the name: a second one would keep a disk that has lost its first.
    if (parent === CONTROL_NODE && name !== STATUS_NAME) return ENOENT;
    return this.#control.owns(parent) ? EPERM : this.namespace.remove(parent, name, KIND.DISK);
  }

  removeDirectory(parent: NodeId, name: string): Errno {
    if (this.#options.readOnly) return EROFS;
    return this.#control.owns(parent) ? EPERM : this.namespace.remove(parent, name, KIND.DIRECTORY);
  }

  rename(parent: NodeId, name: string, newParent: NodeId, newName: string, flags: number): Errno {
    if (this.#options.readOnly) return EROFS;
    if (this.#control.owns(parent) || this.#control.owns(newParent)) return EPERM;
    return this.namespace.rename(parent, name, newParent, newName, flags);
  }

  remember(node: NodeId): boolean {
    return this.#control.owns(node) || this.namespace.remember(node);
  }

  forget(node: NodeId, count: number): void {
    if (this.inodes.kind(node) === KIND.FREE) return;
    if (this.inodes.add(node, INODE.LOOKUPS, -count | 0) === 0) this.namespace.dropIfUnused(node);
  }

  open(node: NodeId, flags: number): Errno {
    this.backingFile = 0;
    if (this.isGenerated(node)) return isWritable(flags) ? EPERM : OK;
    const session = this.#files.visit(node);
    if (session === undefined) return this.#isDirectory(node) ? EISDIR : ENOENT;
    try {
      if (isWritable(flags) && this.#options.readOnly) return EROFS;
      const attributes = new SharedAttributes(this.inodes, node);
      this.direct = this.#handles.isDirect(flags);
      this.backingFile = this.#passthrough.fileOf(session);
      this.keepCache = this.inodes.get(node, INODE.STALE_CACHE) === 0;
      // libfuse 2 drops what is cached of a file whose time has changed.
      if (!this.keepCache) attributes.advanceTime();
      attributes.opened(this.#mayHoldData(session, flags));
      return OK;
    } finally {
      this.#files.leave();
    }
  }

  release(node: NodeId, flags: number): void {
    const session = this.#files.visit(node);
    if (session === undefined) return;
    new SharedAttributes(this.inodes, node).closed(this.#mayHoldData(session, flags));
    this.#files.leave();
    this.namespace.dropIfUnused(node);
  }

  /** What the kernel writes by itself it holds in the file's own pages, and the file knows of them. */
  #mayHoldData(session: number, flags: number): boolean {
    return this.#passthrough.fileOf(session) === 0 && this.#handles.mayHoldData(flags);
  }

  read(node: NodeId, offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const file = this.#files.enter(node);
    if (file === undefined) return EIO;
    try {
      const errno = file.disk.read(offset, length, into, at);
      this.transferred = file.disk.transferred;
      return errno;
    } finally {
      this.#files.leave();
    }
  }

  write(node: NodeId, offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const file = this.#files.enter(node);
    if (file === undefined) return EIO;
    try {
      const errno = file.disk.write(offset, length, from, at);
      this.transferred = file.disk.transferred;
      file.attributes.touch();
      return errno;
    } finally {
      this.#files.leave();
    }
  }

  allocate(node: NodeId, mode: number, offset: number, length: number): Errno {
    const file = this.#files.enter(node);
    if (file === undefined) return EIO;
    try {
      const errno = fallocateOn(file.disk, mode, offset, length);
      if (errno === OK) file.attributes.touch();
      return errno;
    } finally {
      this.#files.leave();
    }
  }

  /**
   * While a handle for writing is open the kernel may hold data that this side has not seen, and passes the question
   * on without writing it back: an honest "hole" would make cp(1) drop it. So all is data then, to the end; and the
   * end, too, is where the kernel says.
   */
  seek(node: NodeId, offset: number, whence: number, kernelSize = 0): Errno {
    const file = this.#files.enter(node);
    if (file === undefined) return EIO;
    try {
      const { disk } = file;
      if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return EINVAL;
      if (file.attributes.writableHandles > 0) {
        const end = Math.max(disk.sizeBytes, kernelSize);
        this.found = whence === SEEK_DATA ? offset : end;
        return offset < end ? OK : ENXIO;
      }
      const errno = whence === SEEK_DATA ? disk.seekData(offset) : disk.seekHole(offset);
      this.found = disk.found;
      return errno;
    } finally {
      this.#files.leave();
    }
  }

  seekNeedsKernelSize(node: NodeId, offset: number, whence: number): boolean {
    return this.#mayEndLater(node, whence === SEEK_DATA ? offset + 1 : Number.POSITIVE_INFINITY);
  }

  readNeedsKernelSize(node: NodeId, end: number, flags: number): boolean {
    return this.#handles.isDirect(flags) && this.#mayEndLater(node, end);
  }

  #mayEndLater(node: NodeId, end: number): boolean {
    if (!this.#options.sizeMayLag) return false;
    const file = this.#files.enter(node);
    if (file === undefined) return false;
    try {
      return file.attributes.writableHandles > 0 && end > file.disk.sizeBytes;
    } finally {
      this.#files.leave();
    }
  }

  /** A temporary store is gone with the process, so there is nothing to make durable; where no disk is kept, never. */
  sync(node: NodeId): Errno {
    if (this.sessions.kept.session === 0) return ENOSYS;
    const file = this.#files.enter(node);
    if (file === undefined) return OK;
    try {
      return file.disk.sync();
    } finally {
      this.#files.leave();
    }
  }

  list(node: NodeId, cookie: number, most: number): readonly DirectoryEntry[] | undefined {
    if (node === CONTROL_NODE) return this.#control.list(cookie, most);
    return this.#isDirectory(node) ? listDirectory(this.inodes, node, cookie, most) : undefined;
  }

  isGenerated(node: NodeId): boolean {
    return node === STATUS_NODE;
  }

  statistics(): Statistics {
    return statisticsOf(this.inodes, this.sessions, this.#options.quotas.maxStoreBytes);
  }

  nameOf(node: NodeId): string {
    if (node === ROOT_NODE) return '/';
    if (this.#control.owns(node)) return this.#control.nameOf(node);
    return this.inodes.kind(node) === KIND.FREE ? `node ${node}` : this.namespace.path(node);
  }

  #isDirectory(node: NodeId): boolean {
    return node === CONTROL_NODE || this.inodes.kind(node) === KIND.DIRECTORY;
  }
}
