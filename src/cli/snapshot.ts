/**
 * `cowfs snapshot` and `cowfs rollback`: named moments of a disk, and the way back to them.
 */
import type { Command } from 'commander';
import type { DiskStatus } from '../daemon/status.ts';
import { CowfsError } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import { formatTable } from './table.ts';

interface SnapshotOptions {
  readonly delete?: boolean;
  readonly json?: boolean;
}

export function registerSnapshot(program: Command): void {
  program
    .command('snapshot')
    .summary('remember the present content of a disk by a name')
    .description(
      'Remembers what <disk> contains now. Takes the same time and no space, whatever was written. The disk may be open ' +
        'and in use (crash-consistent). Without a name, lists what is remembered. Snapshots go with their disk.',
    )
    .argument('<disk>')
    .argument('[name]')
    .option('--delete', 'forget the snapshot; its space is free at once where nothing else needs it')
    .option('--json', 'list as an array, for programs')
    .addHelpText(
      'after',
      `
Examples:
  cowfs snapshot /mnt/vm/disk.raw clean
  cowfs rollback /mnt/vm/disk.raw clean
  cowfs snapshot /mnt/vm/disk.raw --json`,
    )
    .action(snapshot);
}

export function registerRollback(program: Command): void {
  program
    .command('rollback')
    .summary('bring a disk back to a snapshot')
    .description('Brings <disk> back to what it was at the snapshot, which stays. Refuses while the disk is open.')
    .argument('<disk>')
    .argument('<name>')
    .addHelpText(
      'after',
      `
Examples:
  cowfs rollback /mnt/vm/disk.raw clean`,
    )
    .action(rollback);
}

async function snapshot(given: string, name: string | undefined, options: SnapshotOptions): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { diskIn, placeOf } = await import('./disk-path.ts');
  const { flush } = await import('./flush.ts');
  const { entry, path } = await placeOf(given);
  const disk = diskIn(await askDaemon(entry.socket, { command: 'status' }), path);
  if (name === undefined) {
    if (options.delete === true) throw new CowfsError('usage', '--delete: name the snapshot');
    process.stdout.write(options.json === true ? `${JSON.stringify(disk.snapshots, undefined, 2)}\n` : tableOf(disk));
    return;
  }
  if (options.json === true) throw new CowfsError('usage', '--json lists snapshots; leave out the name');
  if (options.delete === true) {
    await askDaemon(entry.socket, { command: 'delete-snapshot', disk: path, name });
    return;
  }
  await flush([disk]);
  await askDaemon(entry.socket, { command: 'snapshot', disk: path, name });
}

function tableOf({ path, snapshots }: DiskStatus): string {
  if (snapshots.length === 0) return `${path} has no snapshots\n`;
  return formatTable([
    ['NAME', 'SIZE', 'MADE'],
    ...snapshots.map(({ name, size, createdAt }) => [name, formatBytes(size), createdAt]),
  ]);
}

async function rollback(given: string, name: string): Promise<void> {
  const { placeOf } = await import('./disk-path.ts');
  const { replaceContent } = await import('./replace.ts');
  const { entry, path } = await placeOf(given);
  await replaceContent(entry.socket, { command: 'rollback', disk: path, name });
}
