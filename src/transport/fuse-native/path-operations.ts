/**
 * libfuse's path operations over `FsOps`, as fuse-native wants them: paths for nodes, negated errnos, callbacks. Main
 * thread, each request answered before the next. What libfuse 2 or the package cannot carry has no place here: fallocate
 * and lseek are ENOSYS, which the kernel turns into EOPNOTSUPP and "all is data". A file that is removed while it is
 * open libfuse renames, and removes at the last close.
 */
import { constants } from 'node:fs';
import { isSynchronous } from '../../fs/handle-kinds.ts';
import { type NodeId, PERMISSION_BITS, ROOT_NODE, S_IFMT, S_IFREG } from '../../fs/node.ts';
import type { AttributeChange, FsOps, NewFile } from '../../fs/ops.ts';
import { EBADF, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, type Errno, OK } from '../../lib/errno.ts';
import type { Operations, Stat, Statvfs } from './addon.ts';
import type { OpenHandles } from './open-handles.ts';
import type { RequestFlags } from './request-flags.ts';
import type { Requests } from './requests.ts';
import { toStat, toStatvfs, toTime } from './structures.ts';
import type { RequestTimes } from './times.ts';

/**
 * The flags of a `create` in which libfuse turned a MKNOD (its lib/fuse.c, fuse_lib_mknod). Those of an open(2) come from
 * the kernel, which adds O_LARGEFILE.
 */
const MKNOD_FLAGS = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY;

/** chown(2) leaves an id as it is. */
const SAME_ID = 0xffff_ffff;

export interface PathOperationsOptions {
  readonly ops: FsOps;
  readonly requests: Requests;
  readonly handles: OpenHandles;
  readonly times: RequestTimes;
  readonly flags: RequestFlags;
}

export function pathOperations({ ops, requests, handles, times, flags }: PathOperationsOptions): Operations {
  /** Walks down a path; `ops.attributes` are the file's then. */
  const find = (path: string): Errno => {
    let errno = ops.getAttributes(ROOT_NODE);
    for (const name of path.split('/')) {
      if (errno === OK && name !== '') errno = ops.lookup(ops.attributes.node, name);
    }
    return errno;
  };

  /** Serves a request on a path; `ops.attributes` are the file's when `handle` is called. */
  const serve = (name: string, path: string, detail: string, handle: (node: NodeId) => Errno): Errno =>
    requests.serve(name, path === '/' ? path : path.slice(1), detail, () => {
      const errno = find(path);
      return errno === OK ? handle(ops.attributes.node) : errno;
    });

  /** Serves a request on a name that may not be there: `handle` gets the directory and the name. */
  const serveName = (
    request: string,
    path: string,
    detail: string,
    handle: (parent: NodeId, name: string) => Errno,
  ): Errno =>
    requests.serve(request, path.slice(1), detail, () => {
      const slash = path.lastIndexOf('/');
      const errno = find(path.slice(0, slash));
      return errno === OK ? handle(ops.attributes.node, path.slice(slash + 1)) : errno;
    });

  // libfuse 2 does not tell through this package who asks; it is the mounting user, unless others were let in.
  const newFile = (mode: number): NewFile => {
    ops.getAttributes(ROOT_NODE);
    const { uid, gid } = ops.attributes;
    return { mode: mode & PERMISSION_BITS, uid, gid };
  };

  const setAttributes = (path: string, detail: string, change: AttributeChange): number =>
    -serve('SETATTR', path, detail, (node) => ops.setAttributes(node, change));

  const range = (offset: number, length: number): string => (requests.traced ? ` off=${offset} len=${length}` : '');

  /** Bytes, or an errno negated. */
  const result = (errno: Errno): number => (errno === OK ? ops.transferred : -errno);

  // There are disks and directories, and a disk has one name.
  const refuse = (_from: string, _to: string, done: (result: number) => void): void => done(-EPERM);

  return {
    getattr: (path, done) => {
      const errno = serve('GETATTR', path, '', () => OK);
      done(-errno, ...(errno === OK ? [toStat(ops.attributes)] : []));
    },
    readdir: (path, done) => {
      const names: string[] = [];
      const stats: Stat[] = [];
      const errno = serve('READDIR', path, '', (node) => {
        const entries = ops.list(node, 0, Number.POSITIVE_INFINITY);
        if (entries === undefined) return ENOTDIR;
        for (const entry of entries) {
          const found = ops.getAttributes(entry.node);
          if (found !== OK) return found;
          names.push(entry.name);
          stats.push(toStat(ops.attributes));
        }
        return OK;
      });
      if (errno === OK) done(0, names, stats);
      else done(-errno);
    },
    statfs: (path, done) => {
      let statvfs: Statvfs | undefined;
      const errno = serve('STATFS', path, '', () => {
        statvfs = toStatvfs(ops.statistics());
        return OK;
      });
      if (errno === OK) done(0, statvfs);
      else done(-errno);
    },
    open: (path, openFlags, done) => {
      let handle = 0;
      const errno = serve('OPEN', path, ` flags=0${openFlags.toString(8)}`, (node) => {
        const truncated = (openFlags & constants.O_TRUNC) === 0 ? OK : ops.setAttributes(node, { sizeBytes: 0 });
        if (truncated !== OK) return truncated;
        const opened = ops.open(node, openFlags);
        if (opened === OK) handle = handles.add({ name: ops.nameOf(node), node, flags: openFlags });
        return opened;
      });
      done(-errno, handle);
    },
    release: (_path, handle, done) => {
      // Given back whatever becomes of the rest: the kernel does not ask again.
      const file = handles.take(handle);
      if (file === undefined) return done(-EBADF);
      const errno = requests.serve('RELEASE', file.name, '', () => {
        ops.release(file.node, file.flags);
        return OK;
      });
      return done(-errno);
    },
    read: (_path, handle, into, length, offset, done) => {
      const file = handles.get(handle);
      if (file === undefined) return done(-EBADF);
      return done(
        result(
          requests.serve('READ', file.name, range(offset, length), () => ops.read(file.node, offset, length, into, 0)),
        ),
      );
    },
    write: (_path, handle, from, length, offset, done) => {
      const file = handles.get(handle);
      if (file === undefined) return done(-EBADF);
      const errno = requests.serve('WRITE', file.name, range(offset, length), () => {
        const written = ops.write(file.node, offset, length, from, 0);
        if (isSynchronous(file.flags) && ops.transferred > 0) {
          const synced = ops.sync(file.node);
          if (synced !== OK && synced !== ENOSYS) return synced;
        }
        // write(2) tells what it has written; the rest gets the error.
        return ops.transferred > 0 ? OK : written;
      });
      return done(result(errno));
    },
    fsync: (path, _datasync, handle, done) => {
      const file = handles.get(handle);
      done(file === undefined ? -EBADF : -requests.serve('FSYNC', path.slice(1), '', () => ops.sync(file.node)));
    },
    truncate: (path, sizeBytes, done) => done(setAttributes(path, ` size=${sizeBytes}`, { sizeBytes })),
    ftruncate: (path, _handle, sizeBytes, done) => done(setAttributes(path, ` size=${sizeBytes}`, { sizeBytes })),
    chmod: (path, mode, done) => done(setAttributes(path, ` mode=0${mode.toString(8)}`, { mode })),
    chown: (path, uid, gid, done) => {
      const change = { ...(uid === SAME_ID ? {} : { uid }), ...(gid === SAME_ID ? {} : { gid }) };
      done(setAttributes(path, ` uid=${uid} gid=${gid}`, change));
    },
    utimens: (path, _atimeMs, _sameMs, done) => {
      const { current } = times;
      // Better no time than a wrong one.
      if (current === undefined) return done(-EOPNOTSUPP);
      const { atimeMs, mtimeMs } = current;
      const change = { atime: toTime(atimeMs), mtime: toTime(mtimeMs) };
      return done(setAttributes(path, ` atime=${atimeMs} mtime=${mtimeMs}`, change));
    },
    create: (path, mode, done) => {
      let handle = 0;
      const { current } = flags;
      const errno = serveName('CREATE', path, ` mode=0${mode.toString(8)}`, (parent, name) => {
        // Better no file than one with the wrong content.
        if (current === undefined) return EOPNOTSUPP;
        const made = ops.create(parent, name, newFile(mode), current === MKNOD_FLAGS ? 0 : current);
        if (made !== OK) return made;
        const { node } = ops.attributes;
        const opened = ops.open(node, current);
        if (opened === OK) handle = handles.add({ name: ops.nameOf(node), node, flags: current });
        else ops.remove(parent, name);
        return opened;
      });
      done(-errno, handle);
    },
    mknod: (path, mode, _device, done) =>
      done(
        -serveName('MKNOD', path, ` mode=0${mode.toString(8)}`, (parent, name) => {
          const isFile = (mode & S_IFMT) === S_IFREG || (mode & S_IFMT) === 0;
          return isFile ? ops.create(parent, name, newFile(mode), 0) : EPERM;
        }),
      ),
    mkdir: (path, mode, done) =>
      done(
        -serveName('MKDIR', path, ` mode=0${mode.toString(8)}`, (parent, name) =>
          ops.makeDirectory(parent, name, newFile(mode)),
        ),
      ),
    unlink: (path, done) => done(-serveName('UNLINK', path, '', (parent, name) => ops.remove(parent, name))),
    rmdir: (path, done) => done(-serveName('RMDIR', path, '', (parent, name) => ops.removeDirectory(parent, name))),
    rename: (from, to, done) =>
      done(
        -serveName('RENAME', from, ` to=${to.slice(1)}`, (parent, name) => {
          const slash = to.lastIndexOf('/');
          const errno = find(to.slice(0, slash));
          return errno === OK ? ops.rename(parent, name, ops.attributes.node, to.slice(slash + 1), 0) : errno;
        }),
      ),
    link: refuse,
    symlink: refuse,
  };
}
