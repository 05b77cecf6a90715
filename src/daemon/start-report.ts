/**
 * The one line that a starting daemon writes to its parent: it serves, or why not.
 */
import { CowfsError, type ErrorKind } from '../lib/error.ts';

/** Descriptor that the daemon inherits for it. */
export const REPORT_FD = 3;

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
