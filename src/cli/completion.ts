/**
 * Shell completion, by a package that reads verbs and options off commander. It is loaded only when a shell asks:
 * `completion` prints a shell's script, `complete` is what that script calls.
 */
import type { Command } from 'commander';

const COMPLETION = 'completion';

/** Registers the verbs that serve shells: in full where one of them is called, else only for `--help` to name. */
export async function registerCompletion(program: Command, argv: readonly string[]): Promise<void> {
  const verb = argv[2];
  if (verb === COMPLETION || verb === 'complete') {
    const { default: tab } = await import('@bomb.sh/tab/commander');
    tab(program, { completionCommandName: COMPLETION });
    return;
  }
  program.command(`${COMPLETION} <shell>`).summary('print a completion script for bash, zsh, fish or powershell');
}
