/**
 * What the commands do to disks, past the kernel: starting again, going back, forking, snapshots. Main thread of
 * the daemon. Each waits until no thread serves the disk, does its work in the time of some memory accesses (or of a call
 * that has files share blocks), and lets them go on.
 */
import { SharedAttributes } from '../fs/attributes.ts';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import { NO_NODE, type NodeId } from '../fs/node.ts';
import { errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import type { DiskAccess } from './disk-access.ts';
import { statusOfDisks } from './disk-status.ts';
import type { DiskStatus } from './status.ts';

/** How the content of a disk is to be replaced. */
interface Replacing {
  readonly what: string;
  /** Although it is open. */
  readonly force: boolean;
  /** For whoever finds it open. */
  readonly advice: string;
}

/** A disk whose content was replaced. */
interface Replaced {
  readonly node: NodeId;
  readonly sizeBytes: number;
  readonly replacement: number;
}

export interface DisksOptions {
  readonly fs: CowFs;
  readonly access: DiskAccess;
  /** Bytes of a fresh disk. */
  readonly diskBytes: number;
  /** File that keeps one of them. */
  readonly overlay: string | undefined;
  /** Has the kernel take note of a disk whose content was replaced; why it does not, or undefined. */
  readonly refresh: (node: NodeId, path: string, sizeBytes: number) => Promise<string | undefined>;
}

export class Disks {
  readonly #fs: CowFs;
  readonly #access: DiskAccess;
  readonly #options: DisksOptions;
  #replacements = 0;

  constructor(options: DisksOptions) {
    this.#fs = options.fs;
    this.#access = options.access;
    this.#options = options;
  }

  /** Open handles of all disks. */
  get openHandles(): number {
    const { inodes } = this.#fs;
    return inodes.all(KIND.DISK).reduce((sum, node) => sum + inodes.get(node, INODE.OPEN_HANDLES), 0);
  }

  /** Numbers of the disks that the kernel may hold data of. */
  get writable(): NodeId[] {
    const { inodes } = this.#fs;
    return inodes.all(KIND.DISK).filter((node) => inodes.get(node, INODE.WRITABLE_HANDLES) > 0);
  }

  /** The disk that is kept. */
  get kept(): NodeId | undefined {
    const { inodes, sessions } = this.#fs;
    return inodes.all(KIND.DISK).find((node) => inodes.get(node, INODE.CONTENT) === sessions.kept.session);
  }

  /** Whether the kernel may hold data of the disk that is kept. */
  get keptIsOpenToWrite(): boolean {
    const { kept } = this;
    return kept !== undefined && this.#fs.inodes.get(kept, INODE.WRITABLE_HANDLES) > 0;
  }

  /** Disks that nobody uses, without a name, that the kernel still knows: by a name in `.cowfs` that somebody left. */
  get left(): NodeId[] {
    const { inodes } = this.#fs;
    return inodes
      .all(KIND.DISK)
      .filter((node) => inodes.parent(node) === NO_NODE && inodes.get(node, INODE.OPEN_HANDLES) === 0);
  }

  /** @throws CowfsError: there is no such disk, it is open, or its requests take too long */
  async reset(path: string, force: boolean): Promise<void> {
    const how = { what: 'start again', force, advice: 'close it first, or insist with --force' };
    const replaced = this.#replace(path, how, (_node, session) => {
      const errno = this.#fs.sessions.reset(session, this.#fs.sessions.base.freshBytes(this.#options.diskBytes));
      if (errno === OK) return;
      throw new CowfsError('failed', `overlay ${this.#options.overlay} cannot be emptied (${errnoName(errno)})`);
    });
    await this.#followUp(path, replaced);
  }

  async rollback(path: string, name: string): Promise<void> {
    const how = { what: 'go back', force: false, advice: 'close it first' };
    const replaced = this.#replace(path, how, (node, session) =>
      this.#fs.sessions.rollback(session, this.#access.snapshotOf(path, node, name).layer),
    );
    await this.#followUp(path, replaced);
  }

  /**
   * From the replacement on every open drops what the kernel caches; once one has, nothing stale is left. This process
   * must not open it: it would wait for itself.
   */
  async #followUp(path: string, { node, sizeBytes, replacement }: Replaced): Promise<void> {
    const { inodes } = this.#fs;
    const reason = await this.#options.refresh(node, path, sizeBytes);
    if (reason !== undefined) {
      throw new CowfsError(
        'failed',
        `${this.#access.full(path)} has its new content, but the kernel may show its old size (${reason}); do it again, or unmount`,
      );
    }
    // Another replacement may have come meanwhile, or another disk in its place.
    if (inodes.kind(node) === KIND.DISK && inodes.get(node, INODE.STALE_CACHE) === replacement) {
      inodes.set(node, INODE.STALE_CACHE, 0);
    }
  }

  fork(path: string, to: string): void {
    this.#access.checkWritable('fork');
    this.#access.withDisk(path, (node, session) => {
      this.#access.checkNotKept(path, session, 'be forked');
      const { parent, name } = this.#access.parentOf(to);
      const { mode, uid, gid } = new SharedAttributes(this.#fs.inodes, node);
      this.#access.alone(path, session, () => {
        const errno = this.#fs.namespace.fork(parent, name, { mode, uid, gid }, session);
        if (errno !== OK)
          throw new CowfsError('refused', `${this.#access.full(to)}: ${errnoName(errno)}; give a new name`);
      });
    });
  }

  snapshot(path: string, name: string): void {
    this.#access.checkWritable('snapshot');
    const { sessions, namespace } = this.#fs;
    this.#access.withDisk(path, (node, session) => {
      this.#access.checkNotKept(path, session, 'have snapshots');
      this.#access.alone(path, session, () => {
        const errno = namespace.addSnapshot(node, name, () => sessions.snapshot(session));
        if (errno !== OK) {
          throw new CowfsError(
            'refused',
            `snapshot ${name} of ${this.#access.full(path)}: ${errnoName(errno)}; give another name`,
          );
        }
      });
    });
  }

  deleteSnapshot(path: string, name: string): void {
    this.#access.withDisk(path, (node) => {
      const { snapshot } = this.#access.snapshotOf(path, node, name);
      this.#fs.namespace.removeSnapshot(snapshot);
    });
  }

  status(): DiskStatus[] {
    return statusOfDisks(this.#fs, this.#access, this.#options.overlay);
  }

  /** Replaces the content of a disk; from now on openers drop what the kernel caches of it, until the kernel has (`#followUp`). */
  #replace(
    path: string,
    { what, force, advice }: Replacing,
    change: (node: NodeId, session: number) => void,
  ): Replaced {
    this.#access.checkWritable(what);
    const { inodes, sessions } = this.#fs;
    return this.#access.withDisk(path, (node, session) =>
      this.#access.alone(path, session, () => {
        const handles = inodes.get(node, INODE.OPEN_HANDLES);
        if (handles > 0 && !force) {
          throw new CowfsError(
            'refused',
            `${this.#access.full(path)} cannot ${what} while it is open (${handles} times); ${advice}`,
          );
        }
        this.#replacements = (this.#replacements % (2 ** 31 - 1)) + 1;
        inodes.set(node, INODE.STALE_CACHE, this.#replacements);
        change(node, session);
        new SharedAttributes(inodes, node).touch();
        return {
          node,
          sizeBytes: sessions.sizeBytes(session),
          replacement: this.#replacements,
        };
      }),
    );
  }
}
