/**
 * `cowfs reset`: back to the base, without unmounting.
 */
import type { Command } from 'commander';
import { CowfsError } from '../lib/error.ts';

export function registerReset(program: Command): void {
  program
    .command('reset')
    .summary('throw away what was written to a disk, and go on')
    .description(
      'Brings a disk back to the base without unmounting; of a mountpoint or a directory in it, every disk. Refuses ' +
        'while the disk is open. Snapshots stay.',
    )
    .argument('<path>', 'a disk, a directory of disks, or a mountpoint')
    .option('--force', 'although it is open: its users find the base under their feet')
    .addHelpText(
      'after',
      `
Examples:
  cowfs reset /mnt/vm/disk.raw
  cowfs reset /mnt/vm`,
    )
    .action(async (path: string, { force }: { force?: boolean }) => reset(path, force === true));
}

async function reset(given: string, force: boolean): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { diskIn, placeOf } = await import('./disk-path.ts');
  const { flush } = await import('./flush.ts');
  const { replaceContent } = await import('./replace.ts');
  const { entry, path } = await placeOf(given);
  const status = await askDaemon(entry.socket, { command: 'status' });
  const below = status.disks.filter(({ name, removed }) => !removed && (path === '' || name.startsWith(`${path}/`)));
  const disks = path !== '' && below.length === 0 ? [diskIn(status, path)] : below;
  // What was written before must not be written back after.
  if (force) await flush(disks);
  const refused: CowfsError[] = [];
  for (const { name } of disks) {
    try {
      await replaceContent(entry.socket, { command: 'reset', disk: name, force });
    } catch (error) {
      if (!(error instanceof CowfsError && error.kind === 'refused')) throw error;
      refused.push(error);
    }
  }
  const [first, ...others] = refused;
  if (first === undefined) return;
  const more = others.length === 0 ? '' : `; nor can ${others.length} others`;
  throw new CowfsError('refused', `${first.message}${more}`);
}
