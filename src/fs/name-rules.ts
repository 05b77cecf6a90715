/**
 * Which names there may be in a mount, and what may go: the rules of `namespace.ts`, which holds the lock of the table of
 * inodes when it asks. Any thread.
 */
import {
  EBUSY,
  EEXIST,
  EILSEQ,
  EINVAL,
  EISDIR,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  type Errno,
  OK,
} from '../lib/errno.ts';
import type { Sessions } from '../overlay/sessions.ts';
import type { SharedAttributes } from './attributes.ts';
import { CONTROL_NAME } from './control-directory.ts';
import { INODE, type Inodes, KIND, type Kind } from './inodes.ts';
import { NAME_MAX_BYTES, NO_NODE, type NodeId, ROOT_NODE, S_ISGID } from './node.ts';
import type { NewFile } from './ops.ts';

/** What Node decodes bytes to that are no UTF-8. */
const NO_UTF8 = '\ufffd';

/** How names begin under which libfuse 2 hides what was removed. */
const FUSE_HIDDEN = '.fuse_hidden';

export class NameRules {
  readonly #inodes: Inodes;
  readonly #sessions: Sessions;

  constructor(inodes: Inodes, sessions: Sessions) {
    this.#inodes = inodes;
    this.#sessions = sessions;
  }

  /** Whether a directory may get an entry of this name, taken or not. */
  checkNewName(parent: NodeId, name: string): Errno {
    const inodes = this.#inodes;
    const kind = inodes.kind(parent);
    if (kind !== KIND.DIRECTORY) return kind === KIND.FREE ? ENOENT : ENOTDIR;
    // A directory that was removed takes no more names.
    if (parent !== ROOT_NODE && inodes.parent(parent) === NO_NODE) return ENOENT;
    if (Buffer.byteLength(name) > NAME_MAX_BYTES) return ENAMETOOLONG;
    if (name.includes(NO_UTF8)) return EILSEQ;
    if (parent === ROOT_NODE && name === CONTROL_NAME) return EEXIST;
    return name === '' || name === '.' || name === '..' || name.includes('/') ? EINVAL : OK;
  }

  /** Whether something of this kind may take the node's place, or nothing. */
  checkRemoval(node: NodeId, kind: Kind): Errno {
    const isDirectory = this.#inodes.kind(node) === KIND.DIRECTORY;
    if (isDirectory !== (kind === KIND.DIRECTORY)) return isDirectory ? EISDIR : ENOTDIR;
    // It would be there again at the next mount: whoever wants it gone removes the overlay file.
    if (this.#isKept(node)) return EPERM;
    // If that commit is interrupted, only this disk has what the base should have.
    if (!isDirectory && this.#sessions.base.isCommitting) return EBUSY;
    return isDirectory && this.#inodes.get(node, INODE.FIRST_CHILD) !== NO_NODE ? ENOTEMPTY : OK;
  }

  /** What libfuse 2 makes of a removal while the disk is open (its lib/fuse.c, hide_node). */
  hidesWhatIsKept(node: NodeId, newName: string): boolean {
    return newName.startsWith(FUSE_HIDDEN) && this.#isKept(node);
  }

  #isKept(node: NodeId): boolean {
    return (
      this.#inodes.kind(node) === KIND.DISK && this.#inodes.get(node, INODE.CONTENT) === this.#sessions.kept.session
    );
  }
}

export function checkSnapshotName(name: string): Errno {
  if (name === '' || name.includes(NO_UTF8)) return EINVAL;
  return Buffer.byteLength(name) > NAME_MAX_BYTES ? ENAMETOOLONG : OK;
}

/** What is made in a set-group-ID directory belongs to its group, and a directory is one, too (inode(7)). */
export function inherit(file: NewFile, kind: Kind, parent: SharedAttributes): NewFile {
  if ((parent.mode & S_ISGID) === 0) return file;
  return { ...file, gid: parent.gid, mode: kind === KIND.DIRECTORY ? file.mode | S_ISGID : file.mode };
}
