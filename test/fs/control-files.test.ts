import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { CONTROL_NODE, nodeByNumber, pathByNumber, STATUS_NODE } from '../../src/fs/control-directory.ts';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import type { NodeId } from '../../src/fs/node.ts';
import type { CowFsOptions } from '../../src/fs/options.ts';
import { useFs } from '../fuse/server-fixture.ts';
import { scratch } from '../harness.ts';

const { EIO, ENOENT, EPERM } = constants.errno;
const { O_RDONLY, O_RDWR, O_WRONLY } = fsConstants;
const ROOT = 1 as NodeId;
const DISK = 2 as NodeId;
const FILE = { mode: 0o600, uid: 1, gid: 1 };

function newFs(options: Partial<CowFsOptions> = {}): CowFs {
  return useFs({ directory: scratch(), content: Buffer.alloc(10, 1) }, options).fs;
}

describe('what is found', () => {
  test.each([
    [false, 0o040700, 0o100400],
    [true, 0o040755, 0o100444],
  ])('by those who may look in, allowOther %s', (allowOther, directory, file) => {
    const fs = newFs({ allowOther });
    expect(fs.lookup(ROOT, '.cowfs')).toBe(0);
    expect(fs.attributes).toMatchObject({ node: CONTROL_NODE, mode: directory, nlink: 2, uid: 1000, gid: 1001 });
    expect(fs.lookup(CONTROL_NODE, 'status.json')).toBe(0);
    expect(fs.attributes).toMatchObject({ node: STATUS_NODE, mode: file, nlink: 1, uid: 1000, sizeBytes: 0 });
    expect([fs.nameOf(CONTROL_NODE), fs.nameOf(STATUS_NODE)]).toEqual(['.cowfs', '.cowfs/status.json']);
  });

  test('every disk by its number, also one that has lost its name, and no longer than it lives', () => {
    const fs = newFs();
    expect([fs.lookup(CONTROL_NODE, '2'), fs.attributes.node]).toEqual([0, DISK]);
    fs.remember(DISK);
    fs.remove(ROOT, 'disk.raw');
    expect([fs.lookup(CONTROL_NODE, '2'), fs.attributes.node, fs.attributes.nlink]).toEqual([0, DISK, 0]);
    fs.forget(DISK, 1);
    expect(fs.lookup(CONTROL_NODE, '2')).toBe(ENOENT);
  });

  test('nothing else: no directory, no snapshot, nothing that is no number', () => {
    const { fs, session } = useFs({ directory: scratch(), content: Buffer.alloc(10, 1) });
    fs.makeDirectory(ROOT, 'd', FILE);
    const directory = fs.attributes.node;
    expect(fs.namespace.addSnapshot(DISK, 's', () => fs.sessions.snapshot(session))).toBe(0);
    const names = [`${directory}`, `${directory + 1}`, '1', '0', '02', '+2', '2 ', '2.0', 'x', '', '9'.repeat(255)];
    expect(names.map((name) => fs.lookup(CONTROL_NODE, name))).toEqual(names.map(() => ENOENT));
    expect(fs.lookup(CONTROL_NODE, 'disk.raw')).toBe(ENOENT);
    expect(fs.lookup(DISK, '.cowfs')).not.toBe(0);
    expect(fs.lookup(directory, '.cowfs')).toBe(ENOENT);
  });

  test('no status where a file of unknown size cannot be read', () => {
    const fs = newFs({ sizelessFiles: false });
    expect(fs.lookup(CONTROL_NODE, 'status.json')).toBe(ENOENT);
    expect(fs.list(CONTROL_NODE, 0, 10)).toHaveLength(2);
    expect(fs.lookup(CONTROL_NODE, '2')).toBe(0);
  });
});

test('nothing in it is changed, made, moved or removed', () => {
  const fs = newFs();
  for (const node of [CONTROL_NODE, STATUS_NODE]) {
    expect([
      fs.setAttributes(node, { mode: 0o777 }),
      fs.create(node, 'a.raw', FILE, O_RDWR),
      fs.makeDirectory(node, 'd', FILE),
      fs.remove(node, 'status.json'),
      fs.removeDirectory(node, 'd'),
      fs.rename(node, '2', ROOT, 'a.raw', 0),
      fs.rename(ROOT, 'disk.raw', node, 'a.raw', 0),
    ]).toEqual([EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM]);
    expect([fs.read(node, 0, 1, Buffer.alloc(1), 0), fs.write(node, 0, 1, Buffer.alloc(1), 0)]).toEqual([EIO, EIO]);
  }
  expect((fs.list(ROOT, 0, 10) ?? []).map(({ name }) => name)).toEqual(['.', '..', 'disk.raw']);
});

test('removing a disk by number says that it is not there, so that the kernel forgets the name, and does nothing', () => {
  const fs = newFs();
  expect(fs.remove(CONTROL_NODE, '2')).toBe(ENOENT);
  expect([fs.lookup(CONTROL_NODE, '2'), fs.lookup(ROOT, 'disk.raw')]).toEqual([0, 0]);
});

test('the status is opened for reading only, and its content comes from elsewhere', () => {
  const fs = newFs();
  expect([STATUS_NODE, CONTROL_NODE, DISK].map((node) => fs.isGenerated(node))).toEqual([true, false, false]);
  expect([O_RDONLY, O_RDWR, O_WRONLY].map((flags) => fs.open(STATUS_NODE, flags))).toEqual([0, EPERM, EPERM]);
});

describe('paths by number', () => {
  test.each([1, 2, 17, 4_000_000])('of node %i and back', (node) => {
    const [directory, name] = pathByNumber(node as NodeId).split('/');
    expect([directory, nodeByNumber(name ?? '')]).toEqual(['.cowfs', node]);
  });

  test.each(['', '0', '00', '01', '-1', '1e3', '0x2', '2\n', ' 2', '٢', 'status.json'])('%j is none', (name) => {
    expect(nodeByNumber(name)).toBe(undefined);
  });
});
