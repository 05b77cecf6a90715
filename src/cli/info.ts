/**
 * `cowfs info`: what an overlay file is.
 */
import { closeSync, existsSync, fstatSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { formatBytes, formatTime } from '../lib/units.ts';
import type { OpenedOverlay } from '../overlay/file/open.ts';
import { formatTable } from './table.ts';

/** What `--json` prints; keys are stable. */
interface OverlayInfo {
  readonly path: string;
  readonly id: string;
  /** Size of the disk in bytes. */
  readonly size: number;
  /** Bytes of blocks that are in the file; null while it is in use. */
  readonly writtenBytes: number | null;
  /** Bytes that the file really takes. */
  readonly storeBytes: number;
  /** Counts what was synced. */
  readonly generation: number;
  /** Whether the last mount ended as it should; a crash loses nothing that was synced. */
  readonly clean: boolean;
  readonly inUse: boolean;
  readonly base: {
    readonly path: string;
    readonly size: number;
    readonly modifiedAt: string;
    readonly fingerprint: string;
    /** How the base differs from what the overlay was made for; null if it does not. */
    readonly changed: string | null;
  };
}

export function registerInfo(program: Command): void {
  program
    .command('info')
    .summary('show what an overlay file is')
    .description('Shows what an overlay file (`cowfs mount --overlay`) has and which base it belongs to.')
    .argument('<overlay>')
    .option('--json', 'one object, for programs')
    .addHelpText(
      'after',
      `
Examples:
  cowfs info vm.cow
  cowfs info vm.cow --json | jq -r .base.path`,
    )
    .action(async (overlay: string, { json }: { json?: boolean }) => {
      const info = await readInfo(resolve(overlay));
      process.stdout.write(json === true ? `${JSON.stringify(info, undefined, 2)}\n` : infoText(info));
    });
}

async function readInfo(path: string): Promise<OverlayInfo> {
  const { openOverlay } = await import('../overlay/file/open.ts');
  const { checkOverlay } = await import('../overlay/file/check.ts');
  let opened: OpenedOverlay;
  let inUse = false;
  try {
    opened = openOverlay(path, 'overlay', 'read');
  } catch (error) {
    if (!(error instanceof CowfsError && error.kind === 'refused')) throw error;
    inUse = true;
    opened = openOverlay(path, 'overlay', 'look');
  }
  const { fd, header } = opened;
  const { base } = header;
  try {
    return {
      path,
      id: Buffer.from(header.id).toString('hex'),
      size: header.diskBytes,
      writtenBytes: inUse ? null : checkOverlay(opened).writtenBytes,
      storeBytes: fstatSync(fd).blocks * 512,
      generation: header.generation,
      clean: header.clean && !inUse,
      inUse,
      base: {
        path: base.path,
        size: base.sizeBytes,
        modifiedAt: formatTime(base.mtimeNs),
        fingerprint: Buffer.from(base.fingerprint).toString('hex'),
        changed: await baseState(opened),
      },
    };
  } finally {
    closeSync(fd);
  }
}

async function baseState({ header }: OpenedOverlay): Promise<string | null> {
  const { openBase } = await import('../base/open.ts');
  const { redoLogPath } = await import('../overlay/commit/log-path.ts');
  if (existsSync(redoLogPath(header.base.path))) {
    return 'a commit into it was interrupted; the next command that opens it finishes that';
  }
  const { identityChange, identityOf } = await import('../overlay/file/identity.ts');
  try {
    const base = openBase(header.base.path, true);
    try {
      return identityChange(header.base, identityOf(base)) ?? null;
    } finally {
      closeSync(base.descriptor.fd);
    }
  } catch (error) {
    return reasonOf(error);
  }
}

function infoText(info: OverlayInfo): string {
  const { base } = info;
  const written = info.writtenBytes === null ? '' : `${formatBytes(info.writtenBytes)}, `;
  const state = info.inUse
    ? 'in use'
    : info.clean
      ? 'closed cleanly'
      : 'not closed cleanly; the next mount puts it in order';
  return formatTable([
    ['overlay', `${info.path} (${info.id})`],
    ['disk', formatBytes(info.size)],
    ['written', `${written}taking ${formatBytes(info.storeBytes)}`],
    ['state', `${state}; synced ${info.generation - 1} times`],
    ['base', `${base.path} (${formatBytes(base.size)})`],
    ['base written', base.modifiedAt],
    ['base changed', base.changed ?? 'no'],
  ]);
}
