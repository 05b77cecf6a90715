import {
  chmodSync,
  closeSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { CowfsError } from '../../src/lib/error.ts';
import { openTempStore, storeDirectory } from '../../src/overlay/temp-store.ts';
import { isRoot, scratch } from '../harness.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('where the store is', () => {
  test.each([
    { option: '/a', tmpdir: '/b', expected: '/a' },
    { option: undefined, tmpdir: '/b', expected: '/b' },
    { option: undefined, tmpdir: '', expected: '/var/tmp' },
  ])('--store $option, TMPDIR=$tmpdir: $expected', ({ option, tmpdir, expected }) => {
    vi.stubEnv('TMPDIR', tmpdir);
    expect(storeDirectory(option)).toBe(expected);
  });
});

test('an empty file of mode 0600 without a name', () => {
  const directory = scratch();
  const fd = openTempStore(directory);
  try {
    const { size, mode, nlink, blocks } = fstatSync(fd);
    expect([size, mode & 0o7777, nlink, blocks]).toEqual([0, 0o600, 0, 0]);
    expect(readdirSync(directory)).toEqual([]);
    expect(readlinkSync(`/proc/self/fd/${fd}`)).toMatch(/ \(deleted\)$/);
  } finally {
    closeSync(fd);
  }
});

function messageOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof CowfsError) return `${error.kind}: ${error.message}`;
  }
  return 'no CowfsError';
}

test('a directory that is none, or missing, or closed to us is named', () => {
  const directory = scratch();
  const file = join(directory, 'file');
  writeFileSync(file, 'x');
  expect(messageOf(() => openTempStore(file))).toBe(`usage: store ${file} is not a directory; give one with --store`);
  const missing = join(directory, 'missing');
  expect(messageOf(() => openTempStore(missing))).toBe(
    `usage: store ${missing}: no such file or directory (ENOENT); give a writable directory with --store`,
  );
  const dangling = join(directory, 'dangling');
  symlinkSync(missing, dangling);
  expect(messageOf(() => openTempStore(dangling))).toContain('ENOENT');
});

test.skipIf(isRoot())('a directory without write permission (only for who is not root)', () => {
  const directory = join(scratch(), 'closed');
  mkdirSync(directory);
  chmodSync(directory, 0o555);
  expect(messageOf(() => openTempStore(directory))).toMatch(/permission denied \(EACCES\)/);
});
