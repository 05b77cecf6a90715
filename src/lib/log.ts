/**
 * Loggers: readable on a terminal, JSON in a file. Loaded only where something is logged; workers that trace make
 * their own over the same file. Writes are synchronous, so that the last line before an end is there.
 */
import { closeSync, openSync } from 'node:fs';
import { type Logger, pino } from 'pino';
import { CowfsError, reasonOf } from './error.ts';
import type { LogLevel } from './log-level.ts';

export interface LogOptions {
  /** Told of a log that cannot be written (its file system is full): logging must never end what it tells of. */
  readonly onError: (error: Error) => void;
  readonly level: LogLevel;
  /** Appended to as JSON lines; undefined for standard error, readable. */
  readonly file: string | undefined;
}

/** @throws CowfsError of kind `usage` when the file cannot be written */
export async function createLogger({ level, file, onError }: LogOptions): Promise<Logger> {
  const options = { level, base: { pid: process.pid } };
  if (file !== undefined) {
    checkWritable(file);
    const destination = pino.destination({ dest: file, append: true, sync: true, mode: 0o600 });
    destination.on('error', onError);
    return pino(options, destination);
  }
  const { PinoPretty } = await import('pino-pretty');
  const colorize = process.stderr.isTTY === true;
  return pino(
    options,
    PinoPretty({
      destination: 2,
      sync: true,
      colorize,
      translateTime: 'SYS:HH:MM:ss.l',
      ignore: 'pid',
    }),
  );
}

function checkWritable(file: string): void {
  try {
    closeSync(openSync(file, 'a', 0o600));
  } catch (error) {
    throw new CowfsError('usage', `--log-file ${file}: ${reasonOf(error)}; give a writable file`, error);
  }
}
