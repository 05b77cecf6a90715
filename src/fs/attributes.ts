/**
 * Owner, mode, times and open handles of an inode, in shared memory: what chmod(2), chown(2) and utimensat(2) change
 * and every worker must see at once. Sizes belong to the overlay.
 */
import { INODE, type Inodes } from './inodes.ts';
import { type NodeId, PERMISSION_BITS } from './node.ts';
import type { AttributeChange } from './ops.ts';

const TIMES = { ATIME: 0, MTIME: 1, CTIME: 2, COUNT: 3 } as const;

export type TimeName = keyof Omit<typeof TIMES, 'COUNT'>;

export class SharedAttributes {
  readonly #inodes: Inodes;
  readonly #node: NodeId;
  /** Seconds since the epoch and nanoseconds of each time. */
  readonly #times: Float64Array;

  constructor(inodes: Inodes, node: NodeId) {
    this.#inodes = inodes;
    this.#node = node;
    this.#times = new Float64Array(inodes.buffer, inodes.timesAt(node), TIMES.COUNT * 2);
  }

  /** Of a new inode: all three times are `timeMs`, milliseconds since the epoch. */
  initialise(mode: number, uid: number, gid: number, timeMs: number): void {
    this.setMode(mode);
    this.setOwner(uid, gid);
    for (const name of ['ATIME', 'MTIME', 'CTIME'] as const) this.setTimeMs(name, timeMs);
  }

  /** Permission bits, without the file type. */
  get mode(): number {
    return this.#inodes.get(this.#node, INODE.MODE);
  }

  setMode(mode: number): void {
    this.#inodes.set(this.#node, INODE.MODE, mode);
  }

  get uid(): number {
    return this.#inodes.get(this.#node, INODE.UID) >>> 0;
  }

  get gid(): number {
    return this.#inodes.get(this.#node, INODE.GID) >>> 0;
  }

  setOwner(uid: number, gid: number): void {
    this.#inodes.set(this.#node, INODE.UID, uid | 0);
    this.#inodes.set(this.#node, INODE.GID, gid | 0);
  }

  seconds(name: TimeName): number {
    return this.#times[TIMES[name] * 2] as number;
  }

  nanoseconds(name: TimeName): number {
    return this.#times[TIMES[name] * 2 + 1] as number;
  }

  setTime(name: TimeName, seconds: number, nanoseconds: number): void {
    this.#times[TIMES[name] * 2] = seconds;
    this.#times[TIMES[name] * 2 + 1] = nanoseconds;
  }

  setTimeMs(name: TimeName, milliseconds: number): void {
    const seconds = Math.floor(milliseconds / 1000);
    this.setTime(name, seconds, Math.floor((milliseconds - seconds * 1000) * 1e6));
  }

  /** All of chmod(2), chown(2) and utimensat(2); sizes are not kept here. */
  change(change: AttributeChange): void {
    if (change.mode !== undefined) this.setMode(change.mode & PERMISSION_BITS);
    if (change.uid !== undefined || change.gid !== undefined) {
      this.setOwner(change.uid ?? this.uid, change.gid ?? this.gid);
    }
    this.#changeTime('ATIME', change.atime);
    this.#changeTime('MTIME', change.mtime);
    this.setTimeMs('CTIME', Date.now());
  }

  #changeTime(name: TimeName, time: AttributeChange['atime']): void {
    if (time === 'now') this.setTimeMs(name, Date.now());
    else if (time !== undefined) this.setTime(name, time[0], time[1]);
  }

  /** The content changed. */
  touch(now = Date.now()): void {
    this.setTimeMs('MTIME', now);
    this.setTimeMs('CTIME', now);
  }

  /** Sets a time of the content that nobody has seen yet. */
  advanceTime(): void {
    const last = this.seconds('MTIME') * 1000 + Math.ceil(this.nanoseconds('MTIME') / 1e6);
    this.setTimeMs('MTIME', Math.max(Date.now(), last + 1));
  }

  get openHandles(): number {
    return this.#inodes.get(this.#node, INODE.OPEN_HANDLES);
  }

  /** Handles through which the kernel may hold data that it has not written yet. */
  get writableHandles(): number {
    return this.#inodes.get(this.#node, INODE.WRITABLE_HANDLES);
  }

  opened(writable: boolean): void {
    this.#inodes.add(this.#node, INODE.OPEN_HANDLES, 1);
    if (writable) this.#inodes.add(this.#node, INODE.WRITABLE_HANDLES, 1);
  }

  closed(writable: boolean): void {
    this.#inodes.add(this.#node, INODE.OPEN_HANDLES, -1);
    if (writable) this.#inodes.add(this.#node, INODE.WRITABLE_HANDLES, -1);
  }
}
