/**
 * Loads the fuse-native package, an optional dependency, and types the part of it that is used here. Written against
 * 2.2.6, the version that package.json pins: `_fuseOptions` and `_handlers` are its internals, and there is no public
 * way to what they are needed for (see `mount.ts` and `times.ts`).
 */
import { createRequire } from 'node:module';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { loadLibrary } from '../../sys/libc.ts';

/** An answer: an errno negated, or 0 or a byte count, and what goes with it. */
type Callback<Result extends readonly unknown[] = []> = (result: number, ...values: Partial<Result>) => void;

/** As fuse-native takes it; times in milliseconds since the epoch, cut to whole ones. */
export interface Stat {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly nlink: number;
  readonly ino: number;
  readonly blksize: number;
  /** In units of 512 bytes. */
  readonly blocks: number;
  readonly atime: number;
  readonly mtime: number;
  readonly ctime: number;
}

/** Every field is cut to 32 bits on its way. */
export interface Statvfs {
  readonly bsize: number;
  readonly frsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly favail: number;
  readonly namemax: number;
}

/** libfuse's path operations (fuse.h, `struct fuse_operations`); what is absent is ENOSYS. */
export interface Operations {
  getattr(path: string, done: Callback<[Stat]>): void;
  readdir(path: string, done: Callback<[readonly string[], readonly Stat[]]>): void;
  statfs(path: string, done: Callback<[Statvfs]>): void;
  open(path: string, flags: number, done: Callback<[handle: number]>): void;
  release(path: string, handle: number, done: Callback): void;
  read(
    path: string,
    handle: number,
    into: Buffer,
    length: number,
    offset: number,
    done: Callback<[bytes: number]>,
  ): void;
  write(
    path: string,
    handle: number,
    from: Buffer,
    length: number,
    offset: number,
    done: Callback<[bytes: number]>,
  ): void;
  /** In this order, whatever its README says. */
  fsync(path: string, datasync: number, handle: number, done: Callback): void;
  truncate(path: string, size: number, done: Callback): void;
  ftruncate(path: string, handle: number, size: number, done: Callback): void;
  chmod(path: string, mode: number, done: Callback): void;
  /** 2^32 - 1 for what stays. */
  chown(path: string, uid: number, gid: number, done: Callback): void;
  utimens(path: string, atimeMs: number, mtimeMs: number, done: Callback): void;
  mknod(path: string, mode: number, device: number, done: Callback): void;
  create(path: string, mode: number, done: Callback<[handle: number]>): void;
  mkdir(path: string, mode: number, done: Callback): void;
  unlink(path: string, done: Callback): void;
  rmdir(path: string, done: Callback): void;
  rename(from: string, to: string, done: Callback): void;
  link(from: string, to: string, done: Callback): void;
  symlink(from: string, to: string, done: Callback): void;
}

/** What the addon calls: the request's memory, its number, then the operation's arguments. */
export type NativeHandler = (request: Buffer, operation: number, ...values: readonly unknown[]) => void;

export interface FuseNative {
  mount(done: (error: Error | null) => void): void;
  /** `-o` and libfuse's mount options, or nothing. */
  _fuseOptions: () => string;
  /** Indexed by the addon's operation numbers. */
  readonly _handlers: NativeHandler[];
}

/** `timeout`: false, or the milliseconds after which it answers ETIMEDOUT for us. */
export type FuseNativeClass = new (
  mountpoint: string,
  operations: Operations,
  options: { readonly timeout: false },
) => FuseNative;

const require = createRequire(import.meta.url);

/**
 * The class of the package. Its addon wants `libfuse.so.2` by that name. Where the system has none, the copy that the
 * package brings serves: once it is loaded, the dynamic linker finds it by its soname.
 *
 * @throws CowfsError of kind `missing` where it is not installed or cannot be loaded
 */
export function loadFuseNative(): FuseNativeClass {
  try {
    return require('fuse-native') as FuseNativeClass;
  } catch (error) {
    if (!reasonOf(error).includes('libfuse.so.2')) throw unusable(error);
  }
  try {
    // Its own dependency, wherever npm has put that.
    const requireBeside = createRequire(require.resolve('fuse-native'));
    const { lib } = requireBeside('fuse-shared-library') as { readonly lib: string };
    loadLibrary(lib);
    return require('fuse-native') as FuseNativeClass;
  } catch (error) {
    throw unusable(error);
  }
}

function unusable(error: unknown): CowfsError {
  const reason = reasonOf(error).split('\n')[0];
  return new CowfsError(
    'missing',
    `--transport fuse-native: the fuse-native package cannot be used here (${reason}); ` +
      'npm install fuse-native, or use --transport kernel',
    error,
  );
}
