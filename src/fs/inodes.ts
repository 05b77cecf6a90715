/**
 * The inodes of a mount as a table in shared memory, every slot named: directories, disks and snapshots, in one tree. A
 * node id is a row. Structure (names, parents, siblings) changes and is read under the table's lock, for a few memory
 * accesses; attributes are read without. Any thread, one instance each; what operations mean is `namespace.ts`.
 */
import { lock, unlock } from '../lib/mutex.ts';
import { NAME_MAX_BYTES, NO_NODE, type NodeId, ROOT_NODE } from './node.ts';

/** Int32 slots of a row; times and name follow. */
export const INODE = {
  KIND: 0,
  /** Counts the inodes that this row has been. */
  GENERATION: 1,
  PARENT: 2,
  MODE: 3,
  UID: 4,
  GID: 5,
  OPEN_HANDLES: 6,
  /** Handles through which the kernel may hold data that it has not written yet. */
  WRITABLE_HANDLES: 7,
  /** How often the kernel was told of it and has not forgotten (FORGET); modulo 2^32. */
  LOOKUPS: 8,
  /** Of a disk: its session. Of a snapshot: its layer. */
  CONTENT: 9,
  FIRST_CHILD: 10,
  LAST_CHILD: 11,
  NEXT_SIBLING: 12,
  PREVIOUS_SIBLING: 13,
  NAME_HASH: 14,
  NAME_BYTES: 15,
  /** Of a disk: not 0 while openers have to drop what the kernel caches of it. */
  STALE_CACHE: 16,
} as const;
/** Word at which the Float64 slots start: one of them, then the times (`attributes.ts`). */
const DOUBLES_AT = 18;
/** Grows with each name that is made: what readdir(3) goes on from. */
const COOKIE = 0;
const TIMES_AT = DOUBLES_AT + 2;
const NAME_AT = 32;
const ROW_WORDS = NAME_AT + Math.ceil((NAME_MAX_BYTES + 1) / 4);

export const KIND = { FREE: 0, DIRECTORY: 1, DISK: 2, SNAPSHOT: 3 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** Words of the table's header. */
const HEADER = { MUTEX: 0, ROWS: 1, FREE_ROW: 2, USED_ROWS: 3, DIRECTORIES: 4, WORDS: 16 } as const;
/** Float64 slot of the header, after those: the last cookie. */
const LAST_COOKIE = 7;

const MAX_ROWS = 4_000_000;
const GROW_ROWS = 128;
const ROW_BYTES = ROW_WORDS * 4;
const HEADER_BYTES = HEADER.WORDS * 4;

export class Inodes {
  readonly buffer: SharedArrayBuffer;
  #words: Int32Array;
  #doubles: Float64Array;
  #bytes: Uint8Array;

  /** A table with nothing but the root in it. */
  static create(): SharedArrayBuffer {
    const buffer = new SharedArrayBuffer(HEADER_BYTES + GROW_ROWS * ROW_BYTES, {
      maxByteLength: HEADER_BYTES + MAX_ROWS * ROW_BYTES,
    });
    const inodes = new Inodes(buffer);
    inodes.set(inodes.allocate(), INODE.KIND, KIND.DIRECTORY);
    return buffer;
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(0);
    this.#doubles = new Float64Array(0);
    this.#bytes = new Uint8Array(0);
    this.#look();
  }

  lock(): void {
    lock(this.#words, HEADER.MUTEX);
  }

  unlock(): void {
    unlock(this.#words, HEADER.MUTEX);
  }

  /** Runs `action` under the lock. */
  locked<T>(action: () => T): T {
    this.lock();
    try {
      return action();
    } finally {
      this.unlock();
    }
  }

  /** Inodes there are, the root included. */
  get count(): number {
    return Atomics.load(this.#words, HEADER.USED_ROWS);
  }

  /** Directories in the root. */
  get directories(): number {
    return Atomics.load(this.#words, HEADER.DIRECTORIES);
  }

  /** What the node is; `FREE` for a number that is none. */
  kind(node: number): Kind {
    if (!Number.isInteger(node) || node < ROOT_NODE || node > Atomics.load(this.#words, HEADER.ROWS)) return KIND.FREE;
    return this.get(node as NodeId, INODE.KIND) as Kind;
  }

  get(node: NodeId, slot: number): number {
    const at = this.#row(node) + slot;
    return Atomics.load(this.#words, at);
  }

  set(node: NodeId, slot: number, value: number): void {
    const at = this.#row(node) + slot;
    Atomics.store(this.#words, at, value);
  }

  /** @returns the value after */
  add(node: NodeId, slot: number, amount: number): number {
    const at = this.#row(node) + slot;
    return (Atomics.add(this.#words, at, amount) + amount) | 0;
  }

  /** Byte offset of its times in `buffer`. */
  timesAt(node: NodeId): number {
    return (this.#row(node) + TIMES_AT) * 4;
  }

  parent(node: NodeId): NodeId {
    return this.get(node, INODE.PARENT) as NodeId;
  }

  name(node: NodeId): string {
    const at = (this.#row(node) + NAME_AT) * 4;
    // A copy: text is not decoded from shared memory.
    return Buffer.from(this.#bytes.slice(at, at + this.get(node, INODE.NAME_BYTES))).toString('utf8');
  }

  cookie(node: NodeId): number {
    const at = (this.#row(node) + DOUBLES_AT) / 2 + COOKIE;
    return this.#doubles[at] as number;
  }

  /** The child of that name, or none; the caller holds the lock. */
  child(parent: NodeId, name: string): NodeId {
    const bytes = Buffer.from(name, 'utf8');
    const hash = hashOf(bytes);
    for (let node = this.get(parent, INODE.FIRST_CHILD) as NodeId; node !== NO_NODE; node = this.next(node)) {
      if (this.get(node, INODE.NAME_HASH) === hash && this.#hasName(node, bytes)) return node;
    }
    return NO_NODE;
  }

  /** All inodes of a kind, those without a name included. */
  all(kind: Kind): NodeId[] {
    const rows = Atomics.load(this.#words, HEADER.ROWS);
    const nodes = Array.from({ length: rows }, (_, index) => (index + 1) as NodeId);
    return nodes.filter((node) => this.get(node, INODE.KIND) === kind);
  }

  /** The first child whose cookie is above, in the order of cookies; the caller holds the lock. */
  childAfter(parent: NodeId, cookie: number): NodeId {
    let node = this.get(parent, INODE.FIRST_CHILD) as NodeId;
    while (node !== NO_NODE && this.cookie(node) <= cookie) node = this.next(node);
    return node;
  }

  next(node: NodeId): NodeId {
    return this.get(node, INODE.NEXT_SIBLING) as NodeId;
  }

  /**
   * A new inode without a name, and without a kind: that comes when all else is right, since others may look. The
   * caller holds the lock, unless nobody else knows the table yet.
   *
   * @throws RangeError when the table is full or memory cannot be committed
   */
  allocate(): NodeId {
    let node = Atomics.load(this.#words, HEADER.FREE_ROW) as NodeId;
    if (node === NO_NODE) {
      node = (Atomics.load(this.#words, HEADER.ROWS) + 1) as NodeId;
      const needed = HEADER_BYTES + node * ROW_BYTES;
      if (needed > this.buffer.byteLength) {
        this.buffer.grow(Math.min(needed + GROW_ROWS * ROW_BYTES, this.buffer.maxByteLength));
      }
      this.#look();
      Atomics.store(this.#words, HEADER.ROWS, node);
    } else {
      Atomics.store(this.#words, HEADER.FREE_ROW, this.next(node));
    }
    const generation = this.get(node, INODE.GENERATION) + 1;
    const row = this.#row(node);
    this.#words.fill(0, row, row + ROW_WORDS);
    this.set(node, INODE.GENERATION, generation);
    Atomics.add(this.#words, HEADER.USED_ROWS, 1);
    return node;
  }

  /** Gives up an inode that has no name, no children and no users; the caller holds the lock. */
  free(node: NodeId): void {
    this.set(node, INODE.KIND, KIND.FREE);
    // Whoever remembers it finds out.
    this.add(node, INODE.GENERATION, 1);
    this.set(node, INODE.NEXT_SIBLING, Atomics.load(this.#words, HEADER.FREE_ROW));
    Atomics.store(this.#words, HEADER.FREE_ROW, node);
    Atomics.sub(this.#words, HEADER.USED_ROWS, 1);
  }

  /** Gives the node a name, as the youngest child of its parent; the caller holds the lock. */
  link(parent: NodeId, node: NodeId, name: string): void {
    const bytes = Buffer.from(name, 'utf8');
    const row = this.#row(node);
    this.#bytes.set(bytes, (row + NAME_AT) * 4);
    this.set(node, INODE.NAME_BYTES, bytes.length);
    this.set(node, INODE.NAME_HASH, hashOf(bytes));
    const header = this.#doubles;
    header[LAST_COOKIE] = (header[LAST_COOKIE] as number) + 1;
    this.#doubles[(row + DOUBLES_AT) / 2 + COOKIE] = header[LAST_COOKIE] as number;
    const last = this.get(parent, INODE.LAST_CHILD) as NodeId;
    this.set(node, INODE.PARENT, parent);
    this.set(node, INODE.PREVIOUS_SIBLING, last);
    this.set(node, INODE.NEXT_SIBLING, NO_NODE);
    this.set(parent, INODE.LAST_CHILD, node);
    if (this.kind(node) === KIND.DIRECTORY) Atomics.add(this.#words, HEADER.DIRECTORIES, 1);
    if (last === NO_NODE) this.set(parent, INODE.FIRST_CHILD, node);
    else this.set(last, INODE.NEXT_SIBLING, node);
  }

  /** Takes the node out of its directory; the name stays readable. The caller holds the lock. */
  unlink(node: NodeId): void {
    const parent = this.parent(node);
    const previous = this.get(node, INODE.PREVIOUS_SIBLING) as NodeId;
    const next = this.next(node);
    if (previous === NO_NODE) this.set(parent, INODE.FIRST_CHILD, next);
    else this.set(previous, INODE.NEXT_SIBLING, next);
    if (next === NO_NODE) this.set(parent, INODE.LAST_CHILD, previous);
    else this.set(next, INODE.PREVIOUS_SIBLING, previous);
    if (this.kind(node) === KIND.DIRECTORY) Atomics.sub(this.#words, HEADER.DIRECTORIES, 1);
    this.set(node, INODE.PARENT, NO_NODE);
    this.set(node, INODE.NEXT_SIBLING, NO_NODE);
    this.set(node, INODE.PREVIOUS_SIBLING, NO_NODE);
  }

  #hasName(node: NodeId, bytes: Uint8Array): boolean {
    if (this.get(node, INODE.NAME_BYTES) !== bytes.length) return false;
    const at = (this.#row(node) + NAME_AT) * 4;
    return bytes.every((byte, index) => byte === this.#bytes[at + index]);
  }

  /** Word at which the row starts; another thread may have made it. */
  #row(node: NodeId): number {
    const row = HEADER.WORDS + (node - 1) * ROW_WORDS;
    if (row + ROW_WORDS > this.#words.length) this.#look();
    return row;
  }

  #look(): void {
    const bytes = this.buffer.byteLength;
    this.#words = new Int32Array(this.buffer, 0, bytes >>> 2);
    this.#doubles = new Float64Array(this.buffer, 0, bytes >>> 3);
    this.#bytes = new Uint8Array(this.buffer, 0, bytes);
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash;
}
