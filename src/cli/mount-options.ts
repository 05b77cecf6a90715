/**
 * The options that `mount` and `run` share, and their way from text to `MountOptions`. What is wrong with them is said
 * here, before anything is touched.
 */

import { availableParallelism } from 'node:os';
import { dirname, extname, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type MountOptions, STORE_STRATEGIES } from '../daemon/options.ts';
import { CONTROL_NAME } from '../fs/control-directory.ts';
import { NAME_MAX_BYTES } from '../fs/node.ts';
import type { CacheMode } from '../fs/options.ts';
import { CowfsError } from '../lib/error.ts';
import { LOG_LEVELS } from '../lib/log-level.ts';
import { parseDuration, parseSize } from '../lib/units.ts';
import { defaultTransport } from '../transport/load.ts';
import { AIO_MODES, type AioMode, CACHE_MODES, TRANSPORT_NAMES, type TransportName } from '../transport/transport.ts';

const MIN_THREADS = 1;
/** More than these only wait. */
const MAX_THREADS = 64;
/** One has the ring; or, without io_uring, on 2 cores: 28k random 4k reads a second with 2 workers, 35k with 3 or 4. */
const DEFAULT_THREADS = Math.min(16, Math.max(4, availableParallelism()));
const DEFAULT_ENOSPC_TIMEOUT = '60s';
/** A file of that ending becomes a disk; one of the first disk's ending, too. */
const DEFAULT_SUFFIX = '.raw';

/** As commander fills it in. */
export interface RawOptions {
  readonly store?: string;
  readonly storeStrategy: MountOptions['storeStrategy'];
  readonly overlay?: string;
  readonly name: string;
  readonly session?: readonly string[];
  readonly empty?: boolean;
  readonly size?: string;
  readonly transport: TransportName | 'auto';
  readonly cache?: CacheMode;
  readonly aio?: AioMode | 'auto';
  readonly threads?: string;
  readonly readOnly?: boolean;
  readonly allowOther?: boolean;
  readonly maxStore?: string;
  readonly maxSessionStore?: string;
  readonly enospcTimeout?: string;
  readonly logFile?: string;
  readonly logLevel: MountOptions['logLevel'];
  readonly trace?: boolean;
  readonly force?: boolean;
}

export function addMountOptions(command: Command): Command {
  return command
    .option(
      '--store <dir>',
      "where written data goes (default: $TMPDIR, else /var/tmp; with --overlay, that file's directory)",
    )
    .addOption(
      new Option(
        '--store-strategy <name>',
        'keep what is written in a sparse file, or in a clone of the base that shares its blocks (reflink); ' +
          'auto: in a clone where the kernel can serve it by itself, else in a sparse file',
      )
        .choices(['auto', ...STORE_STRATEGIES])
        .default('sparse'),
    )
    .option('--overlay <file>', 'keep what is written in this file, made if need be; it is there at the next mount')
    .option('--name <file>', 'name of the disk in the mount', 'disk.raw')
    .option('--size <n[KMGT]>', 'make the disk larger than the base; the rest reads as zeros')
    .addOption(
      new Option(
        '--cache <mode>',
        "the kernel's page cache: keep writes in it, write through it, or bypass it " +
          `(default: ${CACHE_MODES.kernel[0]}; ${CACHE_MODES['fuse-native'][0]} with fuse-native)`,
      ).choices([...CACHE_MODES.kernel]),
    )
    .addOption(
      new Option('--transport <name>', "how to speak to FUSE: the kernel's protocol, or libfuse 2 through fuse-native")
        .choices(['auto', ...TRANSPORT_NAMES])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--aio <mode>',
        'how data is moved: through io_uring, by threads that wait for it, or what the machine has (default: auto)',
      ).choices(['auto', ...AIO_MODES]),
    )
    .option('--threads <n>', `most worker threads, ${MIN_THREADS} to ${MAX_THREADS} (default: ${DEFAULT_THREADS})`)
    .option('--read-only', 'refuse writes')
    .option('--allow-other', 'let other users see and use the disk')
    .option('--max-store <size>', 'most bytes that written data may take; beyond it writes get ENOSPC')
    .option('--max-session-store <size>', 'the same for each disk of the mount')
    .option(
      '--enospc-timeout <time>',
      `how long cached writes wait for room in a full store (default: ${DEFAULT_ENOSPC_TIMEOUT})`,
    )
    .option('--log-file <file>', 'log to a file, as JSON')
    .addOption(
      new Option('--log-level <level>', 'least severe messages to log').choices([...LOG_LEVELS]).default('info'),
    )
    .option('--trace', 'log every request (to --log-file, else standard error)')
    .option('--force', 'go on although the base is in use, or is not as it was when the overlay was made');
}

/**
 * @param mountpoint canonical
 * @throws CowfsError of kind `usage`
 */
export async function toMountOptions(base: string, mountpoint: string, raw: RawOptions): Promise<MountOptions> {
  const { storeDirectory } = await import('../overlay/temp-store.ts');
  const transport = raw.transport === 'auto' ? defaultTransport() : raw.transport;
  if (transport === 'fuse-native') refuseBesideFuseNative(raw);
  return {
    base: resolve(base),
    mountpoint,
    names: parseNames(raw),
    suffixes: [...new Set([DEFAULT_SUFFIX, extname(raw.name)])].filter((suffix) => suffix.length > 1),
    // Beside what is kept, unless said otherwise: then there is one place to have room in.
    storeDirectory: resolve(raw.store ?? (raw.overlay ? dirname(raw.overlay) : storeDirectory(undefined))),
    storeStrategy: raw.storeStrategy,
    transport,
    cacheMode: raw.cache ?? CACHE_MODES[transport][0],
    aio: parseAio(raw),
    threads: transport === 'fuse-native' ? 1 : parseThreads(raw.threads),
    readOnly: raw.readOnly === true,
    allowOther: raw.allowOther === true,
    enospcTimeoutMs: parseDuration(raw.enospcTimeout ?? DEFAULT_ENOSPC_TIMEOUT, '--enospc-timeout'),
    logLevel: raw.trace === true ? 'trace' : raw.logLevel,
    trace: raw.trace === true,
    force: raw.force === true,
    privateMountpoint: false,
    ...(raw.overlay === undefined ? {} : { overlay: await parseOverlay(raw) }),
    ...(raw.size === undefined ? {} : { sizeBytes: parseSize(raw.size, '--size') }),
    ...(raw.maxStore === undefined ? {} : { maxStoreBytes: parseSize(raw.maxStore, '--max-store') }),
    ...(raw.maxSessionStore === undefined
      ? {}
      : { maxSessionStoreBytes: parseSize(raw.maxSessionStore, '--max-session-store') }),
    ...(raw.logFile === undefined ? {} : { logFile: resolve(raw.logFile) }),
  };
}

/** What libfuse 2 cannot do is said, not left out. */
function refuseBesideFuseNative({ cache, aio, threads, enospcTimeout }: RawOptions): void {
  if (cache !== undefined && !CACHE_MODES['fuse-native'].includes(cache)) {
    throw new CowfsError(
      'usage',
      `--cache ${cache}: libfuse 2, under --transport fuse-native, has no write-back cache; give --cache writethrough or none`,
    );
  }
  if (aio !== undefined) {
    throw new CowfsError('usage', '--aio: --transport fuse-native leaves that to libfuse; leave it out');
  }
  if (threads !== undefined) {
    throw new CowfsError('usage', '--threads: --transport fuse-native serves on one thread; leave it out');
  }
  if (enospcTimeout !== undefined) {
    throw new CowfsError('usage', '--enospc-timeout: --transport fuse-native keeps no writes waiting; leave it out');
  }
}

async function parseOverlay({ overlay = '', empty, readOnly }: RawOptions): Promise<string> {
  if (overlay === '') throw new CowfsError('usage', '--overlay: give a file');
  if (empty === true) {
    throw new CowfsError('usage', '--empty makes no disk that --overlay could keep; leave one of them out');
  }
  if (readOnly === true) {
    throw new CowfsError('usage', '--read-only beside --overlay: there is nothing to keep; leave one of them out');
  }
  const { canonicalOverlay } = await import('../overlay/file/open.ts');
  return canonicalOverlay(resolve(overlay));
}

/** A trace is of requests that one thread serves from their start to their end. */
function parseAio({ aio = 'auto', trace, threads }: RawOptions): MountOptions['aio'] {
  if (aio === 'io_uring' && trace === true) {
    throw new CowfsError('usage', '--trace beside --aio io_uring: only threads are traced; leave one of them out');
  }
  if (aio === 'io_uring' && threads === '1') {
    throw new CowfsError('usage', '--threads 1 beside --aio io_uring: what has to wait needs another; give 2 or more');
  }
  return trace === true ? 'threads' : aio;
}

function parseThreads(text = String(DEFAULT_THREADS)): number {
  const threads = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (threads >= MIN_THREADS && threads <= MAX_THREADS) return threads;
  throw new CowfsError('usage', `--threads ${text}: give a number from ${MIN_THREADS} to ${MAX_THREADS}`);
}

/** The disks that are there from the start. */
function parseNames({ name, session = [], empty, readOnly }: RawOptions): string[] {
  if (empty === true) {
    if (session.length > 0) {
      throw new CowfsError('usage', '--empty makes no disk and --session makes one; leave one of them out');
    }
    if (readOnly === true) {
      throw new CowfsError('usage', '--empty beside --read-only: no disk could ever be made; leave one of them out');
    }
    return [];
  }
  const names = [parseName(name, '--name'), ...session.map((each) => parseName(each, '--session'))];
  const twice = names.find((each, index) => names.indexOf(each) !== index);
  if (twice === undefined) return names;
  throw new CowfsError('usage', `${twice} is named twice; give each disk a name of its own`);
}

function parseName(name: string, option: string): string {
  const fits = name !== '' && name !== '.' && name !== '..' && name !== CONTROL_NAME && !/[/\0\n]/.test(name);
  if (fits && Buffer.byteLength(name) <= NAME_MAX_BYTES) return name;
  throw new CowfsError(
    'usage',
    `${option} ${name}: give a file name, without slashes or newlines, of at most ${NAME_MAX_BYTES} bytes`,
  );
}
