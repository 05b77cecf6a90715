/**
 * `cowfs mount --foreground`: the mount lives in this process, its log goes to the terminal, and the signals of a
 * service manager or a terminal end it.
 */

import { EndSignals } from '../daemon/end-signals.ts';
import { openJournal } from '../daemon/journal.ts';
import { MountDaemon } from '../daemon/mount-daemon.ts';
import type { MountOptions } from '../daemon/options.ts';
import { exitNow } from '../sys/libc.ts';
import { EXIT_OK, reportError, warn } from './exit.ts';

export async function serveForeground(options: MountOptions): Promise<never> {
  const signals = new EndSignals();
  const journal = await openJournal(options, true);
  const daemon = await MountDaemon.start(options, journal);
  signals.end(daemon);
  for (const warning of daemon.warnings) warn(warning);
  process.stdout.write(`${daemon.diskPath}\n`);
  try {
    await daemon.ended;
    return exitNow(EXIT_OK);
  } catch (error) {
    return exitNow(reportError(error, true));
  }
}
