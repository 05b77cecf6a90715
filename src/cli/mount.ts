/**
 * `cowfs mount`: starts a daemon and returns when the disk can be opened, or serves in the foreground.
 */
import type { Readable } from 'node:stream';
import type { Command } from 'commander';
import type { MountOptions } from '../daemon/options.ts';
import { FUSE_FD, parseStartReport } from '../daemon/start-report.ts';
import { CowfsError } from '../lib/error.ts';
import { loadAhead } from '../transport/load.ts';
import { spawnDaemon, takeAhead } from './daemon-process.ts';
import { warn } from './exit.ts';
import { addMountOptions, type RawOptions, toMountOptions } from './mount-options.ts';

export function registerMount(program: Command): void {
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
      const options = await locate(base, mountpoint, raw);
      if (raw.foreground === true) {
        await loadAhead(options.transport);
        const { serveForeground } = await import('./foreground.ts');
        await serveForeground(options);
      } else {
        await startDaemon(options);
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

async function startDaemon(options: MountOptions): Promise<void> {
  const { fuseFd, transport } = options;
  const inherited = fuseFd === undefined ? {} : { fuseFd: FUSE_FD };
  // Traces without a file go to the caller's terminal, and keep it open; nothing else of the caller is held.
  const keepsStderr = options.trace && options.logFile === undefined;
  const daemon = takeAhead() ?? spawnDaemon({ transport, fuseFd, keepsStderr });
  const { child, report: reportStream } = daemon;
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (error) =>
      reject(new CowfsError('failed', `the daemon could not start: ${error.message}`, error)),
    );
  });
  // One that is gone already says why in its report, or nothing.
  daemon.options.on('error', () => {});
  daemon.options.end(`${JSON.stringify({ ...options, ...inherited })}\n`);
  const [reportText, errorText] = await Promise.race([
    failed,
    Promise.all([readLine(reportStream), child.stderr === null ? '' : untilReport(child.stderr, reportStream)]),
  ]);
  const report = parseStartReport(reportText === '' ? errorText : reportText);
  if (report.code === 'ERROR') {
    const cause = new Error(report.message);
    cause.stack = report.stack;
    throw new CowfsError(report.kind, report.message, cause);
  }
  for (const warning of report.warnings) warn(warning);
  process.stdout.write(`${report.diskPath}\n`);
  child.stderr?.destroy();
  child.unref();
}

/** The first line of a stream, or nothing if it ends before. */
async function readLine(stream: Readable): Promise<string> {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) {
    text += String(chunk);
    if (text.includes('\n')) break;
  }
  return text.split('\n')[0] ?? '';
}

/** What a daemon that dies at its start says on standard error; once it has reported, nothing more is read. */
function untilReport(stderr: Readable, report: Readable): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    report.once('close', () => resolve(text));
    stderr.once('close', () => resolve(text));
  });
}
