/**
 * The error a person sees: a kind (which decides the exit code), one line that says what, where and what to do next,
 * and the cause for `--verbose`. Thrown by everything from `sys` up to the commands; not used while serving requests,
 * where an errno is enough.
 */
import { getSystemErrorMap } from 'node:util';

/**
 * - `usage`: the command line or an input is wrong.
 * - `refused`: the request is understood but must not be carried out now (busy, in use, already mounted).
 * - `missing`: this machine lacks something (`/dev/fuse`, fusermount3, a permission, space).
 * - `failed`: something that should have worked did not.
 */
const ERROR_KINDS = ['usage', 'refused', 'missing', 'failed'] as const;
export type ErrorKind = (typeof ERROR_KINDS)[number];

export function isErrorKind(text: string): text is ErrorKind {
  return (ERROR_KINDS as readonly string[]).includes(text);
}

export class CowfsError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'CowfsError';
    this.kind = kind;
  }
}

/** The bare reason of any thrown value, without the system call and path that Node's messages repeat. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // First by number: the message of what could not be started has the errno's name alone, behind the program's.
  const system = 'errno' in error ? getSystemErrorMap().get(Number(error.errno)) : undefined;
  if (system !== undefined) return `${system[1]} (${system[0]})`;
  const match = /^(E[A-Z0-9]+): ([^,]+)/.exec(error.message);
  return match?.[2] === undefined ? error.message : `${match[2]} (${match[1]})`;
}
