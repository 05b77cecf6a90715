/**
 * `cowfs status`: everything about one mount, or about all.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { RegistryEntry } from '../daemon/registry.ts';
import type { DiskStatus, MountStatus } from '../daemon/status.ts';
import { CowfsError } from '../lib/error.ts';
import { formatBytes, formatDuration } from '../lib/units.ts';
import { EXIT_OK, isOutputLost, warn } from './exit.ts';
import { readStatus, readStatuses } from './list.ts';
import { formatTable } from './table.ts';

const WATCH_MS = 1000;
/** Cursor to the top, all below cleared (console_codes(4)). */
const CLEAR = '\x1b[H\x1b[J';

export function registerStatus(program: Command): void {
  program
    .command('status')
    .summary('show how a mount is doing')
    .description('Shows size, use, traffic and health of one mount, or of all.')
    .argument('[mountpoint]')
    .option('--json', 'one object (an array without a mountpoint), for programs')
    .option('--watch', 'draw it anew every second, until interrupted; leaves out what the kernel still caches')
    .addHelpText(
      'after',
      `
Examples:
  cowfs status /mnt/vm
  cowfs status /mnt/vm --json | jq .disks[0].writtenBytes
  cat /mnt/vm/.cowfs/status.json`,
    )
    .action(async (mountpoint: string | undefined, { json, watch }: { json?: boolean; watch?: boolean }) => {
      if (watch === true) return watchStatus(mountpoint, json === true);
      const statuses =
        mountpoint === undefined ? await readStatuses() : [await readStatus(await liveEntry(mountpoint))];
      if (json === true) {
        process.stdout.write(`${JSON.stringify(mountpoint === undefined ? statuses : statuses[0], undefined, 2)}\n`);
      } else {
        process.stdout.write(statusesText(statuses));
      }
    });
}

/** Without having the kernel write back each time: that would slow down what is watched. */
async function watchStatus(mountpoint: string | undefined, json: boolean): Promise<void> {
  const { askDaemon } = await import('../daemon/control.ts');
  const entry = mountpoint === undefined ? undefined : await liveEntry(mountpoint);
  const ask = ({ socket }: RegistryEntry): Promise<MountStatus> => askDaemon(socket, { command: 'status' });
  const told = new Set<string>();
  const tellOnce = (message: string): void => {
    if (!told.has(message)) warn(message);
    told.add(message);
  };
  const { stdout } = process;
  process.once('SIGINT', () => process.exit(EXIT_OK));
  for (;;) {
    const statuses = entry === undefined ? await readStatuses(ask, tellOnce) : [await ask(entry)];
    if (json) stdout.write(`${JSON.stringify(mountpoint === undefined ? statuses : statuses[0])}\n`);
    else stdout.write(`${stdout.isTTY ? CLEAR : ''}${statusesText(statuses)}${stdout.isTTY ? '' : '\n'}`);
    if (await isOutputLost()) return;
    await delay(WATCH_MS);
  }
}

function statusesText(statuses: readonly MountStatus[]): string {
  return statuses.length === 0 ? 'nothing is mounted\n' : statuses.map(statusText).join('\n');
}

async function liveEntry(givenPath: string): Promise<RegistryEntry> {
  const { canonicalMountpoint } = await import('../daemon/mountpoint.ts');
  const { findEntry, isAlive } = await import('../daemon/registry.ts');
  const entry = findEntry(canonicalMountpoint(givenPath));
  if (entry === undefined || !isAlive(entry)) {
    throw new CowfsError('usage', `${givenPath} is no live cowfs mount; \`cowfs list\` shows them`);
  }
  return entry;
}

function statusText(status: MountStatus): string {
  const { store, io } = status;
  const quota = store.maxBytes === null ? '' : `, at most ${formatBytes(store.maxBytes)}`;
  const rows: [string, string][] = [
    ['mountpoint', `${status.mountpoint}${status.readOnly ? ' (read-only)' : ''}`],
    ['base', `${status.base} (${formatBytes(status.baseSize)})`],
    ['base changed', status.baseChanged ?? 'no'],
    ...status.disks.flatMap((disk): [string, string][] => [
      ['disk', diskText(disk)],
      ['written', `${formatBytes(disk.writtenBytes)}, taking ${formatBytes(disk.storeBytes)}${layersText(disk)}`],
      ...(disk.overlay === null ? [] : [['kept in', disk.overlay] as [string, string]]),
    ]),
    ['store', `${store.directory}, ${formatBytes(store.freeBytes)} free${quota}`],
    ['strategy', strategyText(store)],
    ...(store.heldBytes > 0
      ? [['waiting', `${formatBytes(store.heldBytes)} for room in the store`] as [string, string]]
      : []),
    ['reads', traffic(io.reads, io.readBytes, io.readLatencyMs)],
    ['writes', traffic(io.writes, io.writeBytes, io.writeLatencyMs)],
    ['other requests', `${io.otherRequests}${io.ioErrors > 0 ? `; ${io.ioErrors} reads or writes failed` : ''}`],
    [
      'transport',
      `${status.transport} (FUSE ${status.protocol}), cache ${status.cache}, ${status.threads} threads, aio ${status.aio}`,
    ],
    [
      'daemon',
      `pid ${status.pid}, up ${formatDuration(Date.now() - Date.parse(status.upSince))}, ${formatBytes(status.memory.rssBytes)} resident`,
    ],
    ...status.warnings.map((warning): [string, string] => ['warning', warning]),
  ];
  return formatTable(rows);
}

function diskText({ path, removed, size, openHandles }: DiskStatus): string {
  return `${path}${removed ? ' (removed)' : ''} (${formatBytes(size)}), open ${openHandles} times`;
}

function layersText({ layers, snapshots }: DiskStatus): string {
  const names = snapshots.length === 0 ? '' : `; snapshots ${snapshots.map(({ name }) => name).join(', ')}`;
  return layers === 1 ? names : `, in ${layers} layers${names}`;
}

function traffic(count: number, bytes: number, latencyMs: number): string {
  return `${count} (${formatBytes(bytes)}), ${latencyMs.toFixed(3)} ms each`;
}

function strategyText({ strategy, strategyReason, passthrough }: MountStatus['store']): string {
  return `${strategy}${passthrough ? ', served by the kernel' : ''} (${strategyReason})`;
}
