/**
 * What a daemon has to say: to its log, if it has one, and its latest warnings to whoever asks for the status. A
 * background daemon without a log file leaves nothing on disk, so the warnings must not be lost.
 */
import type { Logger } from 'pino';
import { reasonOf } from '../lib/error.ts';
import type { MountOptions } from './options.ts';

const KEPT = 20;

export class Journal {
  readonly warnings: string[] = [];
  readonly #logger: Logger | undefined;

  constructor(logger: Logger | undefined) {
    this.#logger = logger;
  }

  debug(message: string, detail?: string): void {
    this.#logger?.debug(detail === undefined ? {} : { detail }, message);
  }

  info(message: string): void {
    this.#logger?.info(message);
  }

  warn(message: string): void {
    this.#logger?.warn(message);
    this.#keep(message);
  }

  error(message: string, detail?: string): void {
    this.#logger?.error(detail === undefined ? {} : { detail }, message);
    this.#keep(message);
  }

  /** The status must tell what the log cannot. */
  logFailed(error: Error): void {
    this.#keep(`the log cannot be written: ${reasonOf(error)}`);
  }

  /** Repeated words count once; the oldest make room. */
  #keep(message: string): void {
    if (this.warnings.includes(message)) return;
    this.warnings.push(message);
    if (this.warnings.length > KEPT) this.warnings.shift();
  }
}

/** A background daemon logs only to a file, and loads pino only for that. */
export async function openJournal(options: MountOptions, foreground: boolean): Promise<Journal> {
  if (!foreground && options.logFile === undefined) return new Journal(undefined);
  const { createLogger } = await import('../lib/log.ts');
  let journal: Journal | undefined;
  const onError = (error: Error): void => journal?.logFailed(error);
  journal = new Journal(await createLogger({ level: options.logLevel, file: options.logFile, onError }));
  return journal;
}
