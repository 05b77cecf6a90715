/**
 * How far something long is: a bar on a terminal, a JSON line now and then for programs, nothing in a pipe.
 */
import { formatBytes, formatDuration } from '../lib/units.ts';
import type { OnProgress } from '../overlay/export/source.ts';

/** Between two JSON events, and two drawings of the bar. */
const INTERVAL_MS = 200;
const BAR_COLUMNS = 30;
const LEAST_BAR_COLUMNS = 5;
/** What stands around the bar. */
const TEXT_COLUMNS = 50;
/** Of a terminal that does not know its size. */
const DEFAULT_COLUMNS = 80;

export interface Progress {
  readonly report: OnProgress;
  /** It has come to its end; the bar goes. */
  done(): void;
  /** It has not. */
  failed(): void;
}

export async function showProgress(what: string, json: boolean): Promise<Progress> {
  if (json) return new JsonProgress();
  if (process.stderr.isTTY !== true) return { report: () => {}, done: () => {}, failed: () => {} };
  const { SingleBar } = await import('cli-progress');
  const startedMs = performance.now();
  const columns = process.stderr.columns || DEFAULT_COLUMNS;
  const barColumns = Math.max(LEAST_BAR_COLUMNS, Math.min(BAR_COLUMNS, columns - TEXT_COLUMNS));
  const bar = new SingleBar({
    stream: process.stderr,
    // Nothing else gets a turn meanwhile.
    synchronousUpdate: true,
    clearOnComplete: true,
    hideCursor: false,
    // Else a signal would leave the terminal without; the line is cut to fit.
    linewrap: true,
    fps: 1000 / INTERVAL_MS,
    barsize: barColumns,
    format: (options, { progress, value, total }) => {
      const full = Math.round(progress * barColumns);
      const bytesPerMs = value / Math.max(1, performance.now() - startedMs);
      const left = bytesPerMs === 0 ? '' : `, ${formatDuration((total - value) / bytesPerMs)} left`;
      const drawn = `${options.barCompleteString?.slice(0, full)}${options.barIncompleteString?.slice(full)}`;
      const text = `${what} ${drawn} ${Math.floor(progress * 100)} %, ${formatBytes(Math.round(bytesPerMs * 1000))}/s${left}`;
      return text.slice(0, Math.max(1, columns - 2));
    },
  });
  bar.start(1, 0);
  return {
    report: (doneBytes, totalBytes) => {
      bar.setTotal(Math.max(1, totalBytes));
      bar.update(totalBytes === 0 ? 1 : doneBytes);
    },
    done: () => bar.stop(),
    failed: () => bar.stop(),
  };
}

class JsonProgress implements Progress {
  #lastMs = Number.NEGATIVE_INFINITY;
  #done = 0;
  #total = 0;

  readonly report: OnProgress = (doneBytes, totalBytes) => {
    this.#done = doneBytes;
    this.#total = totalBytes;
    if (performance.now() - this.#lastMs < INTERVAL_MS) return;
    this.#lastMs = performance.now();
    this.#print('progress');
  };

  done(): void {
    this.#print('done');
  }

  /** The message on standard error and the exit code tell the rest. */
  failed(): void {
    this.#print('failed');
  }

  #print(event: string): void {
    process.stdout.write(`${JSON.stringify({ event, doneBytes: this.#done, totalBytes: this.#total })}\n`);
  }
}
