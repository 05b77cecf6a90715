/**
 * What libfuse is asked for, by a package that opens the device as libfuse would and mounts nothing: the options, the
 * refusals in words, and mounts that are gone before they are ready.
 */
import { accessSync, closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { CowfsError } from '../../../src/lib/error.ts';
import type { FuseNative } from '../../../src/transport/fuse-native/addon.ts';
import { mountFuseNative } from '../../../src/transport/fuse-native/mount.ts';
import type { MountRequest } from '../../../src/transport/transport.ts';
import { scratch } from '../../harness.ts';

const DEVICE = '/dev/fuse';

beforeEach((context) => {
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK);
  } catch {
    console.log(`skipped: ${context.task.name}: ${DEVICE} cannot be used here`);
    context.skip(`${DEVICE} cannot be used here`);
  }
});

interface FakePackage extends FuseNative {
  /** The connection, once mounted. */
  fd: number | undefined;
}

/** @param outcome what it says of the mount; undefined for nothing at all */
function fakePackage(outcome: Error | null | undefined): FakePackage {
  const fake: FakePackage = {
    fd: undefined,
    _handlers: [],
    _fuseOptions: () => 'none were set',
    mount: (done) => {
      const fd = openSync(DEVICE, 'r+');
      fake.fd = fd;
      onTestFinished(() => closeSync(fd));
      if (outcome !== undefined) done(outcome);
    },
  };
  return fake;
}

function request(change: Partial<MountRequest> = {}): MountRequest {
  return { mountpoint: scratch(), source: '/images/base.img', readOnly: false, allowOther: false, ...change };
}

async function optionsOf(change: Partial<MountRequest>, cacheMode: 'writethrough' | 'none' = 'writethrough') {
  const fake = fakePackage(null);
  expect(await mountFuseNative(fake, request(change), cacheMode)).toBe(fake.fd);
  return fake._fuseOptions();
}

/** What is thrown, with nothing mounted and no connection opened. */
async function refusalOf(change: Partial<MountRequest>): Promise<string> {
  const fake = fakePackage(null);
  const error: unknown = await mountFuseNative(fake, request(change), 'writethrough').catch(
    (reason: unknown) => reason,
  );
  expect(fake.fd).toBe(undefined);
  return error instanceof CowfsError ? `${error.kind}: ${error.message}` : String(error);
}

const COMMON = 'default_permissions,big_writes,max_write=131072,use_ino,atomic_o_trunc';
const CACHED = 'auto_cache,ac_attr_timeout=0.001';

describe('options', () => {
  test('one word, so that nothing is split on its way', async () => {
    expect(await optionsOf({})).toBe(`-ofsname=/images/base.img,subtype=cowfs,${COMMON},${CACHED}`);
  });

  test.each<[Partial<MountRequest>, 'writethrough' | 'none', string]>([
    [{}, 'none', 'direct_io'],
    [{ readOnly: true }, 'writethrough', `${CACHED},ro`],
    [{ allowOther: true }, 'writethrough', `${CACHED},allow_other`],
    [{ readOnly: true, allowOther: true }, 'none', 'direct_io,ro,allow_other'],
  ])('%j with cache %s: %s', async (change, cacheMode, last) => {
    expect(await optionsOf(change, cacheMode)).toBe(`-ofsname=/images/base.img,subtype=cowfs,${COMMON},${last}`);
  });

  test.each([
    ['/a,b', '/a\\,b'],
    ['/a\\b', '/a\\\\b'],
    ['/a,allow_other,b', '/a\\,allow_other\\,b'],
    ['/trailing\\', '/trailing\\\\'],
    ['/a b "c" \'d\' $HOME größer', '/a b "c" \'d\' $HOME größer'],
  ])('a base %s is %s there, and adds no option', async (source, escaped) => {
    expect(await optionsOf({ source })).toBe(`-ofsname=${escaped},subtype=cowfs,${COMMON},${CACHED}`);
  });
});

describe('refused in words', () => {
  test('a base whose path does not fit, counted in bytes as it is passed', async () => {
    const room = 1024 - `fsname=,subtype=cowfs,${COMMON},${CACHED}`.length;
    // `-o` and the NUL take three.
    const longest = `/${'x'.repeat(room - 4)}`;
    expect(Buffer.byteLength(await optionsOf({ source: longest }))).toBe(1023);
    for (const source of [`${longest}x`, `/${'ü'.repeat(room / 2)}`, `/${','.repeat(room / 2)}`]) {
      expect(await refusalOf({ source })).toMatch(/^usage: base \/.*too long for fuse-native; use --transport kernel$/);
    }
  });

  test('a mountpoint whose path does not fit, counted in bytes', async () => {
    const long = Array.from({ length: 5 }, () => 'ü'.repeat(120)).reduce((path, name) => {
      mkdirSync(join(path, name));
      return join(path, name);
    }, scratch());
    expect(await refusalOf({ mountpoint: long })).toMatch(
      /^usage: mountpoint .*at most 1023 bytes; mount on a shorter path$/,
    );
  });

  test('a mountpoint that is a mount', async () => {
    expect(await refusalOf({ mountpoint: '/proc' })).toMatch(
      /^usage: mountpoint \/proc is a mount of its own.*inside it$/,
    );
  });
});

test('a mount that is gone before the package says a word is told, not waited for', async () => {
  // The device is not mounted, which looks like one whose mount is gone.
  const mounted = mountFuseNative(fakePackage(undefined), request(), 'writethrough');
  await expect(mounted).rejects.toThrow(/was unmounted before it was ready/);
});
