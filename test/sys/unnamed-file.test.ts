import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { EINVAL, EPERM, OK } from '../../src/lib/errno.ts';
import { lockExclusive } from '../../src/sys/libc.ts';
import { NewFile, openUnnamed } from '../../src/sys/unnamed-file.ts';
import { scratch } from '../harness.ts';

/** What the file system under the tests can do. */
interface Abilities {
  /** Files that have no name (O_TMPFILE). */
  readonly unnamed: boolean;
  readonly links: boolean;
  /** Renaming without replacing, in one step (renameat2). */
  readonly noReplace: boolean;
}

const ALL: Abilities = { unnamed: true, links: true, noReplace: true };
const KINDS: Readonly<Record<string, Abilities>> = {
  'with files that have no name': ALL,
  without: { ...ALL, unnamed: false },
  'without those and hard links': { ...ALL, unnamed: false, links: false },
  'without those, hard links and renameat2': { unnamed: false, links: false, noReplace: false },
};

let can = ALL;
/** Called once, before the next rename(2), with the old name. */
let beforeRename: ((from: string) => void) | undefined;
/** Called once, after the next file was made with a name aside. */
let afterAside: ((path: string) => void) | undefined;

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const openSync: typeof fs.openSync = (path, flags, mode) => {
    if (!can.unnamed && typeof flags === 'number' && (flags & 0o20000000) !== 0) {
      throw Object.assign(new Error('EOPNOTSUPP: operation not supported, open'), { errno: -95 });
    }
    const fd = fs.openSync(path, flags, mode);
    if (typeof flags === 'number' && (flags & fs.constants.O_EXCL) !== 0) {
      const then = afterAside;
      afterAside = undefined;
      then?.(String(path));
    }
    return fd;
  };
  const renameSync: typeof fs.renameSync = (from, to) => {
    const before = beforeRename;
    beforeRename = undefined;
    before?.(String(from));
    fs.renameSync(from, to);
  };
  return { ...fs, openSync, renameSync };
});

vi.mock('../../src/sys/libc.ts', async (original) => {
  const libc = await original<typeof import('../../src/sys/libc.ts')>();
  const linkDescriptor: typeof libc.linkDescriptor = (fd, path) => {
    // The kernel looks whether the name is taken before it asks the file system (do_linkat).
    if (can.links || existsSync(path)) return libc.linkDescriptor(fd, path);
    return EPERM;
  };
  const renameNoReplace: typeof libc.renameNoReplace = (from, to) =>
    can.noReplace ? libc.renameNoReplace(from, to) : EINVAL;
  return { ...libc, linkDescriptor, renameNoReplace };
});

afterEach(() => {
  can = ALL;
  beforeRename = undefined;
  afterAside = undefined;
});

function written(path: string, content: string): NewFile {
  const file = new NewFile(path, 0o600);
  writeSync(file.fd, content);
  return file;
}

/** Leaves behind what somebody leaves who is killed just before his file takes the place of another. */
function killedBeforeRename(path: string): string {
  if (!existsSync(path)) writeFileSync(path, 'old');
  const file = written(path, '');
  let left = '';
  beforeRename = (from) => {
    left = from;
    throw new Error('killed');
  };
  expect(() => file.publish(true)).toThrow('killed');
  file.close();
  // One that lives on tidies up.
  writeFileSync(left, 'of somebody who was killed');
  return left;
}

for (const [kind, abilities] of Object.entries(KINDS)) {
  const use = (): string => {
    can = abilities;
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

  test(`${kind}: two that take the same place at once both do`, () => {
    const directory = use();
    const path = join(directory, 'image');
    writeFileSync(path, 'old');
    const [one, other] = [written(path, 'one'), written(path, 'other')];
    beforeRename = () => other.publish(true);
    one.publish(true);
    one.close();
    other.close();
    expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'one']);
  });

  test(`${kind}: two that make the same file at once: the second may not`, () => {
    const directory = use();
    const path = join(directory, 'image');
    const [one, other] = [written(path, 'one'), written(path, 'other')];
    one.publish(false);
    expect(() => other.publish(false)).toThrow(/^EEXIST: [^\n]*image/);
    one.close();
    other.close();
    expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'one']);
  });

  test(`${kind}: a name that goes in the last moment is an error of its own, and the descriptor is closed`, () => {
    const directory = use();
    const path = join(directory, 'image');
    writeFileSync(path, 'old');
    const file = written(path, 'new');
    beforeRename = (from) => rmSync(from);
    expect(() => file.publish(true)).toThrow(/^ENOENT: [^\n]*image/);
    file.close();
    expect(() => fstatSync(file.fd)).toThrow(/^EBADF/);
    expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'old']);
  });

  test(`${kind}: what somebody left who was killed, the next of that name sweeps, and nothing else`, () => {
    const directory = use();
    const path = join(directory, 'image');
    const left = killedBeforeRename(path);
    const others = ['image.copy', '.image.txt', '.image.cowfs-new', `.image.x.${'0'.repeat(16)}.cowfs-new`];
    for (const name of others) writeFileSync(join(directory, name), '');
    written(join(directory, 'image2'), '').close();
    expect(existsSync(left)).toBe(true);
    written(path, 'new').close();
    expect(readdirSync(directory).sort()).toEqual(['image', ...others].sort());
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  test(`${kind}: what somebody works on nobody sweeps`, () => {
    const directory = use();
    const path = join(directory, 'image');
    const left = killedBeforeRename(path);
    const fd = openSync(left, 'r+');
    expect(lockExclusive(fd, 0, 1)).toBe(OK);
    const [one, other] = [written(path, 'one'), written(path, 'other')];
    expect(existsSync(left)).toBe(true);
    beforeRename = () => written(path, 'a third').close();
    one.publish(true);
    one.close();
    other.close();
    expect(readFileSync(path, 'utf8')).toBe('one');
    closeSync(fd);
    written(path, 'new').close();
    expect(readdirSync(directory)).toEqual(['image']);
  });

  test.each([
    ['long', 'x'.repeat(255)],
    ['of wide characters', `${'漢'.repeat(83)}.img`],
    ['of the widest', '\u{1f9ea}'.repeat(63)],
  ])(`${kind}: a name as long as can be, %s, is made, and replaced`, (_, name) => {
    const directory = use();
    const path = join(directory, name);
    for (const [content, replace] of [
      ['old', false],
      ['new', true],
    ] as const) {
      const file = written(path, content);
      file.publish(replace);
      file.close();
      expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([[name], content]);
    }
    const left = killedBeforeRename(path);
    written(path, '').close();
    expect(existsSync(left)).toBe(false);
  });
}

test('a sweep that comes between making a file and locking it: another is made', () => {
  can = { ...ALL, unnamed: false };
  const directory = scratch();
  const path = join(directory, 'image');
  let swept = '';
  afterAside = (aside) => {
    swept = aside;
    written(path, '').close();
  };
  const file = written(path, 'content');
  expect(existsSync(swept)).toBe(false);
  file.publish(false);
  file.close();
  expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'content']);
});

test('a sweep that holds the lock just then: another is made', () => {
  can = { ...ALL, unnamed: false };
  const directory = scratch();
  const path = join(directory, 'image');
  afterAside = (aside) => {
    const fd = openSync(aside, 'r+');
    onTestFinished(() => closeSync(fd));
    expect(lockExclusive(fd, 0, 1)).toBe(OK);
    rmSync(aside);
  };
  const file = written(path, 'content');
  file.publish(false);
  file.close();
  expect([readdirSync(directory), readFileSync(path, 'utf8')]).toEqual([['image'], 'content']);
});
