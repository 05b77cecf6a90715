/**
 * The command line: which verbs there are. Each verb is a file of its own, and what it does is loaded only when it is
 * called, so that `--help` costs no more than commander.
 */
import { Command, CommanderError } from 'commander';
import { version } from '../lib/version.ts';
import { registerCompletion } from './completion.ts';
import { registerDoctor } from './doctor.ts';
import { EXIT_CODES, EXIT_OK, reportError } from './exit.ts';
import { registerList } from './list.ts';
import { registerMount } from './mount.ts';
import { registerRun } from './run.ts';
import { registerStatus } from './status.ts';
import { registerUnmount } from './unmount.ts';

function createProgram(): Command {
  const program = new Command('cowfs')
    .description('A private, disposable, writable raw disk over an image that stays as it is.')
    .version(version(), '-V, --version', 'print the version')
    .option('-v, --verbose', 'print stacks of errors')
    .helpOption('-h, --help', 'show help; also: cowfs <command> --help')
    .showHelpAfterError('(see cowfs --help)')
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'cowfs: ')) })
    .exitOverride();
  for (const register of [registerMount, registerRun, registerUnmount, registerList, registerStatus, registerDoctor]) {
    register(program);
  }
  program.addHelpText(
    'after',
    `
Examples:
  cowfs mount base.img /mnt/vm          show /mnt/vm/disk.raw, a disk to write to
  cowfs run base.img -- qemu-system-x86_64 -drive file={},format=raw
  cowfs unmount /mnt/vm                 throw away what was written`,
  );
  return program;
}

/** Runs a command line; sets the exit code unless a verb has taken it over. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = createProgram();
  await registerCompletion(program, argv);
  try {
    await program.parseAsync(argv);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version end this way, too; commander has printed what there is to say.
      process.exitCode = error.exitCode === 0 ? EXIT_OK : EXIT_CODES.usage;
      return;
    }
    process.exitCode = reportError(error, program.opts<{ verbose?: boolean }>().verbose === true);
  }
}
