/**
 * Names as `CowFs` has them: made, moved, removed and listed, and what lives on without one.
 */
import { constants as fsConstants, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import { KIND } from '../../src/fs/inodes.ts';
import type { NodeId } from '../../src/fs/node.ts';
import { type FsFixture, useFs } from '../fuse/server-fixture.ts';
import { scratch } from '../harness.ts';
import { difference } from '../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const { EEXIST, EILSEQ, EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EROFS } = constants.errno;
const { O_RDONLY, O_RDWR, O_TRUNC } = fsConstants;
const [NOREPLACE, EXCHANGE, WHITEOUT] = [1, 2, 4];
const ROOT = 1 as NodeId;
const DISK = 2 as NodeId;
const FILE = { mode: 0o640, uid: 7, gid: 8 };
const content = nonZeroBytes(5000, 1);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_250 });
});

afterEach(() => {
  vi.useRealTimers();
});

function newFs(options: Parameters<typeof useFs>[1] = {}): FsFixture {
  return useFs({ directory: scratch(), content }, options);
}

function create(fs: CowFs, name: string, parent = ROOT): NodeId {
  expect(fs.create(parent, name, FILE, O_RDWR)).toBe(0);
  return fs.attributes.node;
}

function makeDirectory(fs: CowFs, name: string): NodeId {
  expect(fs.makeDirectory(ROOT, name, { mode: 0o755, uid: 7, gid: 8 })).toBe(0);
  return fs.attributes.node;
}

function namesIn(fs: CowFs, node: NodeId): string[] {
  return (fs.list(node, 0, Number.POSITIVE_INFINITY) ?? []).map(({ name }) => name).slice(2);
}

function contentOf(fs: CowFs, node: NodeId): Buffer {
  const bytes = Buffer.alloc(6000);
  expect(fs.read(node, 0, 6000, bytes, 0)).toBe(0);
  return bytes.subarray(0, fs.transferred);
}

function nlink(fs: CowFs, node: NodeId): number {
  expect(fs.getAttributes(node)).toBe(0);
  return fs.attributes.nlink;
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

describe('making a disk', () => {
  test('gives one of the base’s content, of whom makes it', () => {
    const { fs } = newFs();
    const node = create(fs, 'new.raw');
    expect(fs.attributes).toMatchObject({ node, mode: 0o100640, nlink: 1, uid: 7, gid: 8, sizeBytes: 5000, blocks: 8 });
    expect(fs.attributes).toMatchObject({ atimeSeconds: 1_700_000_000, mtimeNanoseconds: 250_000_000 });
    expect(difference(contentOf(fs, node), content)).toBe(undefined);
    expect(fs.write(node, 0, 3, Buffer.from('abc'), 0)).toBe(0);
    expect(difference(contentOf(fs, DISK), content)).toBe(undefined);
    expect([namesIn(fs, ROOT), fs.nameOf(node)]).toEqual([['disk.raw', 'new.raw'], 'new.raw']);
    // The directory has changed.
    fs.getAttributes(ROOT);
    expect([fs.attributes.mtimeSeconds, fs.attributes.mtimeNanoseconds]).toEqual([1_700_000_000, 250_000_000]);
  });

  test('that is to be truncated is empty, and as large as it is asked to be where a disk is larger than the base', () => {
    const { fs } = newFs({ diskBytes: 9000 });
    expect(fs.create(ROOT, 'empty.raw', FILE, O_RDWR | O_TRUNC)).toBe(0);
    expect([fs.attributes.sizeBytes, fs.attributes.blocks]).toEqual([0, 0]);
    const node = create(fs, 'large.img');
    expect([fs.attributes.sizeBytes, fs.read(node, 4000, 6000, Buffer.alloc(6000), 0), fs.transferred]).toEqual([
      9000, 0, 5000,
    ]);
  });

  test.each([
    ['a name that is taken', 'disk.raw', EEXIST],
    ['another ending', 'disk.qcow2', EPERM],
    ['no ending', 'raw', EPERM],
    ['256 bytes', `${'x'.repeat(252)}.raw`, ENAMETOOLONG],
    ['256 bytes in fewer characters', `${'ä'.repeat(126)}.raw`, ENAMETOOLONG],
    ['what was no UTF-8', 'a\ufffd.raw', EILSEQ],
    ['a slash', 'a/b.raw', EINVAL],
  ])('%s is refused', (_, name, errno) => {
    const { fs } = newFs();
    const before = fs.sessions.memoryBytes;
    expect(fs.create(ROOT, name, FILE, O_RDWR)).toBe(errno);
    expect([fs.inodes.count, fs.sessions.memoryBytes]).toEqual([2, before]);
  });

  test('of 255 bytes is fine', () => {
    const { fs } = newFs();
    const name = `${'ä'.repeat(125)}x.raw`;
    expect(Buffer.byteLength(name)).toBe(255);
    const node = create(fs, name);
    expect([fs.lookup(ROOT, name), fs.attributes.node, fs.nameOf(node)]).toEqual([0, node, name]);
    expect(fs.lookup(ROOT, `${name}x`)).toBe(ENAMETOOLONG);
  });

  test('in what is no directory, or none any more', () => {
    const { fs } = newFs();
    const directory = makeDirectory(fs, 'd');
    fs.remember(directory);
    expect(fs.removeDirectory(ROOT, 'd')).toBe(0);
    expect([directory, DISK, 99].map((node) => fs.create(node as NodeId, 'a.raw', FILE, 0))).toEqual([
      ENOENT,
      ENOTDIR,
      ENOENT,
    ]);
  });

  test('of any name where `.cowfs` is: not there', () => {
    const { fs } = newFs({ suffixes: ['.raw', '.cowfs'] });
    expect(fs.create(ROOT, '.cowfs', FILE, 0)).toBe(EEXIST);
    expect(fs.makeDirectory(ROOT, '.cowfs', FILE)).toBe(EEXIST);
    expect(fs.rename(ROOT, 'disk.raw', ROOT, '.cowfs', 0)).toBe(EEXIST);
    expect([fs.remove(ROOT, '.cowfs'), fs.removeDirectory(ROOT, '.cowfs')]).toEqual([EPERM, EPERM]);
    const directory = makeDirectory(fs, 'd');
    expect(fs.create(directory, '.cowfs', FILE, 0)).toBe(0);
  });
});

describe('directories', () => {
  test('are one level, counted as links of the root, and go only when they are empty', () => {
    const { fs } = newFs();
    expect(nlink(fs, ROOT)).toBe(2);
    const directory = makeDirectory(fs, 'd');
    expect(fs.attributes).toMatchObject({ mode: 0o040755, nlink: 2, uid: 7, gid: 8, sizeBytes: 0 });
    expect(nlink(fs, ROOT)).toBe(3);
    expect(fs.makeDirectory(directory, 'deeper', FILE)).toBe(EPERM);
    expect([fs.makeDirectory(ROOT, 'd', FILE), fs.makeDirectory(ROOT, 'disk.raw', FILE)]).toEqual([EEXIST, EEXIST]);
    const node = create(fs, 'a.raw', directory);
    expect([fs.nameOf(node), namesIn(fs, directory)]).toEqual(['d/a.raw', ['a.raw']]);
    expect([fs.removeDirectory(ROOT, 'd'), fs.remove(ROOT, 'd')]).toEqual([ENOTEMPTY, EISDIR]);
    expect(fs.removeDirectory(ROOT, 'disk.raw')).toBe(ENOTDIR);
    expect([fs.remove(directory, 'a.raw'), fs.removeDirectory(ROOT, 'd')]).toEqual([0, 0]);
    expect([nlink(fs, ROOT), fs.inodes.count, fs.getAttributes(directory)]).toEqual([2, 2, ENOENT]);
  });

  test('that are removed while they are known have no links, and are there until they are forgotten', () => {
    const { fs } = newFs();
    const directory = makeDirectory(fs, 'd');
    fs.remember(directory);
    expect(fs.removeDirectory(ROOT, 'd')).toBe(0);
    expect([nlink(fs, directory), namesIn(fs, directory)]).toEqual([0, []]);
    fs.forget(directory, 1);
    expect([fs.getAttributes(directory), fs.list(directory, 0, 9)]).toEqual([ENOENT, undefined]);
  });
});

describe('removing a disk', () => {
  test('that nobody knows gives everything back at once', () => {
    const { fs } = newFs();
    const [memory, descriptors] = [fs.sessions.memoryBytes, openDescriptors()];
    const node = create(fs, 'a.raw');
    fs.write(node, 0, 5000, content, 0);
    expect(openDescriptors()).toBe(descriptors + 1);
    expect(fs.remove(ROOT, 'a.raw')).toBe(0);
    expect([fs.sessions.memoryBytes, openDescriptors(), fs.sessions.occupiedBytes]).toEqual([memory, descriptors, 0]);
    expect([fs.getAttributes(node), fs.inodes.kind(node), fs.inodes.count]).toEqual([ENOENT, KIND.FREE, 2]);
    expect(fs.remove(ROOT, 'a.raw')).toBe(ENOENT);
  });

  test.each([
    ['open, and forgotten first', 'forget', 'release'],
    ['open, and forgotten last', 'release', 'forget'],
  ] as const)('that is %s lives until then', (_, first, last) => {
    const { fs } = newFs();
    const descriptors = openDescriptors();
    const node = create(fs, 'a.raw');
    for (let known = 0; known < 3; known++) fs.remember(node);
    expect(fs.open(node, O_RDWR)).toBe(0);
    fs.write(node, 0, 3, Buffer.from('abc'), 0);
    expect(fs.remove(ROOT, 'a.raw')).toBe(0);
    const end = { forget: () => fs.forget(node, 2), release: () => fs.release(node, O_RDWR) };
    fs.forget(node, 1);
    end[first]();
    expect([nlink(fs, node), fs.lookup(ROOT, 'a.raw'), fs.nameOf(node)]).toEqual([0, ENOENT, 'a.raw']);
    expect(contentOf(fs, node).subarray(0, 3).toString()).toBe('abc');
    fs.write(node, 3, 1, Buffer.from('d'), 0);
    end[last]();
    expect([fs.getAttributes(node), openDescriptors()]).toEqual([ENOENT, descriptors]);
    expect(fs.read(node, 0, 1, Buffer.alloc(1), 0)).toBe(EIO);
  });

  test('another one takes its node, and is seen as another by every thread', () => {
    const { fs, another } = newFs();
    const other = another();
    const node = create(fs, 'a.raw');
    other.write(node, 0, 3, Buffer.from('abc'), 0);
    expect(fs.remove(ROOT, 'a.raw')).toBe(0);
    expect(create(fs, 'b.raw')).toBe(node);
    expect(difference(contentOf(other, node), content)).toBe(undefined);
    expect(difference(contentOf(fs, node), content)).toBe(undefined);
    other.remove(ROOT, 'b.raw');
    expect([fs.getAttributes(node), other.getAttributes(node)]).toEqual([ENOENT, ENOENT]);
  });

  test('a new one of the same name while the old one is open is another disk', () => {
    const { fs } = newFs();
    fs.remember(DISK);
    fs.write(DISK, 0, 3, Buffer.from('abc'), 0);
    expect(fs.remove(ROOT, 'disk.raw')).toBe(0);
    const node = create(fs, 'disk.raw');
    expect(node).not.toBe(DISK);
    expect(difference(contentOf(fs, node), content)).toBe(undefined);
    expect(contentOf(fs, DISK).subarray(0, 3).toString()).toBe('abc');
  });
});

describe('renaming', () => {
  test('moves a name, into a directory and out, and the file stays what it is', () => {
    const { fs } = newFs();
    const directory = makeDirectory(fs, 'd');
    fs.write(DISK, 0, 3, Buffer.from('abc'), 0);
    expect(fs.rename(ROOT, 'disk.raw', directory, 'any name', 0)).toBe(0);
    expect([namesIn(fs, ROOT), namesIn(fs, directory), fs.nameOf(DISK)]).toEqual([['d'], ['any name'], 'd/any name']);
    expect(contentOf(fs, DISK).subarray(0, 3).toString()).toBe('abc');
    expect(fs.rename(directory, 'any name', ROOT, 'disk.raw', NOREPLACE)).toBe(0);
    expect([namesIn(fs, ROOT), nlink(fs, DISK)]).toEqual([['d', 'disk.raw'], 1]);
    expect(fs.rename(ROOT, 'd', ROOT, 'e', 0)).toBe(0);
    expect([namesIn(fs, ROOT), nlink(fs, ROOT)]).toEqual([['disk.raw', 'e'], 3]);
  });

  test('over another disk ends that one, unless it is still known', () => {
    const { fs } = newFs();
    const [one, two] = [create(fs, 'one.raw'), create(fs, 'two.raw')];
    fs.remember(two);
    expect(fs.rename(ROOT, 'disk.raw', ROOT, 'one.raw', 0)).toBe(0);
    expect([fs.getAttributes(one), fs.lookup(ROOT, 'one.raw'), fs.attributes.node]).toEqual([ENOENT, 0, DISK]);
    expect(fs.rename(ROOT, 'one.raw', ROOT, 'two.raw', 0)).toBe(0);
    expect([nlink(fs, two), fs.lookup(ROOT, 'two.raw'), fs.attributes.node]).toEqual([0, 0, DISK]);
    expect(namesIn(fs, ROOT)).toEqual(['two.raw']);
  });

  test('to its own name is nothing', () => {
    const { fs } = newFs();
    expect(fs.rename(ROOT, 'disk.raw', ROOT, 'disk.raw', 0)).toBe(0);
    expect([namesIn(fs, ROOT), nlink(fs, DISK)]).toEqual([['disk.raw'], 1]);
  });

  test('exchanges two, of whatever kind', () => {
    const { fs } = newFs();
    const directory = makeDirectory(fs, 'd');
    const inside = create(fs, 'a.raw', directory);
    expect(fs.rename(ROOT, 'disk.raw', directory, 'a.raw', EXCHANGE)).toBe(0);
    expect([fs.nameOf(DISK), fs.nameOf(inside)]).toEqual(['d/a.raw', 'disk.raw']);
    expect(fs.rename(ROOT, 'd', ROOT, 'disk.raw', EXCHANGE)).toBe(0);
    expect([fs.nameOf(directory), fs.nameOf(inside), fs.nameOf(DISK)]).toEqual(['disk.raw', 'd', 'disk.raw/a.raw']);
    expect(nlink(fs, ROOT)).toBe(3);
    expect(fs.rename(ROOT, 'd', ROOT, 'none', EXCHANGE)).toBe(ENOENT);
    // A directory would come to lie in a directory.
    expect(fs.rename(directory, 'a.raw', ROOT, 'disk.raw', EXCHANGE)).toBe(EPERM);
  });

  test.each<[string, from: string, into: 'root' | 'd' | 'disk' | 'none', to: string, flags: number, errno: number]>([
    ['what is not there', 'none', 'root', 'x', 0, ENOENT],
    ['over what is there, where that is not to be', 'disk.raw', 'root', 'd', NOREPLACE, EEXIST],
    ['a disk over a directory', 'disk.raw', 'root', 'd', 0, EISDIR],
    ['a directory over a disk', 'd', 'root', 'disk.raw', 0, ENOTDIR],
    ['a directory over one that is not empty', 'e', 'root', 'd', 0, ENOTEMPTY],
    ['a directory into one', 'e', 'd', 'e', 0, EPERM],
    ['into a disk', 'e', 'disk', 'x', 0, ENOTDIR],
    ['into nothing', 'e', 'none', 'x', 0, ENOENT],
    ['to a name of 256 bytes', 'disk.raw', 'root', 'x'.repeat(256), 0, ENAMETOOLONG],
    ['to what is no UTF-8', 'disk.raw', 'root', '\ufffd', 0, EILSEQ],
    ['with a whiteout', 'disk.raw', 'root', 'x', WHITEOUT, EINVAL],
    ['with a flag that is none', 'disk.raw', 'root', 'x', 0x8000_0000, EINVAL],
  ])('%s is refused, and nothing moves', (_, from, into, to, flags, errno) => {
    const { fs } = newFs();
    const directory = makeDirectory(fs, 'd');
    create(fs, 'a.raw', directory);
    makeDirectory(fs, 'e');
    const parent = { root: ROOT, d: directory, disk: DISK, none: 99 as NodeId }[into];
    expect(fs.rename(ROOT, from, parent, to, flags)).toBe(errno);
    expect([namesIn(fs, ROOT), namesIn(fs, directory), fs.inodes.count]).toEqual([
      ['disk.raw', 'd', 'e'],
      ['a.raw'],
      5,
    ]);
  });

  test('an empty directory makes room for another', () => {
    const { fs } = newFs();
    const [one, two] = [makeDirectory(fs, 'one'), makeDirectory(fs, 'two')];
    expect(fs.rename(ROOT, 'one', ROOT, 'two', 0)).toBe(0);
    expect([fs.nameOf(one), fs.getAttributes(two), nlink(fs, ROOT)]).toEqual(['two', ENOENT, 3]);
  });
});

test('where it is read-only, nothing is made, moved or removed', () => {
  const { fs } = newFs({ readOnly: true });
  expect([
    fs.create(ROOT, 'a.raw', FILE, O_RDONLY),
    fs.makeDirectory(ROOT, 'd', FILE),
    fs.remove(ROOT, 'disk.raw'),
    fs.removeDirectory(ROOT, 'd'),
    fs.rename(ROOT, 'disk.raw', ROOT, 'a.raw', 0),
  ]).toEqual([EROFS, EROFS, EROFS, EROFS, EROFS]);
  expect(namesIn(fs, ROOT)).toEqual(['disk.raw']);
});

test('what nobody was told of is forgotten in vain', () => {
  const { fs } = newFs();
  for (const node of [0, 3, 99, 2 ** 32 + 1, Number.POSITIVE_INFINITY] as NodeId[]) {
    fs.remember(node);
    fs.forget(node, 1);
  }
  fs.forget(DISK, Number.POSITIVE_INFINITY);
  fs.remember(ROOT);
  fs.forget(ROOT, 1);
  expect([namesIn(fs, ROOT), fs.inodes.count]).toEqual([['disk.raw'], 2]);
});
