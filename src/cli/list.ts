/**
 * `cowfs list`: the mounts of this user, as a table or as JSON.
 */
import type { Command } from 'commander';
import type { RegistryEntry } from '../daemon/registry.ts';
import type { MountStatus } from '../daemon/status.ts';
import { reasonOf } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import { warn } from './exit.ts';
import { flushDisks } from './flush.ts';
import { formatTable } from './table.ts';

export function registerList(program: Command): void {
  program
    .command('list')
    .alias('ls')
    .summary('list mounts')
    .description("Lists this user's mounts.")
    .option('--json', 'an array of mounts, for programs')
    .addHelpText(
      'after',
      `
Examples:
  cowfs list
  cowfs list --json | jq -r '.[].mountpoint'`,
    )
    .action(async ({ json }: { json?: boolean }) => {
      const mounts = await readStatuses();
      if (json === true) process.stdout.write(`${JSON.stringify(mounts, undefined, 2)}\n`);
      else if (mounts.length === 0) process.stdout.write('nothing is mounted\n');
      else process.stdout.write(listTable(mounts));
    });
}

/** The status of a mount, what the kernel cached until now included. */
export async function readStatus(entry: RegistryEntry): Promise<MountStatus> {
  const { askDaemon } = await import('../daemon/control.ts');
  const { withHandlesOf } = await import('../daemon/status.ts');
  const ask = (): Promise<MountStatus> => askDaemon(entry.socket, { command: 'status' });
  const before = await ask();
  await flushDisks(before, ask);
  return withHandlesOf(await ask(), before);
}

/** The status of every live mount; one that does not answer is told of and left out. */
export async function readStatuses(read = readStatus, tell = warn): Promise<MountStatus[]> {
  const { liveEntries } = await import('../daemon/reap.ts');
  const { isAlive } = await import('../daemon/registry.ts');
  const answers = await Promise.all(
    liveEntries().map(async (entry) => {
      try {
        return await read(entry);
      } catch (error) {
        // One that is just starting or ending is not in the list yet, or no more.
        if (isAlive(entry)) tell(`${entry.mountpoint} (pid ${entry.pid}): ${reasonOf(error)}`);
        return undefined;
      }
    }),
  );
  return answers.filter((status) => status !== undefined);
}

function listTable(mounts: readonly MountStatus[]): string {
  const rows = mounts.flatMap(({ disks, mountpoint, base, pid }) =>
    disks.length === 0
      ? [[mountpoint, base, '-', '-', '-', String(pid)]]
      : disks.map((disk) => [
          disk.removed ? `${disk.path} (removed)` : disk.path,
          base,
          formatBytes(disk.size),
          formatBytes(disk.writtenBytes),
          String(disk.openHandles),
          String(pid),
        ]),
  );
  return formatTable([['DISK', 'BASE', 'SIZE', 'WRITTEN', 'OPEN', 'PID'], ...rows]);
}
