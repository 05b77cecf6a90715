/**
 * What a mount shows: a directory with its disks in it. Joins the overlay's bytes to names, attributes and handles.
 * One instance a worker (and one on the main thread for status), all state in shared memory.
 *
 * Names cannot be made, moved or removed: those operations have no place here and the transport answers EPERM.
 */
import { constants } from 'node:fs';
import {
  EACCES,
  EFBIG,
  EINVAL,
  EIO,
  EISDIR,
  ENAMETOOLONG,
  ENOENT,
  ENOSYS,
  ENOTDIR,
  ENXIO,
  EOPNOTSUPP,
  EROFS,
  type Errno,
  OK,
} from '../lib/errno.ts';
import { BLOCK_BYTES, MAX_DISK_BYTES } from '../overlay/block.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, SEEK_DATA, SEEK_HOLE } from '../sys/libc.ts';
import type { TimeName } from './attributes.ts';
import type { DiskFile } from './disk-file.ts';
import { DT_DIR, DT_REG, FIRST_DISK_NODE, type NodeId, PERMISSION_BITS, ROOT_NODE } from './node.ts';
import type { AttributeChange, Attributes, DirectoryEntry, FsOps, Statistics } from './ops.ts';
import type { CowFsOptions } from './options.ts';
import { emptyAttributes, fillDisk, fillRoot } from './stat.ts';

const TIME_FIELDS = {
  atime: 'ATIME',
  mtime: 'MTIME',
} as const satisfies Record<string, TimeName>;
const NAME_MAX = 255;
/** The access mode within the flags of open(2) (asm-generic/fcntl.h). */
const O_ACCMODE = 3;

export class CowFs implements FsOps {
  readonly attributes: Attributes = emptyAttributes();
  transferred = 0;
  found = 0;
  direct = false;

  readonly #files: readonly DiskFile[];
  readonly #options: CowFsOptions;

  constructor(files: readonly DiskFile[], options: CowFsOptions) {
    this.#files = files;
    this.#options = options;
  }

  lookup(parent: NodeId, name: string): Errno {
    if (parent !== ROOT_NODE) return this.#file(parent) === undefined ? ENOENT : ENOTDIR;
    if (Buffer.byteLength(name) > NAME_MAX) return ENAMETOOLONG;
    const index = this.#files.findIndex((file) => file.name === name);
    return index < 0 ? ENOENT : this.getAttributes((FIRST_DISK_NODE + index) as NodeId);
  }

  getAttributes(node: NodeId): Errno {
    if (node === ROOT_NODE) {
      fillRoot(this.attributes, this.#options);
      return OK;
    }
    const file = this.#file(node);
    if (file === undefined) return ENOENT;
    fillDisk(this.attributes, node, file);
    return OK;
  }

  setAttributes(node: NodeId, change: AttributeChange): Errno {
    const file = this.#file(node);
    if (this.#options.readOnly) return EROFS;
    if (file === undefined) return node === ROOT_NODE ? EACCES : ENOENT;
    const { attributes, disk } = file;
    if (change.sizeBytes !== undefined) {
      const errno = disk.truncate(change.sizeBytes);
      if (errno !== OK) return errno;
      attributes.setTimeMs('MTIME', Date.now());
    }
    if (change.mode !== undefined) attributes.setMode(change.mode & PERMISSION_BITS);
    if (change.uid !== undefined || change.gid !== undefined) {
      attributes.setOwner(change.uid ?? attributes.uid, change.gid ?? attributes.gid);
    }
    for (const field of ['atime', 'mtime'] as const) {
      const time = change[field];
      if (time === 'now') attributes.setTimeMs(TIME_FIELDS[field], Date.now());
      else if (time !== undefined) attributes.setTime(TIME_FIELDS[field], time[0], time[1]);
    }
    attributes.setTimeMs('CTIME', Date.now());
    fillDisk(this.attributes, node, file);
    return OK;
  }

  open(node: NodeId, flags: number): Errno {
    const file = this.#file(node);
    if (file === undefined) return node === ROOT_NODE ? EISDIR : ENOENT;
    if (isWritable(flags) && this.#options.readOnly) return EROFS;
    this.direct = this.#isDirect(flags);
    file.attributes.opened(this.#mayHoldData(flags));
    return OK;
  }

  release(node: NodeId, flags: number): void {
    this.#file(node)?.attributes.closed(this.#mayHoldData(flags));
  }

  read(node: NodeId, offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const file = this.#file(node);
    if (file === undefined) return EIO;
    const errno = file.disk.read(offset, length, into, at);
    this.transferred = file.disk.transferred;
    return errno;
  }

  write(node: NodeId, offset: number, length: number, from: Uint8Array, at: number): Errno {
    this.transferred = 0;
    const file = this.#file(node);
    if (file === undefined) return EIO;
    const errno = file.disk.write(offset, length, from, at);
    this.transferred = file.disk.transferred;
    touch(file);
    return errno;
  }

  allocate(node: NodeId, mode: number, offset: number, length: number): Errno {
    const file = this.#file(node);
    if (file === undefined) return EIO;
    if (length === 0) return EINVAL;
    if (offset + length > MAX_DISK_BYTES) return EFBIG;
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    const { disk } = file;
    let errno: Errno;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
      case 0:
        errno = disk.allocate(offset, length, keepSize);
        break;
      case FALLOC_FL_PUNCH_HOLE:
        errno = keepSize ? disk.discard(offset, length) : EOPNOTSUPP;
        break;
      // Thin, where an ordinary file would set the space aside: zeros need none here until they are overwritten.
      case FALLOC_FL_ZERO_RANGE:
        errno = disk.discard(offset, length);
        if (errno === OK && !keepSize && offset + length > disk.sizeBytes) errno = disk.truncate(offset + length);
        break;
      default:
        return EOPNOTSUPP;
    }
    if (errno === OK) touch(file);
    return errno;
  }

  /**
   * While a handle for writing is open the kernel may hold data that this side has not seen, and passes the question
   * on without writing it back: an honest "hole" would make cp(1) drop it. So all is data then, to the end; and the
   * end, too, is where the kernel says.
   */
  seek(node: NodeId, offset: number, whence: number, kernelSize = 0): Errno {
    const file = this.#file(node);
    if (file === undefined) return EIO;
    const { disk } = file;
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return EINVAL;
    if (file.attributes.writableHandles > 0) {
      const end = Math.max(disk.sizeBytes, kernelSize);
      this.found = whence === SEEK_DATA ? offset : end;
      return offset < end ? OK : ENXIO;
    }
    const errno = whence === SEEK_DATA ? disk.holes.seekData(offset) : disk.holes.seekHole(offset);
    this.found = disk.holes.found;
    return errno;
  }

  seekNeedsKernelSize(node: NodeId, offset: number, whence: number): boolean {
    return this.#mayEndLater(node, whence === SEEK_DATA ? offset + 1 : Number.POSITIVE_INFINITY);
  }

  readNeedsKernelSize(node: NodeId, end: number, flags: number): boolean {
    return this.#isDirect(flags) && this.#mayEndLater(node, end);
  }

  #mayEndLater(node: NodeId, end: number): boolean {
    const file = this.#file(node);
    if (file === undefined || !this.#options.sizeMayLag || file.attributes.writableHandles === 0) return false;
    return end > file.disk.sizeBytes;
  }

  /** A temporary store is gone with the process, so there is nothing to make durable. */
  sync(_node: NodeId): Errno {
    return ENOSYS;
  }

  list(node: NodeId): readonly DirectoryEntry[] | undefined {
    if (node !== ROOT_NODE) return undefined;
    return [
      { name: '.', node: ROOT_NODE, type: DT_DIR },
      { name: '..', node: ROOT_NODE, type: DT_DIR },
      ...this.#files.map(({ name }, index) => ({
        name,
        node: (FIRST_DISK_NODE + index) as NodeId,
        type: DT_REG,
      })),
    ];
  }

  /** Room is what the store's file system has for us and the quota still allows. */
  statistics(): Statistics {
    const { maxStoreBytes } = this.#options;
    const occupied = this.#files.reduce((sum, { disk }) => sum + disk.account.occupiedBytes, 0);
    const quotaLeft = maxStoreBytes === undefined ? Number.POSITIVE_INFINITY : Math.max(0, maxStoreBytes - occupied);
    const hostFree = Math.min(...this.#files.map(({ store }) => store.freeBytes));
    const freeBlocks = Math.floor(Math.min(hostFree, quotaLeft) / BLOCK_BYTES);
    return {
      blockBytes: BLOCK_BYTES,
      blocks: freeBlocks + Math.ceil(occupied / BLOCK_BYTES),
      freeBlocks,
      files: this.#files.length + 1,
      nameMax: NAME_MAX,
    };
  }

  nameOf(node: NodeId): string {
    return node === ROOT_NODE ? '/' : (this.#file(node)?.name ?? `node ${node}`);
  }

  #isDirect(flags: number): boolean {
    const { cacheMode, coherentDirect } = this.#options;
    return cacheMode === 'none' || (coherentDirect && (flags & constants.O_DIRECT) !== 0);
  }

  /**
   * Whether the kernel may keep data that is written through such a handle, so that this side sees it late. Handles
   * that bypass the cache do so only where they can be mapped (FUSE_DIRECT_IO_ALLOW_MMAP).
   */
  #mayHoldData(flags: number): boolean {
    return isWritable(flags) && (!this.#isDirect(flags) || this.#options.coherentDirect);
  }

  #file(node: NodeId): DiskFile | undefined {
    return this.#files[node - FIRST_DISK_NODE];
  }
}

/** The content changed. */
function touch({ attributes }: DiskFile): void {
  const now = Date.now();
  attributes.setTimeMs('MTIME', now);
  attributes.setTimeMs('CTIME', now);
}

function isWritable(flags: number): boolean {
  return (flags & O_ACCMODE) !== constants.O_RDONLY;
}
