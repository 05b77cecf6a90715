import { closeSync, fstatSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { NewFile, openUnnamed } from '../../src/sys/unnamed-file.ts';
import { scratch } from '../harness.ts';

/** As file systems answer that have no files without a name. */
let hasTmpfile = true;

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const openSync: typeof fs.openSync = (path, flags, mode) => {
    if (!hasTmpfile && typeof flags === 'number' && (flags & 0o20000000) !== 0) {
      throw Object.assign(new Error('EOPNOTSUPP: operation not supported, open'), { errno: -95 });
    }
    return fs.openSync(path, flags, mode);
  };
  return { ...fs, openSync };
});

afterEach(() => {
  hasTmpfile = true;
});

for (const kind of ['with files that have no name', 'without'] as const) {
  const use = (): string => {
    hasTmpfile = kind !== 'without';
    return scratch();
  };

  test(`${kind}: an unnamed file has no name, and is its owner's alone`, () => {
    const directory = use();
    const fd = openUnnamed(directory);
    expect(readdirSync(directory)).toEqual([]);
    expect([fstatSync(fd).nlink, fstatSync(fd).mode & 0o777]).toEqual([0, 0o600]);
    closeSync(fd);
  });

  test(`${kind}: a new file appears under its name when it is published`, () => {
    const directory = use();
    const path = join(directory, 'image');
    const file = new NewFile(path, 0o640);
    writeSync(file.fd, 'content');
    expect(readdirSync(directory).includes('image')).toBe(false);
    file.publish(false);
    file.close();
    expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'content']);
    expect(statSync(path).mode & 0o777).toBe(0o640 & ~process.umask());
  });

  test(`${kind}: one that is closed before leaves nothing`, () => {
    const directory = use();
    const file = new NewFile(join(directory, 'image'), 0o600);
    writeSync(file.fd, 'content');
    file.close();
    expect(readdirSync(directory)).toEqual([]);
  });

  test(`${kind}: it takes no other file's place unless it may`, () => {
    const directory = use();
    const path = join(directory, 'image');
    writeFileSync(path, 'old');
    const file = new NewFile(path, 0o600);
    writeSync(file.fd, 'new');
    expect(() => file.publish(false)).toThrow(/^EEXIST/);
    expect(readFileSync(path, 'utf8')).toBe('old');
    file.publish(true);
    file.close();
    expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'new']);
  });

  test(`${kind}: a name that cannot be given is an error, and nothing is left`, () => {
    const directory = use();
    const path = join(directory, 'below', 'image');
    expect(() => new NewFile(path, 0o600)).toThrow(/^ENOENT/);
    expect(readdirSync(directory)).toEqual([]);
  });
}

test('a name as long as can be is replaced, too', () => {
  const path = join(scratch(), 'x'.repeat(255));
  writeFileSync(path, 'old');
  const file = new NewFile(path, 0o600);
  writeSync(file.fd, 'new');
  file.publish(true);
  file.close();
  expect(readFileSync(path, 'utf8')).toBe('new');
});
