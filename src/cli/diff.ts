/**
 * `cowfs diff`: which ranges of a disk differ from its base, as a table, as JSON, or as a picture.
 */
import type { Command } from 'commander';
import { CowfsError } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import type { ChangedRange } from '../overlay/export/compare.ts';
import { isOutputLost } from './exit.ts';
import { type OpenedSource, openSource } from './source.ts';

interface DiffOptions {
  readonly written?: boolean;
  readonly json?: boolean;
  readonly map?: boolean;
  readonly base?: string;
  readonly force?: boolean;
}

/** Of a window that cannot be asked (console_codes(4)). */
const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;
const OFFSET_COLUMNS = 16;
const LENGTH_COLUMNS = 12;
/** How long a reader may be gone before it is noticed. */
const TURN_MS = 20;

export function registerDiff(program: Command): void {
  program
    .command('diff')
    .summary('show which ranges of a disk differ from its base')
    .description(
      'Compares what was written to <disk> with the base and lists the ranges that differ, in blocks of 4096 bytes. Of a ' +
        'mounted disk as it is at the moment.',
    )
    .argument('<disk>', 'a disk, the mountpoint of one disk, or an overlay file')
    .option('--written', 'list what was written, whether it differs or not; reads nothing')
    .option('--map', 'draw the disk: how much of each part was written, and where its partitions are')
    .option('--json', 'one object, for programs')
    .option('--base <file>', 'where the base of an overlay file lies now')
    .option('--force', 'insist where the base of an overlay file has changed')
    .addHelpText(
      'after',
      `
Examples:
  cowfs diff /mnt/vm
  cowfs diff /mnt/vm --map
  cowfs diff vm.cow --json | jq '[.ranges[].length] | add'`,
    )
    .action(diff);
}

async function diff(given: string, { written, json, map, base, force = false }: DiffOptions): Promise<void> {
  if (json === true && map === true) throw new CowfsError('usage', '--json and --map: give one of them');
  const source = await openSource(given, { purpose: 'look', base, force });
  try {
    if (map === true) {
      process.stdout.write(await pictureOf(source));
      return;
    }
    const { changedRanges, writtenRanges } = await import('../overlay/export/compare.ts');
    const ranges = written === true ? writtenRanges(source.disk) : changedRanges(source.disk, source.base);
    await print(json === true ? jsonOf(source, ranges) : tableOf(source, ranges, written === true));
  } finally {
    source.close();
  }
}

async function pictureOf({ disk }: OpenedSource): Promise<string> {
  const { writtenRanges } = await import('../overlay/export/compare.ts');
  const { readPartitions } = await import('../base/partitions.ts');
  const { drawDiskMap } = await import('./disk-map.ts');
  const { stdout, env } = process;
  const locale = env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '';
  return drawDiskMap(
    {
      sizeBytes: disk.sizeBytes,
      ranges: writtenRanges(disk),
      partitions: readPartitions(disk.sizeBytes, (offset, length, into, at) => disk.read(offset, length, into, at)),
    },
    {
      columns: stdout.columns || DEFAULT_COLUMNS,
      rows: stdout.rows || DEFAULT_ROWS,
      colorDepth: stdout.isTTY === true ? stdout.getColorDepth() : 1,
      unicode: /utf-?8/i.test(locale),
    },
  );
}

/** Piece by piece, for there may be millions; ends with the reader, who may have seen enough long before. */
async function print(pieces: Iterable<string>): Promise<void> {
  let turnMs = Number.NEGATIVE_INFINITY;
  for (const piece of pieces) {
    process.stdout.write(piece);
    // By time: between two pieces there may be nothing, or the reading of all of a base.
    if (performance.now() - turnMs < TURN_MS) continue;
    if (await isOutputLost()) return;
    turnMs = performance.now();
  }
}

function* tableOf(
  { disk, base }: OpenedSource,
  ranges: Iterable<ChangedRange>,
  isWritten: boolean,
): Generator<string, void> {
  const data = isWritten ? 'data' : 'other data';
  const row = (offset: string, length: string, kind: string): string =>
    `${offset.padStart(OFFSET_COLUMNS)}  ${length.padStart(LENGTH_COLUMNS)}  ${kind}\n`;
  yield row('OFFSET', 'LENGTH', 'NOW');
  let total = 0;
  for (const { offset, length, kind } of ranges) {
    yield row(String(offset), String(length), kind === 'data' ? data : 'zeros');
    total += length;
  }
  const size =
    disk.sizeBytes === base.sizeBytes
      ? ''
      : `; the disk is ${formatBytes(disk.sizeBytes)}, the base ${formatBytes(base.sizeBytes)}`;
  yield `${formatBytes(total)} ${isWritten ? 'written' : 'differ'}${size}\n`;
}

function* jsonOf(
  { name, disk, base, basePath }: OpenedSource,
  ranges: Iterable<ChangedRange>,
): Generator<string, void> {
  const head = JSON.stringify({ disk: name, size: disk.sizeBytes, base: basePath, baseSize: base.sizeBytes });
  yield `${head.slice(0, -1)},"ranges":[`;
  let separator = '\n';
  for (const range of ranges) {
    yield `${separator}${JSON.stringify(range)}`;
    separator = ',\n';
  }
  yield '\n]}\n';
}
