/**
 * Disks as files, as one thread has them: views of what is in shared memory, made when a thread first meets a disk and
 * again when what lies under it has changed.
 */
import type { Disk } from '../overlay/disk.ts';
import type { Sessions } from '../overlay/sessions.ts';
import { SharedAttributes } from './attributes.ts';
import { INODE, type Inodes, KIND } from './inodes.ts';
import type { NodeId } from './node.ts';

export interface DiskFile {
  readonly node: NodeId;
  readonly attributes: SharedAttributes;
  readonly disk: Disk;
}

interface Remembered extends DiskFile {
  readonly generation: number;
  readonly session: number;
  topology: number;
  disk: Disk;
}

/** Views that a thread keeps: some 2 KiB each. */
const MOST_FILES = 512;

export class DiskFiles {
  readonly #inodes: Inodes;
  readonly #sessions: Sessions;
  readonly #files = new Map<NodeId, Remembered>();

  constructor(inodes: Inodes, sessions: Sessions) {
    this.#inodes = inodes;
    this.#sessions = sessions;
  }

  /** The disk, with this thread inside its session until `leave`; undefined, and nothing entered, for what is none. */
  enter(node: NodeId): DiskFile | undefined {
    let file = this.#files.get(node);
    if (file === undefined || file.generation !== this.#inodes.get(node, INODE.GENERATION)) {
      if (this.#inodes.kind(node) !== KIND.DISK) return undefined;
      this.#makeRoom();
      const session = this.#inodes.get(node, INODE.CONTENT);
      this.#sessions.gate.enter(session);
      file = {
        node,
        generation: this.#inodes.get(node, INODE.GENERATION),
        session,
        attributes: new SharedAttributes(this.#inodes, node),
        topology: this.#sessions.topology,
        disk: this.#sessions.open(session),
      };
      this.#files.set(node, file);
      return file;
    }
    this.#sessions.gate.enter(file.session);
    const { topology } = this.#sessions;
    if (file.topology !== topology) {
      file.disk = this.#sessions.open(file.session);
      file.topology = topology;
    }
    return file;
  }

  /**
   * Enters the disk's session without a view of its bytes, which takes memory for as long as the disk lives: a thousand
   * disks that are only looked at cost nothing here.
   *
   * @returns the session, or undefined, and nothing entered, for what is no disk
   */
  visit(node: NodeId): number | undefined {
    if (this.#inodes.kind(node) !== KIND.DISK) return undefined;
    const session = this.#inodes.get(node, INODE.CONTENT);
    this.#sessions.gate.enter(session);
    return session;
  }

  leave(): void {
    this.#sessions.gate.leave();
  }

  /** Forgets the one that it met first, gone or not: meeting it again takes some microseconds. */
  #makeRoom(): void {
    if (this.#files.size < MOST_FILES) return;
    for (const oldest of this.#files.keys()) {
      this.#files.delete(oldest);
      return;
    }
  }
}
