/**
 * What a mount has served so far: one row of numbers a worker in shared memory, so that each has one writer and needs
 * no atomics; whoever asks adds the rows up. Times are what the transport measures, from request to reply.
 */

const SLOT = {
  READS: 0,
  READ_BYTES: 1,
  READ_MS: 2,
  WRITES: 3,
  WRITE_BYTES: 4,
  WRITE_MS: 5,
  OTHERS: 6,
  OTHER_MS: 7,
  ERRORS: 8,
  COUNT: 16,
} as const;

export interface Totals {
  readonly reads: number;
  readonly readBytes: number;
  /** Mean milliseconds of a read; 0 before the first. */
  readonly readLatencyMs: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly writeLatencyMs: number;
  readonly otherRequests: number;
  /** Reads and writes that failed: the base, the store, or no space. */
  readonly ioErrors: number;
}

export class Counters {
  readonly #row: Float64Array;

  static create(workers: number): SharedArrayBuffer {
    return new SharedArrayBuffer(workers * SLOT.COUNT * 8);
  }

  constructor(shared: SharedArrayBuffer, worker: number) {
    this.#row = new Float64Array(shared, worker * SLOT.COUNT * 8, SLOT.COUNT);
  }

  read(bytes: number, milliseconds: number): void {
    this.#add(SLOT.READS, 1);
    this.#add(SLOT.READ_BYTES, bytes);
    this.#add(SLOT.READ_MS, milliseconds);
  }

  wrote(bytes: number, milliseconds: number): void {
    this.#add(SLOT.WRITES, 1);
    this.#add(SLOT.WRITE_BYTES, bytes);
    this.#add(SLOT.WRITE_MS, milliseconds);
  }

  other(milliseconds: number): void {
    this.#add(SLOT.OTHERS, 1);
    this.#add(SLOT.OTHER_MS, milliseconds);
  }

  failed(): void {
    this.#add(SLOT.ERRORS, 1);
  }

  #add(slot: number, amount: number): void {
    this.#row[slot] = (this.#row[slot] as number) + amount;
  }
}

export function totals(shared: SharedArrayBuffer): Totals {
  const rows = new Float64Array(shared);
  const sum = (slot: number): number => {
    let total = 0;
    for (let at = slot; at < rows.length; at += SLOT.COUNT) total += rows[at] as number;
    return total;
  };
  const mean = (time: number, count: number): number => (count === 0 ? 0 : time / count);
  return {
    reads: sum(SLOT.READS),
    readBytes: sum(SLOT.READ_BYTES),
    readLatencyMs: mean(sum(SLOT.READ_MS), sum(SLOT.READS)),
    writes: sum(SLOT.WRITES),
    writeBytes: sum(SLOT.WRITE_BYTES),
    writeLatencyMs: mean(sum(SLOT.WRITE_MS), sum(SLOT.WRITES)),
    otherRequests: sum(SLOT.OTHERS),
    ioErrors: sum(SLOT.ERRORS),
  };
}
