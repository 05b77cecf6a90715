/**
 * `cowfs fork`: a second disk with the present content of a first.
 */
import type { Command } from 'commander';
import { CowfsError } from '../lib/error.ts';

export function registerFork(program: Command): void {
  program
    .command('fork')
    .summary('make a disk with the present content of another')
    .description(
      'Makes <new> with what <disk> contains now; from then on each goes its own way. Takes the same time and no space, ' +
        'whatever was written. <disk> may be open and in use: <new> is then what a power cut would have left ' +
        '(crash-consistent), and its file system replays its journal.',
    )
    .argument('<disk>')
    .argument('<new>', 'a path in the same mount where there is nothing yet')
    .addHelpText(
      'after',
      `
Examples:
  cowfs fork /mnt/vm/disk.raw /mnt/vm/second.raw`,
    )
    .action(fork);
}

async function fork(given: string, givenNew: string): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { diskIn, placeOf } = await import('./disk-path.ts');
  const { flush } = await import('./flush.ts');
  const from = await placeOf(given);
  const to = await placeOf(givenNew);
  if (to.entry.mountpoint !== from.entry.mountpoint) {
    throw new CowfsError(
      'usage',
      `${givenNew} is not in ${from.entry.mountpoint}; a fork stays in its mount (cp copies)`,
    );
  }
  if (to.path === '') throw new CowfsError('usage', `${givenNew} is the mountpoint; name a new disk in it`);
  const { socket } = from.entry;
  const disk = diskIn(await askDaemon(socket, { command: 'status' }), from.path);
  await flush([disk]);
  await askDaemon(socket, { command: 'fork', disk: from.path, to: to.path });
}
