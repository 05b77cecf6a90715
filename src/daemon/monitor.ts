/**
 * Looks after a mount every few seconds, on the main thread: whether the base changed, whether the store is about to
 * run full, whether reads or writes fail. Each is said once, before it hurts where that is possible.
 */
import { baseChange } from '../base/change.ts';
import type { OpenedBase } from '../base/open.ts';
import { totals } from '../fs/counters.ts';
import { formatBytes } from '../lib/units.ts';
import type { Sessions } from '../overlay/sessions.ts';
import type { Journal } from './journal.ts';

const INTERVAL_MS = 2000;
/** Room below which a warning is due. */
const LOW_BYTES = 256 * 1024 * 1024;
/** Share of the quota from which on a warning is due. */
const HIGH_QUOTA = 0.9;

export interface Monitored {
  readonly base: OpenedBase;
  readonly sessions: Sessions;
  readonly counters: SharedArrayBuffer;
  readonly storeDirectory: string;
  readonly maxStoreBytes: number | undefined;
  readonly journal: Journal;
}

export class Monitor {
  /** How the base changed since the mount, as first seen; it stays. */
  baseChanged: string | undefined;

  readonly #monitored: Monitored;
  readonly #timer: NodeJS.Timeout;
  #base: OpenedBase;
  #saidLow = false;
  #saidErrors = false;

  constructor(monitored: Monitored) {
    this.#monitored = monitored;
    this.#base = monitored.base;
    this.#timer = setInterval(() => this.look(), INTERVAL_MS);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** The base changed, and we know why. */
  setBase(base: OpenedBase): void {
    this.#base = base;
  }

  /** Looks now; `status` does, so that it is never behind. */
  look(): void {
    this.#lookAtBase();
    this.#lookAtRoom();
    const { ioErrors } = totals(this.#monitored.counters);
    if (ioErrors === 0 || this.#saidErrors) return;
    this.#saidErrors = true;
    this.#monitored.journal.error('reads or writes of the disk failed; `cowfs status` counts them, --trace shows them');
  }

  #lookAtBase(): void {
    // A commit writes to it.
    if (this.baseChanged !== undefined || this.#monitored.sessions.base.isCommitting) return;
    const { journal } = this.#monitored;
    const base = this.#base;
    const change = baseChange(base);
    if (change === undefined) return;
    this.baseChanged = change;
    journal.error(
      `the base ${base.path} changed under this mount (${change}): what the disk shows is not to be trusted`,
    );
  }

  #lookAtRoom(): void {
    if (this.#saidLow) return;
    const { sessions, storeDirectory, maxStoreBytes, journal } = this.#monitored;
    const room = sessions.freeBytes;
    const occupied = sessions.occupiedBytes;
    if (room < LOW_BYTES && occupied > 0) {
      this.#saidLow = true;
      journal.warn(`the store's file system (${storeDirectory}) has ${formatBytes(room)} left`);
    } else if (maxStoreBytes !== undefined && occupied > maxStoreBytes * HIGH_QUOTA) {
      this.#saidLow = true;
      journal.warn(
        `the store has ${formatBytes(occupied)} of the ${formatBytes(maxStoreBytes)} that --max-store allows`,
      );
    }
  }
}
