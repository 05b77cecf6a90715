/**
 * Owner, mode, times and open handles of a disk, in shared memory: what chmod(2), chown(2) and utimensat(2) change
 * and every worker must see at once. Kept for the life of the mount. Sizes belong to the overlay.
 */

const INT32 = {
  MODE: 0,
  UID: 1,
  GID: 2,
  OPEN_HANDLES: 3,
  WRITABLE_HANDLES: 4,
  BYTES: 24,
} as const;
const TIMES = { ATIME: 0, MTIME: 1, CTIME: 2, COUNT: 3 } as const;

/** Seconds since the epoch and nanoseconds of three times, as Float64 pairs. */
const TIME_SLOTS = TIMES.COUNT * 2;

export type TimeName = keyof Omit<typeof TIMES, 'COUNT'>;

export class SharedAttributes {
  readonly #ints: Int32Array;
  readonly #times: Float64Array;

  static create(mode: number, uid: number, gid: number, mtimeMs: number): SharedArrayBuffer {
    const buffer = new SharedArrayBuffer(INT32.BYTES + TIME_SLOTS * 8);
    const attributes = new SharedAttributes(buffer);
    attributes.setMode(mode);
    attributes.setOwner(uid, gid);
    for (const name of ['ATIME', 'MTIME', 'CTIME'] as const) attributes.setTimeMs(name, mtimeMs);
    return buffer;
  }

  constructor(buffer: SharedArrayBuffer) {
    this.#ints = new Int32Array(buffer, 0, INT32.BYTES / 4);
    this.#times = new Float64Array(buffer, INT32.BYTES, TIME_SLOTS);
  }

  /** Permission bits, without the file type. */
  get mode(): number {
    return Atomics.load(this.#ints, INT32.MODE);
  }

  setMode(mode: number): void {
    Atomics.store(this.#ints, INT32.MODE, mode);
  }

  get uid(): number {
    return Atomics.load(this.#ints, INT32.UID) >>> 0;
  }

  get gid(): number {
    return Atomics.load(this.#ints, INT32.GID) >>> 0;
  }

  setOwner(uid: number, gid: number): void {
    Atomics.store(this.#ints, INT32.UID, uid | 0);
    Atomics.store(this.#ints, INT32.GID, gid | 0);
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

  get openHandles(): number {
    return Atomics.load(this.#ints, INT32.OPEN_HANDLES);
  }

  /** Handles through which the kernel may hold data that it has not written yet. */
  get writableHandles(): number {
    return Atomics.load(this.#ints, INT32.WRITABLE_HANDLES);
  }

  opened(writable: boolean): void {
    Atomics.add(this.#ints, INT32.OPEN_HANDLES, 1);
    if (writable) Atomics.add(this.#ints, INT32.WRITABLE_HANDLES, 1);
  }

  closed(writable: boolean): void {
    Atomics.sub(this.#ints, INT32.OPEN_HANDLES, 1);
    if (writable) Atomics.sub(this.#ints, INT32.WRITABLE_HANDLES, 1);
  }
}
