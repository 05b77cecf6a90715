/**
 * `cowfs commit`: writes what was written to a disk back into its base, or base and changes to a new image.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { OpenedBase } from '../base/open.ts';
import type { DaemonConnection } from '../daemon/control.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { warn } from './exit.ts';
import { showProgress } from './progress.ts';
import { isSameFile, type OpenedSource, openSource } from './source.ts';

interface CommitOptions {
  readonly to?: string;
  readonly base?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** The daemon waits until a request under way has ended, and frees what the disk had in its store. */
const DONE_MS = 120_000;

export function registerCommit(program: Command): void {
  program
    .command('commit')
    .summary('write a disk back into its base')
    .description(
      'Writes what <disk> contains now into its base; the disk goes on, empty, on the new base. Nobody else may use the ' +
        'base. Killed at any moment it leaves the base as it was, or it comes to its end with the next command.',
    )
    .argument('<disk>', 'a disk, the mountpoint of one disk, or an overlay file')
    .option('--to <file>', 'write base and changes to a new raw image, and leave the base alone')
    .option('--base <file>', 'where the base of an overlay file lies now')
    .option('--force', 'with --to: replace that file; insist where the base of an overlay file has changed')
    .option('--json', 'tell of the progress, a JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  cowfs commit /mnt/vm
  cowfs commit vm.cow
  cowfs commit /mnt/vm/disk.raw --to new.img`,
    )
    .action(commit);
}

async function commit(given: string, options: CommitOptions): Promise<void> {
  const { to, base, force = false, json = false } = options;
  const source = await openSource(given, { purpose: to === undefined ? 'commit' : 'read', base, force });
  try {
    if (to === undefined) return await commitToBase(source, json);
    const { writeImage } = await import('./export.ts');
    await writeImage(source, resolve(to), { format: 'raw', isBacked: false, force, json });
  } finally {
    source.close();
  }
}

async function commitToBase(source: OpenedSource, json: boolean): Promise<void> {
  const { openBase } = await import('../base/open.ts');
  const { lockAlone, useAlone } = await import('../base/lock.ts');
  const { checkLogName } = await import('../overlay/commit/log-path.ts');
  const { basePath, daemon } = source;
  const fd = openForWriting(basePath);
  try {
    if (!isSameFile(fstatSync(fd, { bigint: true }), fstatSync(source.baseFd, { bigint: true }))) {
      throw new CowfsError('refused', `${basePath} names another file than the base now; move that back first`);
    }
    // Of a mounted disk the daemon has looked at others; but its locks end with the mount, which may be before this does.
    if (daemon === undefined) useAlone(basePath, source.baseFd);
    else lockAlone(source.baseFd);
    const base = openBase(basePath, true);
    try {
      if (base.kind === 'block device') {
        throw new CowfsError(
          'usage',
          `${basePath} is a block device, beside which no redo log can lie; use --to and write that image to it`,
        );
      }
      checkLogName(base.path);
      await writeThroughLog(source, base, fd, json);
    } finally {
      closeSync(base.descriptor.fd);
    }
  } finally {
    closeSync(fd);
  }
}

/** First the log, whole and durable; then the base; then the log goes. */
async function writeThroughLog(source: OpenedSource, base: OpenedBase, fd: number, json: boolean): Promise<void> {
  const { applyRedoLog, checkRoom, differenceBytes } = await import('../overlay/commit/apply.ts');
  const { RedoLog } = await import('../overlay/commit/redo-log.ts');
  const { identityOf } = await import('../overlay/file/identity.ts');
  const { disk, daemon, overlay, isUnfinished } = source;
  if (disk.sizeBytes === 0) {
    throw new CowfsError('usage', `${source.name} is empty, and a base must not be; make it larger, or use --to`);
  }
  // Each byte is written twice.
  const total = 2 * differenceBytes(disk);
  const progress = await showProgress('committing', json);
  let done = 0;
  const moved = (bytes: number): void => {
    done += bytes;
    progress.report(done, total);
  };
  try {
    progress.report(0, total);
    const origin =
      overlay === undefined
        ? undefined
        : { path: overlay.path, id: overlay.header.id, generation: overlay.header.generation };
    const log = new RedoLog({
      source: disk,
      shownBytes: source.base.sizeBytes,
      base: identityOf(base),
      descriptor: base.descriptor,
      origin,
      moved,
    });
    try {
      checkRoom(disk, base, fd);
      await daemon?.ask({ command: 'commit-begins' });
      applyRedoLog(log.publish(isUnfinished), base, fd, moved, overlay);
    } finally {
      log.close();
    }
    if (daemon !== undefined) await tellDone(daemon, source.name);
    progress.done();
  } catch (error) {
    progress.failed();
    throw error;
  }
}

/** The base is what it is to be by now, whatever has become of the mount. */
async function tellDone(daemon: DaemonConnection, name: string): Promise<void> {
  try {
    await daemon.ask({ command: 'commit-done' }, DONE_MS);
  } catch (error) {
    if (!daemon.hasEnded) throw error;
    warn(`${name}: its mount ended before its commit did; the base has all of it`);
  }
}

function openForWriting(path: string): number {
  try {
    return openSync(path, constants.O_RDWR);
  } catch (error) {
    throw new CowfsError(
      'usage',
      `${path} cannot be written to: ${reasonOf(error)}; commit as its owner, or use --to`,
      error,
    );
  }
}
