/**
 * What a starting daemon and its parent have to do with each other: descriptors, and the one line by which it says that it
 * serves, or why not.
 */
import { CowfsError, type ErrorKind } from '../lib/error.ts';

/** Descriptors that the daemon inherits: for that line, for its options as a line of JSON, and a mount of its parent's. */
export const REPORT_FD = 3;
export const OPTIONS_FD = 4;
export const FUSE_FD = 5;

export type StartReport =
  | {
      readonly code: 'READY';
      readonly pid: number;
      readonly diskPath: string;
      readonly warnings: readonly string[];
    }
  | {
      readonly code: 'ERROR';
      readonly kind: ErrorKind;
      readonly message: string;
      readonly stack: string;
    };

/** @throws CowfsError of kind `failed` for what no daemon of this version writes (or nothing: it died) */
export function parseStartReport(text: string): StartReport {
  try {
    const value = JSON.parse(text) as StartReport;
    if (value.code === 'READY' || value.code === 'ERROR') return value;
  } catch {
    // Told below: what came is no report.
  }
  throw new CowfsError(
    'failed',
    `the daemon ended before it was ready${text === '' ? '' : `: ${text.trim()}`}; try --foreground --verbose`,
  );
}
