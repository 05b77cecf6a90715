/**
 * The seam between a transport and the file system: the operations of one mount, as functions of nodes, offsets and
 * buffers. Both transports call these and nothing below; whoever implements them knows neither requests nor replies.
 *
 * All of it is synchronous and runs on the thread that serves the request. An operation returns an errno, 0 for
 * success; results are in the fields named beside it, valid until the next call on the same instance.
 */
import type { Errno } from '../lib/errno.ts';
import type { NodeId } from './node.ts';

/** As `struct stat` (stat(2)); times are seconds since the epoch and nanoseconds. */
export interface Attributes {
  node: NodeId;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  /** In units of 512 bytes. */
  blocks: number;
  atimeSeconds: number;
  atimeNanoseconds: number;
  mtimeSeconds: number;
  mtimeNanoseconds: number;
  ctimeSeconds: number;
  ctimeNanoseconds: number;
}

/** What chmod, chown, truncate and utimensat change; absent fields stay. */
export interface AttributeChange {
  mode?: number;
  uid?: number;
  gid?: number;
  sizeBytes?: number;
  /** `'now'` or seconds and nanoseconds. */
  atime?: 'now' | readonly [seconds: number, nanoseconds: number];
  mtime?: 'now' | readonly [seconds: number, nanoseconds: number];
}

/** What a new inode starts with. */
export interface NewFile {
  /** Permission bits, the umask applied. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly node: NodeId;
  /** DT_DIR or DT_REG. */
  readonly type: number;
  /** Where the listing goes on after this entry. */
  readonly cookie: number;
}

/** As `struct statvfs` (statvfs(3)), in blocks of `blockBytes`. */
export interface Statistics {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly files: number;
  readonly nameMax: number;
}

export interface FsOps {
  /** Filled by `lookup`, `getAttributes`, `create` and `makeDirectory`. */
  readonly attributes: Attributes;
  /** Bytes that `read` or `write` moved. */
  readonly transferred: number;
  /** Offset that `seek` found. */
  readonly found: number;
  /** Whether the handle that `open` gave out bypasses the page cache. */
  readonly direct: boolean;
  /** Whether what the kernel caches of the file that was opened is still its content. */
  readonly keepCache: boolean;
  /** The kernel's number of the file that it is to read and write instead; 0 if requests are to come here. */
  readonly backingFile: number;

  /** ENOENT if the directory has no such entry. */
  lookup(parent: NodeId, name: string): Errno;
  getAttributes(node: NodeId): Errno;
  /** Also fills `attributes`. */
  setAttributes(node: NodeId, change: AttributeChange): Errno;
  /**
   * Makes a disk: with the content of the base, or empty where it is to be truncated. Does not open it.
   *
   * @param flags of open(2)
   */
  create(parent: NodeId, name: string, file: NewFile, flags: number): Errno;
  makeDirectory(parent: NodeId, name: string, file: NewFile): Errno;
  /** unlink(2). */
  remove(parent: NodeId, name: string): Errno;
  removeDirectory(parent: NodeId, name: string): Errno;
  /** @param flags of renameat2(2) */
  rename(parent: NodeId, name: string, newParent: NodeId, newName: string, flags: number): Errno;
  /**
   * The kernel is told of the node, once more: it stays known until as many `forget` have come. False if it is gone.
   */
  remember(node: NodeId): boolean;
  forget(node: NodeId, count: number): void;
  /** @param flags of open(2) */
  open(node: NodeId, flags: number): Errno;
  /** @param flags those that the handle was opened with */
  release(node: NodeId, flags: number): void;
  /** pread(2); short only at the end of the file. */
  read(node: NodeId, offset: number, length: number, into: Uint8Array, at: number): Errno;
  /** pwrite(2); on an error `transferred` may be above 0: that much is written. */
  write(node: NodeId, offset: number, length: number, from: Uint8Array, at: number): Errno;
  /** fallocate(2). */
  allocate(node: NodeId, mode: number, offset: number, length: number): Errno;
  /**
   * lseek(2) with SEEK_DATA or SEEK_HOLE.
   *
   * @param kernelSize the size as the kernel knows it, where `seekNeedsKernelSize` asks for it
   */
  seek(node: NodeId, offset: number, whence: number, kernelSize?: number): Errno;
  /** Whether an honest answer depends on a size that only the kernel knows yet. */
  seekNeedsKernelSize(node: NodeId, offset: number, whence: number): boolean;
  /**
   * Whether a read to `end` wants bytes that may be part of the file for the kernel and not yet for us: the gap before
   * data that is cached past our end. Reads through the cache never do, as the kernel fills such gaps there.
   *
   * @param flags those that the handle was opened with
   */
  readNeedsKernelSize(node: NodeId, end: number, flags: number): boolean;
  /** fsync(2). ENOSYS where it has nothing to do, so that the kernel stops asking. */
  sync(node: NodeId): Errno;
  /**
   * Up to `most` entries, `.` and `..` included; undefined for what is no directory.
   *
   * @param cookie that of the entry before, 0 for the start
   */
  list(node: NodeId, cookie: number, most: number): readonly DirectoryEntry[] | undefined;
  /** Whether the file's content is written anew at each open, and elsewhere: the transport asks for it and keeps it. */
  isGenerated(node: NodeId): boolean;
  statistics(): Statistics;
  /** A name for trace lines. */
  nameOf(node: NodeId): string;
}
