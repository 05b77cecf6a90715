/**
 * The doing of `cowfs run`: this process serves the disk and is the parent of the command. If it is killed, the kernel
 * takes the store and the watcher the mount.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { dirname, resolve as resolvePath } from 'node:path';
import { openJournal } from '../daemon/journal.ts';
import { MountDaemon } from '../daemon/mount-daemon.ts';
import type { MountOptions } from '../daemon/options.ts';
import { makePrivate, removePrivate } from '../daemon/private-mountpoint.ts';
import type { DiskStatus } from '../daemon/status.ts';
import { EACCES, ENOENT, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { exitNow } from '../sys/libc.ts';
import { mountAt } from '../sys/mountinfo.ts';
import { loadAhead } from '../transport/load.ts';
import { MOUNT_TYPE } from '../transport/transport.ts';
import { RUN_EXIT, reportError, warn } from './exit.ts';
import { flush, pathToOpen } from './flush.ts';
import { SignalRelay } from './signal-relay.ts';

export async function runOnDisk(
  optionsFor: (mountpoint: string) => Promise<MountOptions>,
  command: readonly string[],
  verbose: boolean,
): Promise<never> {
  let status: number;
  try {
    status = await runCommand(optionsFor, command);
  } catch (error) {
    const errno = error instanceof CommandError ? errnoOf(error.cause) : undefined;
    reportError(error, verbose);
    status = errno === ENOENT ? RUN_EXIT.notFound : errno === EACCES ? RUN_EXIT.notExecutable : RUN_EXIT.failed;
  }
  return exitNow(status);
}

class CommandError extends CowfsError {}

class NoProgramError extends CommandError {
  constructor(file: string) {
    const cause = Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES', errno: -EACCES });
    super(
      'usage',
      `${file} is the disk, no program; name a command after --, and the disk as {} among its arguments`,
      cause,
    );
  }
}

async function runCommand(
  optionsFor: (mountpoint: string) => Promise<MountOptions>,
  command: readonly string[],
): Promise<number> {
  const signals = new SignalRelay();
  const mountpoint = makePrivate();
  let daemon: MountDaemon;
  try {
    const options = {
      ...(await optionsFor(mountpoint)),
      privateMountpoint: true,
    };
    await loadAhead(options.transport);
    daemon = await MountDaemon.start(options, await openJournal(options, options.trace));
  } catch (error) {
    removePrivate(mountpoint);
    throw error;
  }
  for (const warning of daemon.warnings) warn(warning);
  try {
    if (signals.early !== undefined) return 128 + constants.signals[signals.early];
    return await Promise.race([
      runChild(command, daemon.diskPath, signals),
      daemon.ended.then(() => Promise.reject(new CowfsError('failed', 'the disk was unmounted while the command ran'))),
    ]);
  } finally {
    try {
      await flushKept(daemon, mountpoint);
    } finally {
      await daemon.detach();
      await daemon.ended;
    }
  }
}

/** A mapping, or a child that lives on, may have more than the last close brought. */
async function flushKept(daemon: MountDaemon, mountpoint: string): Promise<void> {
  const kept = (): DiskStatus[] => daemon.status().disks.filter(({ overlay }) => overlay !== null);
  // What is there this process knows by itself, as it serves the mount; a look there would wait for this very thread.
  const isThere = (path: string): boolean =>
    mountAt(mountpoint)?.type === MOUNT_TYPE && kept().some((disk) => pathToOpen(disk) === path);
  await flush(kept(), isThere);
}

/** @returns the exit code to end with: the command's, or 128 and the signal that ended it, as shells say */
function runChild(command: readonly string[], diskPath: string, signals: SignalRelay): Promise<number> {
  const [file = '', ...args] = command.map((argument) => argument.replaceAll('{}', diskPath));
  // A thread that serves the mount itself would wait for the start of the program, and that for the thread.
  if (resolvePath(file).startsWith(`${dirname(diskPath)}/`)) throw new NoProgramError(file);
  const child = spawn(file, args, {
    stdio: 'inherit',
    env: { ...process.env, COWFS_DISK: diskPath },
  });
  signals.relayTo(child);
  return new Promise((resolve, reject) => {
    child.once('error', (error) => {
      reject(new CommandError('usage', `${file}: ${reasonOf(error)}; check the command after --`, error));
    });
    child.once('exit', (code, signal) => resolve(signal === null ? (code ?? 0) : 128 + constants.signals[signal]));
  });
}
