/**
 * `cowfs run`: the stateless mode. Mounts in a private place, runs a command on the disk, and discards what it wrote,
 * unless --overlay keeps it, however the command or this process ends.
 */
import type { Command } from 'commander';
import { addMountOptions, type RawOptions, toMountOptions } from './mount-options.ts';

export function registerRun(program: Command): void {
  const command = program
    .command('run')
    .summary('run a command on a disk that is discarded afterwards, or kept')
    .description(
      'Mounts <base> in a private place and runs a command. {} in its arguments becomes the path of the disk, which is ' +
        "also in COWFS_DISK. Ends with the command's exit code (125: cowfs failed, 126 and 127: the command could not run).",
    )
    .argument('<base>', 'a raw disk image or a block device; not written to, but to finish an interrupted commit')
    .argument('<command...>', 'after --: the command and its arguments');
  addMountOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  cowfs run base.img -- qemu-system-x86_64 -drive file={},format=raw
  cowfs run --store /dev/shm base.img -- fsck.ext4 -fy {}
  cowfs run base.img -- sh -c 'mkfs.ext4 "$COWFS_DISK"'`,
    )
    .action(async (base: string, args: string[], raw: RawOptions) => {
      const { runOnDisk } = await import('./run-command.ts');
      await runOnDisk(
        (mountpoint) => toMountOptions(base, mountpoint, raw),
        args,
        program.opts<{ verbose?: boolean }>().verbose === true,
      );
    });
}
