/**
 * What is seen of `.cowfs` by those who name it (`control-directory.ts`). It belongs to whom the root belongs to.
 */
import { SharedAttributes } from './attributes.ts';
import { CONTROL_NAME, CONTROL_NODE, nodeByNumber, STATUS_NAME, STATUS_NODE } from './control-directory.ts';
import { type Inodes, KIND } from './inodes.ts';
import { dotEntries } from './listing.ts';
import { DT_REG, NO_NODE, type NodeId, ROOT_NODE, S_IFREG } from './node.ts';
import type { Attributes, DirectoryEntry } from './ops.ts';
import type { CowFsOptions } from './options.ts';
import { fillDirectory } from './stat.ts';

export class ControlFiles {
  readonly #inodes: Inodes;
  readonly #root: SharedAttributes;
  readonly #hasStatus: boolean;
  readonly #readable: number;
  readonly #directoryMode: number;

  constructor(inodes: Inodes, { allowOther, sizelessFiles }: CowFsOptions) {
    this.#hasStatus = sizelessFiles;
    this.#inodes = inodes;
    this.#root = new SharedAttributes(inodes, ROOT_NODE);
    this.#readable = allowOther ? 0o444 : 0o400;
    // Its owner may have the kernel forget names there, which it takes for removing them.
    this.#directoryMode = allowOther ? 0o755 : 0o700;
  }

  /** @returns the node, none, or undefined where the name is not to be found here */
  lookup(parent: NodeId, name: string): NodeId | undefined {
    if (parent === ROOT_NODE) return name === CONTROL_NAME ? CONTROL_NODE : undefined;
    if (parent !== CONTROL_NODE) return undefined;
    if (name === STATUS_NAME) return this.#hasStatus ? STATUS_NODE : NO_NODE;
    const node = nodeByNumber(name);
    return node !== undefined && this.#inodes.kind(node) === KIND.DISK ? node : NO_NODE;
  }

  owns(node: NodeId): boolean {
    return node === CONTROL_NODE || node === STATUS_NODE;
  }

  /** False for what is none of these. */
  fill(into: Attributes, node: NodeId): boolean {
    if (!this.owns(node)) return false;
    fillDirectory(into, node, this.#root, 2);
    if (node === CONTROL_NODE) {
      into.mode = (into.mode & ~0o777) | this.#directoryMode;
      return true;
    }
    // Nobody knows its size before it is opened; as in /proc.
    into.mode = S_IFREG | this.#readable;
    into.nlink = 1;
    return true;
  }

  /** From the mountpoint, of one that it owns. */
  nameOf(node: NodeId): string {
    return node === CONTROL_NODE ? CONTROL_NAME : `${CONTROL_NAME}/${STATUS_NAME}`;
  }

  list(cookie: number, most: number): DirectoryEntry[] {
    const entries = dotEntries(CONTROL_NODE, ROOT_NODE, cookie);
    const status = { name: STATUS_NAME, node: STATUS_NODE, type: DT_REG, cookie: 3 };
    return (this.#hasStatus && cookie < status.cookie ? [...entries, status] : entries).slice(0, most);
  }
}
