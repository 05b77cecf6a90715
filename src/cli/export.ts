/**
 * `cowfs export`: a disk, as it is now, as an image file.
 */
import { type BigIntStats, fstatSync, lstatSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { ENOENT, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { NewFile } from '../sys/unnamed-file.ts';
import { showProgress } from './progress.ts';
import { isSameFile, type OpenedSource, openSource } from './source.ts';

const FORMATS = ['raw', 'qcow2'] as const;
type Format = (typeof FORMATS)[number];

interface ExportOptions {
  readonly format?: Format;
  readonly backing?: boolean;
  readonly flat?: boolean;
  readonly base?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function registerExport(program: Command): void {
  program
    .command('export')
    .summary('write a disk to an image file')
    .description(
      'Writes what a disk contains now to <file>: of a mounted disk, which may be in use (crash-consistent), or of an ' +
        'overlay file. Holes stay holes. <file> appears when it is whole.',
    )
    .argument('<disk>', 'a disk, the mountpoint of one disk, or an overlay file')
    .argument('<file>')
    .addOption(
      new Option('--format <format>', 'by default what the name of <file> says: qcow2 for .qcow2, else raw').choices([
        ...FORMATS,
      ]),
    )
    .option('--backing', 'qcow2: only what was written, over the base as backing file')
    .option('--flat', 'qcow2: all of it, standing alone (the default)')
    .option('--base <file>', 'where the base of an overlay file lies now')
    .option('--force', 'replace <file>; insist where the base of an overlay file has changed')
    .option('--json', 'tell of the progress, a JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  cowfs export /mnt/vm/disk.raw copy.img
  cowfs export /mnt/vm/disk.raw delta.qcow2 --backing
  cowfs export vm.cow vm.qcow2`,
    )
    .action(exportDisk);
}

async function exportDisk(given: string, target: string, options: ExportOptions): Promise<void> {
  const format = options.format ?? (extname(target) === '.qcow2' ? 'qcow2' : 'raw');
  const isBacked = options.backing === true;
  if (isBacked && options.flat === true) throw new CowfsError('usage', '--backing and --flat: give one of them');
  if ((isBacked || options.flat === true) && format !== 'qcow2') {
    throw new CowfsError(
      'usage',
      `--${isBacked ? 'backing' : 'flat'} is for --format qcow2; a raw image is always flat`,
    );
  }
  const force = options.force === true;
  const source = await openSource(given, { purpose: 'read', base: options.base, force });
  try {
    await writeImage(source, resolve(target), { format, isBacked, force, json: options.json === true });
  } finally {
    source.close();
  }
}

export interface ImageOptions {
  readonly format: Format;
  readonly isBacked: boolean;
  /** Whether a file that is there may be replaced. */
  readonly force: boolean;
  readonly json: boolean;
}

/** @throws CowfsError; then the target is as it was */
export async function writeImage(source: OpenedSource, path: string, options: ImageOptions): Promise<void> {
  const { format, isBacked, force, json } = options;
  checkTarget(source, path, force);
  if (isBacked) checkBacking(source);
  const { exportRaw } = await import('../overlay/export/raw.ts');
  const { exportQcow2 } = await import('../overlay/export/qcow2.ts');
  const progress = await showProgress('exporting', json);
  let file: NewFile | undefined;
  try {
    file = makeFile(path);
    if (format === 'raw') {
      exportRaw(source.disk, file.fd, path, progress.report);
    } else {
      const backing = isBacked ? { path: source.basePath, sizeBytes: source.base.sizeBytes } : undefined;
      exportQcow2(source.disk, file.fd, { what: path, backing, onProgress: progress.report });
    }
    file.publish(force);
    progress.done();
  } catch (error) {
    progress.failed();
    throw error instanceof CowfsError ? error : new CowfsError('failed', `${path}: ${reasonOf(error)}`, error);
  } finally {
    file?.close();
  }
}

function makeFile(path: string): NewFile {
  try {
    return new NewFile(path, 0o666);
  } catch (error) {
    throw new CowfsError(
      'usage',
      `${path} cannot be made: ${reasonOf(error)}; give a path in a writable directory`,
      error,
    );
  }
}

/** Replacing the base or the overlay by an export of it would destroy both, wherever they lie now. */
function checkTarget({ baseFd, overlay }: OpenedSource, path: string, force: boolean): void {
  const target = statsOf(path);
  if (target === undefined) return;
  if (!target.isFile()) throw new CowfsError('usage', `${path} is there and no regular file; give another name`);
  const sources = [baseFd, ...(overlay === undefined ? [] : [overlay.fd])];
  if (sources.some((fd) => isSameFile(target, fstatSync(fd, { bigint: true })))) {
    throw new CowfsError('usage', `${path} is what is exported; give another name`);
  }
  if (!force)
    throw new CowfsError('refused', `${path} is there already; give another name, or replace it with --force`);
}

/** The image would name something else. */
function checkBacking({ basePath, baseFd }: OpenedSource): void {
  const named = statsOf(basePath);
  if (named !== undefined && isSameFile(named, fstatSync(baseFd, { bigint: true }))) return;
  throw new CowfsError(
    'refused',
    `${basePath} does not name the base any more, so an image cannot lie over it; move the base back, or export it --flat`,
  );
}

function statsOf(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === ENOENT) return undefined;
    throw new CowfsError('usage', `${path}: ${reasonOf(error)}; check the path`, error);
  }
}
