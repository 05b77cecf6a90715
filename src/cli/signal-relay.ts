/**
 * Passes the signals that reach `cowfs run` on to its command. Caught from the start on: one that came before the
 * command runs is kept, so that nothing is started which was asked to end.
 */
import type { ChildProcess } from 'node:child_process';
import { isTerminalForeground } from '../sys/processes.ts';

const SIGNALS = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGINT', 'SIGQUIT', 'SIGCONT', 'SIGWINCH'] as const;
/** What a terminal sends to its whole foreground group: the command gets these without us. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGWINCH', 'SIGCONT'];
/** These end nobody. */
const HARMLESS: readonly NodeJS.Signals[] = ['SIGCONT', 'SIGWINCH'];

export class SignalRelay {
  /** The first signal that came while there was no command. */
  early: NodeJS.Signals | undefined;
  #child: ChildProcess | undefined;

  constructor() {
    for (const signal of SIGNALS) process.on(signal, () => this.#caught(signal));
  }

  relayTo(child: ChildProcess): void {
    this.#child = child;
  }

  #caught(signal: NodeJS.Signals): void {
    if (this.#child === undefined) {
      if (!HARMLESS.includes(signal)) this.early ??= signal;
    } else if (!FROM_TERMINAL.includes(signal) || !isTerminalForeground()) {
      this.#child.kill(signal);
    }
  }
}
