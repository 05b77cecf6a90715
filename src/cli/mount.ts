/**
 * `cowfs mount`: what it takes and means; this process serves the mount.
 */
import type { Command } from 'commander';
import type { MountOptions } from '../daemon/options.ts';
import { CowfsError } from '../lib/error.ts';
import { loadAhead } from '../transport/load.ts';
import type { Launcher } from './launcher.ts';
import { addMountOptions, type RawOptions, toMountOptions } from './mount-options.ts';

export function registerMount(program: Command, launcher: Launcher | undefined): void {
  const command = program
    .command('mount')
    .summary('show a base image as a disk to write to')
    .description(
      'Shows <base> as a virtual raw disk in <mountpoint>. Writes go to a temporary store, which unmounting discards, ' +
        'or with --overlay to a file that keeps them.',
    )
    .argument('<base>', 'a raw disk image or a block device; not written to, but to finish an interrupted commit')
    .argument('<mountpoint>', 'an existing directory')
    .option('--session <name>', 'make another disk beside the first; can be given again', collect)
    .option('--empty', 'make no disk; files that are created in the mount become disks')
    .option('--foreground', 'stay, and log to standard error');
  addMountOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  cowfs mount base.img /mnt/vm
  qemu-system-x86_64 -drive file=/mnt/vm/disk.raw,format=raw
  cowfs mount base.img /mnt/vm --store /dev/shm --max-store 4G
  cowfs mount disk.qcow2 /mnt/vm --name disk.qcow2
  cowfs mount golden.img /mnt/vms --empty && touch /mnt/vms/alice.raw /mnt/vms/bob.raw
  cowfs mount /dev/sdb /mnt/evidence --read-only`,
    )
    .action(async (base: string, mountpoint: string, raw: RawOptions & { foreground?: boolean }) => {
      const inForeground = raw.foreground === true;
      if (launcher === undefined && !inForeground) {
        throw new CowfsError('usage', 'only bin/cowfs can mount in the background; start that, or give --foreground');
      }
      const options = await locate(base, mountpoint, raw);
      await loadAhead(options.transport);
      if (launcher === undefined || inForeground) {
        const { serveForeground } = await import('./foreground.ts');
        await serveForeground(options);
      } else {
        const { serveInBackground } = await import('./background.ts');
        await serveInBackground(options, launcher);
      }
    });
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

async function locate(base: string, givenMountpoint: string, raw: RawOptions): Promise<MountOptions> {
  const { canonicalMountpoint } = await import('../daemon/mountpoint.ts');
  const { checkConnection, handedOverFd, handedOverMountpoint } = await import('../transport/kernel/handed-over.ts');
  const mountpoint = canonicalMountpoint(givenMountpoint);
  const fuseFd = handedOverFd(mountpoint);
  if (fuseFd === undefined) return toMountOptions(base, mountpoint, raw);
  checkConnection(fuseFd);
  const options = await toMountOptions(base, handedOverMountpoint(fuseFd) ?? mountpoint, raw);
  if (options.transport === 'kernel') return { ...options, fuseFd };
  throw new CowfsError(
    'usage',
    `${givenMountpoint}: --transport ${options.transport} cannot take over a mount that a parent made; leave it out`,
  );
}
