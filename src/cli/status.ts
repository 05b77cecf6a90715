/**
 * `cowfs status`: everything about one mount, or about all.
 */
import type { Command } from 'commander';
import type { MountStatus } from '../daemon/status.ts';
import { CowfsError } from '../lib/error.ts';
import { formatBytes, formatDuration } from '../lib/units.ts';
import { readStatus, readStatuses } from './list.ts';
import { formatTable } from './table.ts';

export function registerStatus(program: Command): void {
  program
    .command('status')
    .summary('show how a mount is doing')
    .description('Shows size, use, traffic and health of one mount, or of all.')
    .argument('[mountpoint]')
    .option('--json', 'one object (an array without a mountpoint), for programs')
    .addHelpText(
      'after',
      `
Examples:
  cowfs status /mnt/vm
  cowfs status /mnt/vm --json | jq .disks[0].writtenBytes`,
    )
    .action(async (mountpoint: string | undefined, { json }: { json?: boolean }) => {
      const statuses = mountpoint === undefined ? await readStatuses() : [await statusOf(mountpoint)];
      if (json === true) {
        process.stdout.write(`${JSON.stringify(mountpoint === undefined ? statuses : statuses[0], undefined, 2)}\n`);
      } else if (statuses.length === 0) {
        process.stdout.write('nothing is mounted\n');
      } else {
        process.stdout.write(statuses.map(statusText).join('\n'));
      }
    });
}

async function statusOf(givenPath: string): Promise<MountStatus> {
  const { canonicalMountpoint } = await import('../daemon/mountpoint.ts');
  const { findEntry, isAlive } = await import('../daemon/registry.ts');
  const entry = findEntry(canonicalMountpoint(givenPath));
  if (entry === undefined || !isAlive(entry)) {
    throw new CowfsError('usage', `${givenPath} is no live cowfs mount; \`cowfs list\` shows them`);
  }
  return readStatus(entry);
}

function statusText(status: MountStatus): string {
  const { store, io } = status;
  const quota = store.maxBytes === null ? '' : `, at most ${formatBytes(store.maxBytes)}`;
  const rows: [string, string][] = [
    ['mountpoint', `${status.mountpoint}${status.readOnly ? ' (read-only)' : ''}`],
    ['base', `${status.base} (${formatBytes(status.baseSize)})`],
    ['base changed', status.baseChanged ?? 'no'],
    ...status.disks.flatMap((disk): [string, string][] => [
      ['disk', `${disk.path} (${formatBytes(disk.size)}), open ${disk.openHandles} times`],
      ['written', `${formatBytes(disk.writtenBytes)}, taking ${formatBytes(disk.storeBytes)}`],
    ]),
    ['store', `${store.directory} (${store.strategy}), ${formatBytes(store.freeBytes)} free${quota}`],
    ...(store.heldBytes > 0
      ? [['waiting', `${formatBytes(store.heldBytes)} for room in the store`] as [string, string]]
      : []),
    ['reads', traffic(io.reads, io.readBytes, io.readLatencyMs)],
    ['writes', traffic(io.writes, io.writeBytes, io.writeLatencyMs)],
    ['other requests', `${io.otherRequests}${io.ioErrors > 0 ? `; ${io.ioErrors} reads or writes failed` : ''}`],
    ['transport', `${status.transport} (FUSE ${status.protocol}), cache ${status.cache}, ${status.threads} threads`],
    [
      'daemon',
      `pid ${status.pid}, up ${formatDuration(Date.now() - Date.parse(status.upSince))}, ${formatBytes(status.memory.rssBytes)} resident`,
    ],
    ...status.warnings.map((warning): [string, string] => ['warning', warning]),
  ];
  return formatTable(rows);
}

function traffic(count: number, bytes: number, latencyMs: number): string {
  return `${count} (${formatBytes(bytes)}), ${latencyMs.toFixed(3)} ms each`;
}
