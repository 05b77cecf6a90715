/**
 * The FUSE kernel protocol as data: opcodes, structures as byte offsets, flag bits; kernel names throughout
 * (include/uapi/linux/fuse.h, protocol 7.45). Offsets of `*_in` count from the end of the header, those of `*_out`
 * from the end of theirs. Every size here is asserted by a test; integers are in the machine's byte order.
 */

export const FUSE_KERNEL_VERSION = 7;
/** The newest minor version that this code knows; the kernel goes by the smaller of both. */
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** Linux 5.4; older ones have other structure sizes and no MAX_PAGES. */
export const FUSE_OLDEST_MINOR_VERSION = 31;

/** The kernel refuses to hand requests to a smaller buffer. */
export const FUSE_MIN_READ_BUFFER = 8192;

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
} as const;

export const FUSE_IN_HEADER = {
  len: 0,
  opcode: 4,
  unique: 8,
  nodeid: 16,
  uid: 24,
  gid: 28,
  pid: 32,
  BYTES: 40,
} as const;
export const FUSE_OUT_HEADER = {
  len: 0,
  error: 4,
  unique: 8,
  BYTES: 16,
} as const;

export const FUSE_INIT_IN = {
  major: 0,
  minor: 4,
  max_readahead: 8,
  flags: 12,
  flags2: 16,
  BYTES: 64,
  /** Before INIT_EXT (7.36). */
  COMPAT_BYTES: 16,
} as const;
export const FUSE_INIT_OUT = {
  major: 0,
  minor: 4,
  max_readahead: 8,
  flags: 12,
  max_background: 16,
  congestion_threshold: 18,
  max_write: 20,
  time_gran: 24,
  max_pages: 28,
  map_alignment: 30,
  flags2: 32,
  max_stack_depth: 36,
  BYTES: 64,
} as const;

export const FUSE_ATTR = {
  ino: 0,
  size: 8,
  blocks: 16,
  atime: 24,
  mtime: 32,
  ctime: 40,
  atimensec: 48,
  mtimensec: 52,
  ctimensec: 56,
  mode: 60,
  nlink: 64,
  uid: 68,
  gid: 72,
  rdev: 76,
  blksize: 80,
  flags: 84,
  BYTES: 88,
} as const;
export const FUSE_ENTRY_OUT = {
  nodeid: 0,
  generation: 8,
  entry_valid: 16,
  attr_valid: 24,
  entry_valid_nsec: 32,
  attr_valid_nsec: 36,
  attr: 40,
  BYTES: 128,
} as const;
export const FUSE_GETATTR_IN = { getattr_flags: 0, fh: 8, BYTES: 16 } as const;
export const FUSE_ATTR_OUT = {
  attr_valid: 0,
  attr_valid_nsec: 8,
  attr: 16,
  BYTES: 104,
} as const;
export const FUSE_SETATTR_IN = {
  valid: 0,
  fh: 8,
  size: 16,
  atime: 32,
  mtime: 40,
  atimensec: 56,
  mtimensec: 60,
  mode: 68,
  uid: 76,
  gid: 80,
  BYTES: 88,
} as const;
export const FUSE_MKNOD_IN = { mode: 0, rdev: 4, umask: 8, BYTES: 16 } as const;
export const FUSE_MKDIR_IN = { mode: 0, umask: 4, BYTES: 8 } as const;
export const FUSE_RENAME_IN = { newdir: 0, BYTES: 8 } as const;
export const FUSE_RENAME2_IN = { newdir: 0, flags: 8, BYTES: 16 } as const;
export const FUSE_CREATE_IN = { flags: 0, mode: 4, umask: 8, open_flags: 12, BYTES: 16 } as const;
export const FUSE_FORGET_IN = { nlookup: 0, BYTES: 8 } as const;
export const FUSE_BATCH_FORGET_IN = { count: 0, BYTES: 8 } as const;
export const FUSE_FORGET_ONE = { nodeid: 0, nlookup: 8, BYTES: 16 } as const;
export const FUSE_OPEN_IN = { flags: 0, open_flags: 4, BYTES: 8 } as const;
export const FUSE_OPEN_OUT = { fh: 0, open_flags: 8, backing_id: 12, BYTES: 16 } as const;
export const FUSE_RELEASE_IN = { fh: 0, flags: 8, BYTES: 24 } as const;
export const FUSE_READ_IN = { fh: 0, offset: 8, size: 16, flags: 32, BYTES: 40 } as const;
export const FUSE_WRITE_IN = {
  fh: 0,
  offset: 8,
  size: 16,
  write_flags: 20,
  flags: 32,
  BYTES: 40,
} as const;
export const FUSE_WRITE_OUT = { size: 0, BYTES: 8 } as const;
export const FUSE_FALLOCATE_IN = {
  fh: 0,
  offset: 8,
  length: 16,
  mode: 24,
  BYTES: 32,
} as const;
export const FUSE_LSEEK_IN = {
  fh: 0,
  offset: 8,
  whence: 16,
  BYTES: 24,
} as const;
export const FUSE_LSEEK_OUT = { offset: 0, BYTES: 8 } as const;
export const FUSE_STATFS_OUT = {
  blocks: 0,
  bfree: 8,
  bavail: 16,
  files: 24,
  ffree: 32,
  bsize: 40,
  namelen: 44,
  frsize: 48,
  BYTES: 80,
} as const;
export const FUSE_DIRENT = {
  ino: 0,
  off: 8,
  namelen: 16,
  type: 20,
  name: 24,
  BYTES: 24,
} as const;

/** `fuse_setattr_in.valid`. */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
} as const;

/** `fuse_open_out.open_flags`. */
export const FOPEN = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  PARALLEL_DIRECT_WRITES: 1 << 6,
  PASSTHROUGH: 1 << 7,
} as const;

/** `fuse_write_in.write_flags`: the kernel writes back dirty pages; write(2) returned long ago. */
export const FUSE_WRITE_CACHE = 1 << 0;

/** `fuse_init_in.flags`. */
export const INIT_FLAGS = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  EXPLICIT_INVAL_DATA: 1 << 25,
  INIT_EXT: 1 << 30,
} as const;
/** `fuse_init_in.flags2`, bits 32 to 63 of the flags. */
export const INIT_FLAGS2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  PASSTHROUGH: 1 << 5,
} as const;
