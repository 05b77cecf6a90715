/**
 * `cowfs mount` in the background: this process mounts, lets go of its caller once the disk can be opened, and serves until
 * the mount is gone. Wiring only.
 */
import { EndSignals } from '../daemon/end-signals.ts';
import { openJournal } from '../daemon/journal.ts';
import { MountDaemon } from '../daemon/mount-daemon.ts';
import type { MountOptions } from '../daemon/options.ts';
import { reasonOf } from '../lib/error.ts';
import { exitNow } from '../sys/libc.ts';
import { EXIT_OK, isOutputLost, warn } from './exit.ts';
import type { Launcher } from './launcher.ts';

export async function serveInBackground(options: MountOptions, launcher: Launcher): Promise<never> {
  const signals = new EndSignals();
  const journal = await openJournal(options, false);
  const daemon = await MountDaemon.start(options, journal);
  // A bug; the watcher takes the mount away, the log keeps the reason.
  process.on('uncaughtException', (error) => {
    journal.error(reasonOf(error), error.stack);
    exitNow(1);
  });
  signals.end(daemon);
  for (const warning of daemon.warnings) warn(warning);
  process.stdout.write(`${daemon.diskPath}\n`);
  // Traces without a file go to the caller's terminal, and keep it open; nothing else of the caller is held.
  const keepsStderr = options.trace && options.logFile === undefined;
  // A moment for what is wrong with standard output to be told.
  await isOutputLost();
  if (launcher.letGo(Number(process.exitCode ?? EXIT_OK), options.fuseFd, keepsStderr))
    journal.info(`serving ${options.base} as ${daemon.diskPath}`);
  // Killed before it could tell anybody of the disk.
  else void daemon.detach();
  try {
    await daemon.ended;
    journal.info('unmounted');
    return exitNow(EXIT_OK);
  } catch (error) {
    journal.error(reasonOf(error), error instanceof Error ? error.stack : undefined);
    return exitNow(1);
  }
}
