/**
 * The one place that turns an error into a message and an exit code. The codes are listed in the README; scripts rely
 * on them.
 */
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
  process.stderr.write(`cowfs: ${oneLine(reasonOf(error))}\n`);
  if (verbose && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
      process.stderr.write(`${cause.stack}\n`);
  }
  return error instanceof CowfsError ? EXIT_CODES[error.kind] : EXIT_CODES.failed;
}

/** For a command that goes on printing: a reader that goes away has seen enough, anything else is a failure. */
export function endWithReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? EXIT_OK : reportError(error, false));
  });
}

export function warn(message: string): void {
  process.stderr.write(`cowfs: warning: ${oneLine(message)}\n`);
}

/** Paths may hold anything; a message is one line all the same. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
