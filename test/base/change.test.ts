import { closeSync, copyFileSync, renameSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { baseChange } from '../../src/base/change.ts';
import { type OpenedBase, openBase } from '../../src/base/open.ts';
import { makeBase, scratch } from '../harness.ts';

function opened(path: string): OpenedBase {
  const base = openBase(path, false);
  onTestFinished(() => closeSync(base.descriptor.fd));
  return base;
}

test('nothing happened', () => {
  expect(baseChange(opened(makeBase(scratch(), 65_519)))).toBe(undefined);
});

test('written to, in place', () => {
  const path = makeBase(scratch(), 65_519);
  utimesSync(path, 1_000_000_000, 1_000_000_000);
  const base = opened(path);
  writeFileSync(path, 'x', { flag: 'r+' });
  expect(baseChange(base)).toBe('it was written to');
});

test('cut shorter', () => {
  const path = makeBase(scratch(), 65_519);
  utimesSync(path, 1_000_000_000, 1_000_000_000);
  const base = opened(path);
  truncateSync(path, 4097);
  expect(baseChange(base)).toBe('size 65519 became 4097, it was written to');
});

test('deleted', () => {
  const path = makeBase(scratch(), 65_519);
  const base = opened(path);
  rmSync(path);
  expect(baseChange(base)).toBe('it was deleted');
});

test('another file stands in its place', () => {
  const directory = scratch();
  const path = makeBase(directory, 65_519);
  const base = opened(path);
  renameSync(path, join(directory, 'old.img'));
  copyFileSync(join(directory, 'old.img'), path);
  expect(baseChange(base)).toBe('its path names another file now');
});

test('renamed: a base that cannot be found has changed, too', () => {
  const directory = scratch();
  const path = makeBase(directory, 65_519);
  const base = opened(path);
  renameSync(path, join(directory, 'old.img'));
  expect(baseChange(base)).toMatch(/no such file or directory/);
});

test('a descriptor that is closed: told of, not thrown', () => {
  const base = openBase(makeBase(scratch(), 4097), false);
  closeSync(base.descriptor.fd);
  expect(baseChange(base)).toMatch(/EBADF/);
});
