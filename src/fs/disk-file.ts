/**
 * Disks as files, as one thread has them: views of what is in shared memory, made when a thread first meets a disk and
 * again when what lies under it has changed.
 */
import type { Gate } from '../overlay/gate.ts';
import type { SessionDisk, Sessions } from '../overlay/sessions.ts';
import { SharedAttributes } from './attributes.ts';
import { INODE, type Inodes, KIND } from './inodes.ts';
import type { NodeId } from './node.ts';

export interface DiskFile {
  readonly node: NodeId;
  readonly attributes: SharedAttributes;
  readonly disk: SessionDisk;
}

interface Remembered extends DiskFile {
  readonly generation: number;
  readonly session: number;
  topology: number;
  disk: SessionDisk;
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
    const known = this.#known(node);
    const session = known?.session ?? this.#sessionOf(node);
    if (session === undefined) return undefined;
    this.#sessions.gate.enter(session);
    return this.#view(node, session, known);
  }

  /**
   * As `enter`, through a row of the gates that is not the thread's own, and without waiting: undefined, and nothing
   * entered, also where a gate is closed. `gate.leave` ends it.
   */
  tryEnter(node: NodeId, gate: Gate): DiskFile | undefined {
    const known = this.#known(node);
    const session = known?.session ?? this.#sessionOf(node);
    if (session === undefined || !gate.tryEnter(session)) return undefined;
    return this.#view(node, session, known);
  }

  /**
   * Enters the disk's session without a view of its bytes, which takes memory for as long as the disk lives: a thousand
   * disks that are only looked at cost nothing here.
   *
   * @returns the session, or undefined, and nothing entered, for what is no disk
   */
  visit(node: NodeId): number | undefined {
    const session = this.#sessionOf(node);
    if (session !== undefined) this.#sessions.gate.enter(session);
    return session;
  }

  leave(): void {
    this.#sessions.gate.leave();
  }

  #known(node: NodeId): Remembered | undefined {
    const file = this.#files.get(node);
    return file !== undefined && file.generation === this.#inodes.get(node, INODE.GENERATION) ? file : undefined;
  }

  #sessionOf(node: NodeId): number | undefined {
    return this.#inodes.kind(node) === KIND.DISK ? this.#inodes.get(node, INODE.CONTENT) : undefined;
  }

  /** Inside the session. */
  #view(node: NodeId, session: number, known: Remembered | undefined): DiskFile {
    const { topology } = this.#sessions;
    if (known === undefined) {
      this.#makeRoom();
      const file = {
        node,
        generation: this.#inodes.get(node, INODE.GENERATION),
        session,
        attributes: new SharedAttributes(this.#inodes, node),
        topology,
        disk: this.#sessions.disk(session),
      };
      this.#files.set(node, file);
      return file;
    }
    if (known.topology !== topology) {
      known.disk = this.#sessions.disk(session);
      known.topology = topology;
    }
    return known;
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
