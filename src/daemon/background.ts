/**
 * The background daemon: mounts, reports on descriptor 3 and serves until the mount is gone. Wiring only. Whoever started
 * it has exited by then.
 */
import { closeSync, writeSync } from 'node:fs';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { exitNow } from '../sys/libc.ts';
import type { EndSignals } from './end-signals.ts';
import { type Journal, openJournal } from './journal.ts';
import { MountDaemon } from './mount-daemon.ts';
import type { MountOptions } from './options.ts';
import { REPORT_FD, type StartReport } from './start-report.ts';

function report(message: StartReport): void {
  writeSync(REPORT_FD, `${JSON.stringify(message)}\n`);
  closeSync(REPORT_FD);
}

export async function serveInBackground(options: MountOptions, signals: EndSignals): Promise<never> {
  let journal: Journal;
  let daemon: MountDaemon;
  try {
    journal = await openJournal(options, false);
    daemon = await MountDaemon.start(options, journal);
  } catch (error) {
    const kind = error instanceof CowfsError ? error.kind : 'failed';
    report({
      code: 'ERROR',
      kind,
      message: reasonOf(error),
      stack: error instanceof Error ? (error.stack ?? '') : '',
    });
    exitNow(1);
  }
  // A bug; the watcher takes the mount away, the log keeps the reason.
  process.on('uncaughtException', (error) => {
    journal.error(reasonOf(error), error.stack);
    exitNow(1);
  });
  signals.end(daemon);
  report({
    code: 'READY',
    pid: process.pid,
    diskPath: daemon.diskPath,
    warnings: daemon.warnings,
  });
  journal.info(`serving ${options.base} as ${daemon.diskPath}`);
  try {
    await daemon.ended;
    journal.info('unmounted');
    return exitNow(0);
  } catch (error) {
    journal.error(reasonOf(error), error instanceof Error ? error.stack : undefined);
    return exitNow(1);
  }
}
