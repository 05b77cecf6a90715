/** What path operations ask of the file system, and that each request has one answer whatever becomes of it. */
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { NodeId } from '../../../src/fs/node.ts';
import type { FsOps } from '../../../src/fs/ops.ts';
import { ATTRIBUTES, fakeOps } from '../../fuse/fake-ops.ts';
import { newOperations } from './operations-fixture.ts';

const { EIO, ENOENT, ENOSPC, EOPNOTSUPP, EPERM } = constants.errno;

type Fixture = ReturnType<typeof newOperations>;

/** One request of each kind; `handle` is the disk's. */
const REQUESTS: Record<string, (fixture: Fixture, handle: number) => readonly unknown[]> = {
  getattr: ({ call }) => call('getattr', '/disk.raw'),
  'getattr of the root': ({ call }) => call('getattr', '/'),
  readdir: ({ call }) => call('readdir', '/'),
  statfs: ({ call }) => call('statfs', '/'),
  open: ({ call }) => call('open', '/disk.raw', 0),
  read: ({ call }, handle) => call('read', '/disk.raw', handle, Buffer.alloc(10), 10, 0),
  write: ({ call }, handle) => call('write', '/disk.raw', handle, Buffer.alloc(10), 10, 0),
  release: ({ call }, handle) => call('release', '/disk.raw', handle),
  truncate: ({ call }) => call('truncate', '/disk.raw', 5),
  ftruncate: ({ call }, handle) => call('ftruncate', '/disk.raw', handle, 5),
  chmod: ({ call }) => call('chmod', '/disk.raw', 0o600),
  chown: ({ call }) => call('chown', '/disk.raw', 1, 2),
  utimens: ({ setTimes }) => setTimes('/disk.raw', 1, 2),
  mknod: ({ call }) => call('mknod', '/new.raw', 0o100600, 0),
  mkdir: ({ call }) => call('mkdir', '/new', 0o700),
  unlink: ({ call }) => call('unlink', '/disk.raw'),
  rmdir: ({ call }) => call('rmdir', '/directory'),
  rename: ({ call }) => call('rename', '/disk.raw', '/new.raw'),
};

/** A file system of which one operation throws from now on, or all of them, once the disk is open. */
function failing(error: unknown, operation?: keyof FsOps): Fixture & { handle: number } {
  const ops = fakeOps();
  const fixture = newOperations(ops);
  const handle = fixture.open(0);
  for (const [name, mock] of Object.entries(ops)) {
    if (typeof mock !== 'function' || (operation ?? name) !== name) continue;
    mock.mockImplementation(() => {
      throw error;
    });
  }
  return { ...fixture, handle };
}

describe.each(Object.entries(REQUESTS))('%s', (_, request) => {
  test('a bug is EIO, told once, and answered once', () => {
    const bug = new TypeError('x is not a function');
    const { handle, ...fixture } = failing(bug);
    expect(request(fixture, handle)[0]).toBe(-EIO);
    expect(fixture.report).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(/^[A-Z]+ failed$/), bug);
  });

  test('a system error keeps its number', () => {
    const { handle, ...fixture } = failing(Object.assign(new Error('no space'), { errno: -ENOSPC }));
    expect(request(fixture, handle)[0]).toBe(-ENOSPC);
    expect(fixture.report).toHaveBeenCalledOnce();
  });
});

test.each<[keyof typeof REQUESTS, keyof FsOps]>([
  ['getattr', 'lookup'],
  ['getattr of the root', 'getAttributes'],
  ['readdir', 'list'],
  ['statfs', 'statistics'],
  ['open', 'open'],
  ['read', 'read'],
  ['write', 'write'],
  ['release', 'release'],
  ['truncate', 'setAttributes'],
  ['mknod', 'create'],
  ['mkdir', 'makeDirectory'],
  ['unlink', 'remove'],
  ['rmdir', 'removeDirectory'],
  ['rename', 'rename'],
])('%s is answered with EIO, and told, when `%s` alone throws', (request, operation) => {
  const { handle, ...fixture } = failing(new TypeError('x is not a function'), operation);
  expect(REQUESTS[request]?.(fixture, handle)[0]).toBe(-EIO);
  expect(fixture.report).toHaveBeenCalledOnce();
});

test('a release that failed gives its handle back all the same: the kernel does not ask again', () => {
  const { call, handle, handles } = failing(new Error('once'), 'release');
  expect(call('release', '/disk.raw', handle)).toEqual([-EIO]);
  expect(handles.get(handle)).toBe(undefined);
});

test('a release goes by its handle, whatever becomes of its path', () => {
  const ops = fakeOps();
  const { call, open, handles } = newOperations(ops);
  const handle = open(0);
  ops.lookup.mockReturnValue(ENOENT);
  expect(call('release', '/disk.raw', handle)).toEqual([0]);
  expect(ops.release).toHaveBeenCalledExactlyOnceWith(2, 0);
  expect(handles.get(handle)).toBe(undefined);
});

test('an entry that cannot be looked at fails the listing', () => {
  const ops = fakeOps();
  ops.getAttributes.mockImplementation((node) => {
    ops.attributes = { ...ATTRIBUTES, node };
    return node === 3 ? EIO : 0;
  });
  const { call } = newOperations(ops);
  expect(call('readdir', '/')).toEqual([-EIO]);
});

test('utimens without the modification time is EOPNOTSUPP: better none than a wrong one', () => {
  const ops = fakeOps();
  const { call } = newOperations(ops);
  expect(call('utimens', '/disk.raw', 1_600_000_000_000, 1_600_000_000_000)).toEqual([-EOPNOTSUPP]);
  expect(ops.setAttributes).not.toHaveBeenCalled();
});

test('a disk has one name: EPERM, and nobody is asked', () => {
  const ops = fakeOps();
  const { call } = newOperations(ops);
  expect([call('link', '/disk.raw', '/new'), call('symlink', 'disk.raw', '/new')]).toEqual([[-EPERM], [-EPERM]]);
  for (const operation of Object.values(ops)) if (typeof operation === 'function') expect(operation).not.toBeCalled();
});

test('names of any characters are looked up as they are', () => {
  const ops = fakeOps();
  const { call } = newOperations(ops);
  for (const name of ['größer', 'with blank', '"quotes"', 'back\\slash', ' ', '日本']) {
    expect(call('getattr', `/${name}`)[0]).toBe(0);
    expect(ops.lookup).toHaveBeenLastCalledWith(1, name);
  }
});

test('reads and writes go to the node and the flags that were opened, straight to and from the addon’s memory', () => {
  const ops = fakeOps();
  ops.lookup.mockImplementation(() => {
    ops.attributes = { ...ATTRIBUTES, node: 3 as NodeId };
    return 0;
  });
  const { call, open } = newOperations(ops);
  const handle = open(0o100002);
  const memory = Buffer.alloc(131_072);
  ops.transferred = 100;
  expect(call('read', '/disk.raw', handle, memory, 131_072, 2 ** 40 + 1)).toEqual([100]);
  expect(ops.read).toHaveBeenCalledExactlyOnceWith(3, 2 ** 40 + 1, 131_072, memory, 0);
  expect(ops.read.mock.calls[0]?.[3]).toBe(memory);
  expect(call('write', '/disk.raw', handle, memory, 131_072, 5)).toEqual([100]);
  expect(ops.write).toHaveBeenCalledExactlyOnceWith(3, 5, 131_072, memory, 0);
  expect(ops.write.mock.calls[0]?.[3]).toBe(memory);
  call('release', '/disk.raw', handle);
  expect(ops.release).toHaveBeenCalledExactlyOnceWith(3, 0o100002);
});

test('a trace names each request as the kernel does', () => {
  const ops = fakeOps();
  const fixture = newOperations(ops);
  const handle = fixture.open(0o100002);
  const memory = Buffer.alloc(131_072);
  fixture.call('read', '/disk.raw', handle, memory, 131_072, 0);
  fixture.call('write', '/disk.raw', handle, memory, 512, 2 ** 33);
  fixture.call('truncate', '/disk.raw', 77);
  fixture.call('chmod', '/disk.raw', 0o640);
  fixture.call('chown', '/disk.raw', 1, 2);
  fixture.setTimes('/disk.raw', 3, 4);
  fixture.call('release', '/disk.raw', handle);
  fixture.call('readdir', '/');
  fixture.call('statfs', '/');
  expect(fixture.lines.filter((line) => line.startsWith('rx')).map((line) => line.replace(/^rx \d+ /, ''))).toEqual([
    'OPEN disk.raw flags=0100002',
    'READ node 2 off=0 len=131072',
    'WRITE node 2 off=8589934592 len=512',
    'SETATTR disk.raw size=77',
    'SETATTR disk.raw mode=0640',
    'SETATTR disk.raw uid=1 gid=2',
    'SETATTR disk.raw atime=3 mtime=4',
    'RELEASE node 2',
    'READDIR /',
    'STATFS /',
  ]);
});
