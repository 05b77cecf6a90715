/**
 * The one place that turns an error into a message and an exit code. The codes are listed in the README; scripts rely
 * on them.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { CowfsError, type ErrorKind, reasonOf } from '../lib/error.ts';

export const EXIT_OK = 0;

export const EXIT_CODES: Readonly<Record<ErrorKind, number>> = {
  failed: 1,
  usage: 2,
  refused: 3,
  missing: 4,
};

/** `cowfs run` passes its command's exit code on; these say that the command never ran (as env(1), timeout(1)). */
export const RUN_EXIT = {
  failed: 125,
  notExecutable: 126,
  notFound: 127,
} as const;

/** Prints one line (the stack too, when asked for) and says how to exit. */
export function reportError(error: unknown, verbose: boolean): number {
  say(`cowfs: ${oneLine(reasonOf(error))}\n`);
  if (verbose && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) say(`${cause.stack}\n`);
  }
  return error instanceof CowfsError ? EXIT_CODES[error.kind] : EXIT_CODES.failed;
}

/** Whether a write to standard output has failed. The stream does not know: Node mends it after each error. */
let isLost = false;

/**
 * Has a command outlive the reader of its standard output: it comes to its end, and its exit code tells of that. One that
 * has nothing to do but print asks `isOutputLost`. What is lost for another reason (a full disk) is a failure.
 */
export function outliveReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    isLost = true;
    if (error.code !== 'EPIPE') process.exitCode ||= reportError(standardOutputError(error), false);
  });
}

function standardOutputError(error: Error): CowfsError {
  return new CowfsError('failed', `standard output: ${reasonOf(error)}; not all of it could be written`, error);
}

/** Whether nobody reads what is printed. Gives a write before it the time to fail, which a loop does not. */
export async function isOutputLost(): Promise<boolean> {
  await nextTurn();
  return isLost;
}

export function warn(message: string): void {
  say(`cowfs: warning: ${oneLine(message)}\n`);
}

/** To standard error; the exit code tells where nobody reads that. */
export function say(text: string): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {});
  process.stderr.write(text);
}

/** Paths may hold anything; a message is one line all the same. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
