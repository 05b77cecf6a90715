/**
 * The command line: which verbs there are. Each verb is a file of its own, and only the one that is called is loaded:
 * every file less is a millisecond less until a disk is there.
 */
import { Command, CommanderError } from 'commander';
import { version } from '../lib/version.ts';
import { registerCompletion } from './completion.ts';
import { EXIT_CODES, EXIT_OK, outliveReader, reportError, say } from './exit.ts';
import type { Launcher } from './launcher.ts';

/** In the order in which the help lists them. */
const VERBS: Readonly<Record<string, () => Promise<(program: Command, launcher: Launcher | undefined) => void>>> = {
  mount: async () => (await import('./mount.ts')).registerMount,
  run: async () => (await import('./run.ts')).registerRun,
  unmount: async () => (await import('./unmount.ts')).registerUnmount,
  list: async () => (await import('./list.ts')).registerList,
  reset: async () => (await import('./reset.ts')).registerReset,
  fork: async () => (await import('./fork.ts')).registerFork,
  snapshot: async () => (await import('./snapshot.ts')).registerSnapshot,
  rollback: async () => (await import('./snapshot.ts')).registerRollback,
  commit: async () => (await import('./commit.ts')).registerCommit,
  export: async () => (await import('./export.ts')).registerExport,
  diff: async () => (await import('./diff.ts')).registerDiff,
  info: async () => (await import('./info.ts')).registerInfo,
  check: async () => (await import('./check.ts')).registerCheck,
  status: async () => (await import('./status.ts')).registerStatus,
  doctor: async () => (await import('./doctor.ts')).registerDoctor,
};

/** @param verb the one that is called; all of them for anything else, such as help */
async function createProgram(verb: string | undefined, launcher: Launcher | undefined): Promise<Command> {
  const program = new Command('cowfs')
    .description('A private, disposable, writable raw disk over an image that stays as it is.')
    .version(version(), '-V, --version', 'print the version')
    .option('-v, --verbose', 'print stacks of errors')
    .helpOption('-h, --help', 'show help; also: cowfs <command> --help')
    .showHelpAfterError('(see cowfs --help)')
    .configureOutput({
      writeErr: say,
      outputError: (text, write) => write(text.replace(/^error: /, 'cowfs: ')),
    })
    .exitOverride();
  const called = verb !== undefined && Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined;
  for (const load of called === undefined ? Object.values(VERBS) : [called]) (await load())(program, launcher);
  program.addHelpText(
    'after',
    `
Examples:
  cowfs mount base.img /mnt/vm          show /mnt/vm/disk.raw, a disk to write to
  cowfs run base.img -- qemu-system-x86_64 -drive file={},format=raw
  cowfs reset /mnt/vm/disk.raw          throw away what was written, and go on
  cowfs unmount /mnt/vm                 end it, and throw away what is not kept (--overlay)`,
  );
  return program;
}

/** Runs a command line; sets the exit code unless a verb has taken it over. */
export async function main(argv: readonly string[], launcher: Launcher | undefined): Promise<void> {
  outliveReader();
  const program = await createProgram(argv[2], launcher);
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
