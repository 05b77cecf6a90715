import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type OpenedBase, openBase } from '../../src/base/open.ts';
import { CowfsError } from '../../src/lib/error.ts';
import { lockHeldByOther, lockShared } from '../../src/sys/libc.ts';
import { isRoot, makeBase, scratch } from '../harness.ts';

function opened(path: string, force = false): OpenedBase {
  const base = openBase(path, force);
  onTestFinished(() => closeSync(base.descriptor.fd));
  return base;
}

function refusalOf(path: string): string {
  try {
    opened(path);
  } catch (error) {
    if (error instanceof CowfsError) return `${error.kind}: ${error.message}`;
    throw error;
  }
  return 'none';
}

test('a raw file, by its canonical path', () => {
  const directory = scratch();
  const path = makeBase(directory, 65_519);
  const link = join(directory, 'link.img');
  symlinkSync(path, link);
  const base = opened(link);
  expect(base).toMatchObject({ path, kind: 'file', warnings: [] });
  expect(base.descriptor).toMatchObject({ sizeBytes: 65_519, hasHoles: true });
  expect(base.stats.size).toBe(65_519);
  expect(readSync(base.descriptor.fd, Buffer.alloc(10), 0, 10, 65_510)).toBe(9);
  // Open for reading only.
  expect(execFileSync('cat', [`/proc/${process.pid}/fdinfo/${base.descriptor.fd}`], { encoding: 'utf8' })).toMatch(
    /^flags:\s+0*[0-7]*0$/m,
  );
});

test('it stays locked for as long as it is open', () => {
  const path = makeBase(scratch(), 4097);
  opened(path);
  const other = openSync(path, 'r');
  onTestFinished(() => closeSync(other));
  expect(lockHeldByOther(other, 201, 1)).toBe(1);
});

test('a container is shown, with a warning', () => {
  const path = join(scratch(), 'disk.qcow2');
  writeFileSync(path, Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(500)]));
  expect(opened(path).warnings).toEqual([expect.stringContaining('is qcow2, not raw')]);
});

describe('what cannot be a base', () => {
  test.each<[string, make: (path: string) => void, message: (path: string) => string]>([
    ['nothing there', () => {}, (path) => `usage: base ${path}: no such file or directory (ENOENT); check the path`],
    [
      'a directory',
      (path) => mkdirSync(path),
      (path) => `usage: base ${path} is a directory; give a raw disk image or a block device`,
    ],
    [
      'a FIFO, which must not be waited for',
      (path) => execFileSync('mkfifo', [path]),
      (path) => `usage: base ${path} is a FIFO; give a raw disk image or a block device`,
    ],
    [
      'an empty file',
      (path) => writeFileSync(path, ''),
      (path) => `usage: ${path} is empty; give an image with content, or make one: truncate -s 1G ${path}`,
    ],
  ])('%s', (_, make, message) => {
    const path = join(scratch(), 'base.img');
    make(path);
    expect(refusalOf(path)).toBe(message(path));
  });

  test('a character device', () => {
    expect(refusalOf('/dev/null')).toBe(
      'usage: base /dev/null is neither a file nor a block device; give a raw disk image or a block device',
    );
  });

  test('a dangling link', () => {
    const path = join(scratch(), 'base.img');
    symlinkSync('nowhere', path);
    expect(refusalOf(path)).toMatch(/^usage: base .* \(ENOENT\); check the path$/);
  });

  test.skipIf(isRoot())('a file that this user may not read (only for who is not root)', () => {
    const path = makeBase(scratch(), 4097);
    chmodSync(path, 0);
    expect(refusalOf(path)).toMatch(/permission denied \(EACCES\); it must be readable for this user$/);
  });

  test('one that is written to, and nothing is left open', () => {
    const path = makeBase(scratch(), 4097);
    const writer = openSync(path, 'r');
    onTestFinished(() => closeSync(writer));
    lockShared(writer, 101, 1);
    const before = readdirSync('/proc/self/fd').length;
    expect(refusalOf(path)).toMatch(/^refused: .* is in use for writing/);
    expect(readdirSync('/proc/self/fd').length).toBe(before);
    expect(opened(path, true).warnings).toHaveLength(1);
  });
});

test('a sparse base of 8 TiB is opened as any other', () => {
  const path = join(scratch(), 'large.img');
  writeFileSync(path, 'x');
  truncateSync(path, 2 ** 43);
  expect(opened(path).descriptor.sizeBytes).toBe(2 ** 43);
});
