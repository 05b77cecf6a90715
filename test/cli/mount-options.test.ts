import { resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { addMountOptions, type RawOptions, toMountOptions } from '../../src/cli/mount-options.ts';
import type { MountOptions } from '../../src/daemon/options.ts';
import { CowfsError } from '../../src/lib/error.ts';

beforeEach(() => {
  vi.stubEnv('TMPDIR', '');
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** The options that a command line makes, with those that only `mount` has. */
async function parse(...args: readonly string[]): Promise<MountOptions> {
  return parseWith({}, ...args);
}

async function parseWith(more: Partial<RawOptions>, ...args: readonly string[]): Promise<MountOptions> {
  const command = addMountOptions(new Command('mount'))
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  command.parse(args, { from: 'user' });
  return toMountOptions('images/base.img', '/mnt/vm', { ...command.opts<RawOptions>(), ...more });
}

async function refusalOf(...args: readonly string[]): Promise<string> {
  return refusalOfWith({}, ...args);
}

async function refusalOfWith(more: Partial<RawOptions>, ...args: readonly string[]): Promise<string> {
  try {
    return `gave ${JSON.stringify(await parseWith(more, ...args))}`;
  } catch (error) {
    if (error instanceof CowfsError) return `${error.kind}: ${error.message}`;
    if (error instanceof CommanderError) return `commander: ${error.message}`;
    throw error;
  }
}

test('nothing given', async () => {
  const { threads, ...rest } = await parse();
  expect(rest).toEqual({
    base: resolve('images/base.img'),
    mountpoint: '/mnt/vm',
    names: ['disk.raw'],
    suffixes: ['.raw'],
    storeDirectory: '/var/tmp',
    storeStrategy: 'sparse',
    transport: 'kernel',
    cacheMode: 'writeback',
    aio: 'auto',
    readOnly: false,
    allowOther: false,
    enospcTimeoutMs: 60_000,
    logLevel: 'info',
    trace: false,
    force: false,
    privateMountpoint: false,
  });
  expect(threads).toBeGreaterThanOrEqual(4);
  expect(threads).toBeLessThanOrEqual(16);
});

test('everything given', async () => {
  const args = [
    ...['--store', 'here', '--name', 'größer disk.qcow2', '--size', '130000', '--cache', 'none', '--threads', '2'],
    ...['--aio', 'io_uring', '--store-strategy', 'auto'],
    ...[
      '--read-only',
      '--allow-other',
      '--max-store',
      '1.5G',
      '--max-session-store',
      '1G',
      '--enospc-timeout',
      '500ms',
    ],
    ...['--log-file', 'log.json', '--log-level', 'debug', '--force'],
  ];
  expect(await parse(...args)).toEqual({
    base: resolve('images/base.img'),
    mountpoint: '/mnt/vm',
    names: ['größer disk.qcow2'],
    suffixes: ['.raw', '.qcow2'],
    storeDirectory: resolve('here'),
    storeStrategy: 'auto',
    sizeBytes: 130_000,
    transport: 'kernel',
    cacheMode: 'none',
    aio: 'io_uring',
    threads: 2,
    readOnly: true,
    allowOther: true,
    maxStoreBytes: 1_610_612_736,
    maxSessionStoreBytes: 1_073_741_824,
    enospcTimeoutMs: 500,
    logFile: resolve('log.json'),
    logLevel: 'debug',
    trace: false,
    force: true,
    privateMountpoint: false,
  });
});

test('--trace logs everything, whatever the level', async () => {
  // Only threads are traced.
  const traced = { trace: true, logLevel: 'trace', aio: 'threads' };
  expect(await parse('--trace', '--log-level', 'error')).toMatchObject(traced);
});

test('TMPDIR is where the store is, unless --store says otherwise', async () => {
  vi.stubEnv('TMPDIR', '/somewhere');
  expect(await parse()).toMatchObject({ storeDirectory: '/somewhere' });
  expect(await parse('--store', '/else')).toMatchObject({ storeDirectory: '/else' });
});

describe('threads', () => {
  test.each(['2', '64', '007'])('%s', async (text) => {
    expect(await parse('--threads', text)).toMatchObject({ threads: Number(text) });
  });

  test.each(['0', '65', '-4', '2.5', 'many', '', '1e1', '0x8'])('%j is no number of them', async (text) => {
    expect(await refusalOf(`--threads=${text}`)).toMatch(/^usage: --threads .*: give a number from \d to 64$/);
  });
});

describe('transports', () => {
  const fuseNative = ['--transport', 'fuse-native'];

  test('auto is the kernel on Linux', async () => {
    expect(await parse('--transport', 'auto')).toMatchObject({ transport: 'kernel', cacheMode: 'writeback' });
  });

  test('auto is fuse-native elsewhere', async () => {
    vi.spyOn(process, 'platform', 'get').mockReturnValue('darwin');
    expect(await parse()).toMatchObject({ transport: 'fuse-native', cacheMode: 'writethrough', threads: 1 });
  });

  test('fuse-native writes through, on one thread', async () => {
    expect(await parse(...fuseNative)).toMatchObject({
      transport: 'fuse-native',
      cacheMode: 'writethrough',
      threads: 1,
    });
  });

  test.each(['writethrough', 'none'])('fuse-native with --cache %s', async (cacheMode) => {
    expect(await parse(...fuseNative, '--cache', cacheMode)).toMatchObject({ cacheMode });
  });

  test.each([
    [['--cache', 'writeback'], /^usage: --cache writeback: libfuse 2.*give --cache writethrough or none$/],
    [['--threads', '4'], /^usage: --threads: .*one thread; leave it out$/],
    [['--enospc-timeout', '4s'], /^usage: --enospc-timeout: .*leave it out$/],
  ])('fuse-native refuses %j', async (args, message) => {
    expect(await refusalOf(...fuseNative, ...args)).toMatch(message);
  });
});

describe('names', () => {
  const longest = 'ä'.repeat(127);

  test.each(['a', '...', '-x', 'disk raw', longest, `${longest}x`])('%j', async (name) => {
    expect(await parse(`--name=${name}`)).toMatchObject({ names: [name] });
  });

  test.each(['', '.', '..', 'a/b', '/', 'a\0b', 'a\nb', `${longest}xy`])('%j is none', async (name) => {
    expect(await refusalOf(`--name=${name}`)).toMatch(/^usage: --name .*of at most 255 bytes$/s);
  });
});

describe('several disks', () => {
  test('the first, and each that is named beside it', async () => {
    const names = ['a.raw', 'größer', 'c.qcow2'];
    expect(await parseWith({ session: names.slice(1) }, '--name=a.raw')).toMatchObject({ names });
  });

  test('none at all', async () => {
    expect(await parseWith({ empty: true })).toMatchObject({ names: [], suffixes: ['.raw'] });
    expect(await refusalOfWith({ empty: true, session: ['a.raw'] })).toMatch(/^usage: --empty .*--session .*leave one/);
  });

  test.each([
    [['disk.raw'], /^usage: disk\.raw is named twice/],
    [['a.raw', 'b.raw', 'a.raw'], /^usage: a\.raw is named twice/],
    [['a/b'], /^usage: --session a\/b: give a file name/],
    [['ok.raw', '.cowfs'], /^usage: --session \.cowfs: give a file name/],
    [[''], /^usage: --session : give a file name/],
  ])('%j is refused', async (session, message) => {
    expect(await refusalOfWith({ session })).toMatch(message);
  });

  test.each([
    ['disk.raw', ['.raw']],
    ['disk.qcow2', ['.raw', '.qcow2']],
    ['disk.tar.img', ['.raw', '.img']],
    ['disk', ['.raw']],
    ['.hidden', ['.raw']],
    ['disk.', ['.raw']],
  ])('beside one named %s, files ending in %j become disks', async (name, suffixes) => {
    expect(await parse(`--name=${name}`)).toMatchObject({ suffixes });
  });
});

test.each([
  [['--size', '1X'], /^usage: --size 1X: not a size/],
  [['--max-session-store', 'few'], /^usage: --max-session-store few: not a size/],
  [['--name', '.cowfs'], /^usage: --name \.cowfs: give a file name/],
  [['--max-store', 'lots'], /^usage: --max-store lots: not a size/],
  [['--enospc-timeout', '1d'], /^usage: --enospc-timeout 1d: not a time/],
  [['--cache', 'magic'], /^commander: .*argument 'magic' is invalid/],
  [['--transport', 'pigeon'], /^commander: .*argument 'pigeon' is invalid/],
  [['--log-level', 'loud'], /^commander: .*argument 'loud' is invalid/],
  [['--nonsense'], /^commander: .*unknown option/],
])('%j', async (args, message) => {
  expect(await refusalOf(...args)).toMatch(message);
});
