/** Names that are made, moved and removed by path, over a real file system and over one of the test's own. */
import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { Stat } from '../../../src/transport/fuse-native/addon.ts';
import { fakeOps } from '../../fuse/fake-ops.ts';
import { useFs } from '../../fuse/server-fixture.ts';
import { scratch } from '../../harness.ts';
import { nonZeroBytes } from '../../overlay/random.ts';
import { newOperations } from './operations-fixture.ts';

const { EEXIST, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM, EROFS } = constants.errno;
const { O_RDWR, O_TRUNC } = fsConstants;

function mounted(options: Parameters<typeof useFs>[1] = {}) {
  const fixture = useFs({ directory: scratch(), content: nonZeroBytes(5000, 1) }, options);
  const operations = newOperations(fixture.fs);
  const stat = (path: string): Stat | number => {
    const [result, found] = operations.call('getattr', path);
    return result === 0 ? (found as Stat) : Number(result);
  };
  const names = (path: string): unknown => operations.call('readdir', path)[1];
  return { ...fixture, ...operations, stat, names };
}

describe('mknod', () => {
  test('makes a disk, of whom the mount belongs to', () => {
    const { call, stat, names } = mounted();
    expect(call('mknod', '/new.raw', 0o100600, 0)).toEqual([0]);
    expect(stat('/new.raw')).toMatchObject({ mode: 0o100600, uid: 1000, gid: 1001, size: 5000, nlink: 1 });
    expect(names('/')).toEqual(['.', '..', 'disk.raw', 'new.raw']);
    expect(call('mknod', '/new.raw', 0o100600, 0)).toEqual([-EEXIST]);
    expect(call('mknod', '/new.qcow2', 0o100600, 0)).toEqual([-EPERM]);
  });

  test.each([0o010600, 0o020600, 0o060600, 0o140600])('of mode 0%o it is refused', (mode) => {
    const { call, stat } = mounted();
    expect([call('mknod', '/new.raw', mode, 0), stat('/new.raw')]).toEqual([[-EPERM], -ENOENT]);
  });
});

test('a file that is made to be truncated is empty once it is open', () => {
  const { call, stat, handles } = mounted();
  call('mknod', '/new.raw', 0o100600, 0);
  const [result, handle] = call('open', '/new.raw', O_RDWR | O_TRUNC);
  expect([result, stat('/new.raw')]).toMatchObject([0, { size: 0, blocks: 0 }]);
  expect(handles.get(Number(handle))).toMatchObject({ name: 'new.raw' });
  const readOnly = mounted({ readOnly: true });
  expect(readOnly.call('open', '/disk.raw', O_RDWR | O_TRUNC)).toEqual([-EROFS, 0]);
  expect(readOnly.disk.sizeBytes).toBe(5000);
});

test('directories: one level, and the names in them', () => {
  const { call, stat, names } = mounted();
  expect(call('mkdir', '/d', 0o750)).toEqual([0]);
  expect(stat('/d')).toMatchObject({ mode: 0o40750, nlink: 2, uid: 1000 });
  expect(call('mkdir', '/d/e', 0o750)).toEqual([-EPERM]);
  expect(call('mknod', '/d/a.raw', 0o600, 0)).toEqual([0]);
  expect([names('/d'), names('/')]).toEqual([
    ['.', '..', 'a.raw'],
    ['.', '..', 'disk.raw', 'd'],
  ]);
  expect(stat('/d/a.raw')).toMatchObject({ size: 5000, mode: 0o100600 });
  expect(call('rmdir', '/d')).toEqual([-ENOTEMPTY]);
  expect([call('rmdir', '/d/a.raw'), call('unlink', '/d')]).toEqual([[-ENOTDIR], [-EISDIR]]);
  expect([call('unlink', '/d/a.raw'), call('rmdir', '/d'), stat('/d')]).toEqual([[0], [0], -ENOENT]);
});

test('rename moves between directories and over what is there', () => {
  const { call, names, stat, fs } = mounted();
  call('mkdir', '/d', 0o755);
  call('mknod', '/d/a.raw', 0o600, 0);
  const before = stat('/disk.raw') as Stat;
  expect(call('rename', '/disk.raw', '/d/b')).toEqual([0]);
  expect(stat('/d/b')).toMatchObject({ ino: before.ino });
  expect(call('rename', '/d/b', '/d/a.raw')).toEqual([0]);
  expect([names('/'), names('/d'), fs.inodes.count]).toEqual([['.', '..', 'd'], ['.', '..', 'a.raw'], 3]);
  expect(call('rename', '/d/a.raw', '/disk.raw')).toEqual([0]);
  expect(call('rename', '/d', '/e')).toEqual([0]);
  expect(names('/')).toEqual(['.', '..', 'disk.raw', 'e']);
  expect(call('rename', '/disk.raw', '/e')).toEqual([-EISDIR]);
  expect(call('rename', '/none', '/x')).toEqual([-ENOENT]);
});

test('a disk that is open when its name goes is there for its handle', () => {
  const { call, open, fs } = mounted();
  const handle = open(O_RDWR);
  expect(call('unlink', '/disk.raw')).toEqual([0]);
  expect(call('getattr', '/disk.raw')).toEqual([-ENOENT]);
  const bytes = Buffer.alloc(10);
  expect(call('write', '/disk.raw', handle, Buffer.from('abc'), 3, 0)).toEqual([3]);
  expect(call('read', '/disk.raw', handle, bytes, 10, 0)).toEqual([10]);
  expect(bytes.subarray(0, 3).toString()).toBe('abc');
  expect(call('release', '/disk.raw', handle)).toEqual([0]);
  expect([fs.inodes.count, fs.sessions.occupiedBytes]).toEqual([1, 0]);
});

test.each([
  ['/none/x.raw', ENOENT],
  ['/disk.raw/x.raw', ENOTDIR],
  ['/none/none/x.raw', ENOENT],
])('below %s there is nothing to make, move or remove', (path, errno) => {
  const { call } = mounted();
  const results = [
    call('mknod', path, 0o600, 0),
    call('unlink', path),
    call('rmdir', path),
    call('rename', '/disk.raw', path),
    call('rename', path, '/x.raw'),
  ];
  expect(results).toEqual(results.map(() => [-errno]));
});

test('`.cowfs` is found, holds disks by number, and is listed nowhere', () => {
  const { call, names, stat } = mounted();
  expect(stat('/.cowfs')).toMatchObject({ mode: 0o40700 });
  expect(stat('/.cowfs/2')).toMatchObject({ ino: 2, size: 5000 });
  expect([stat('/.cowfs/3'), names('/')]).toEqual([-ENOENT, ['.', '..', 'disk.raw']]);
  expect([call('mkdir', '/.cowfs', 0o755), call('rmdir', '/.cowfs')]).toEqual([[-EEXIST], [-EPERM]]);
  expect(call('rename', '/disk.raw', '/.cowfs')).toEqual([-EEXIST]);
});

test.each([
  ['touch(1)', 0o100101, 5000],
  ['a shell', 0o101101, 0],
  ['cp(1)', 0o100301, 0],
  ['mkstemp(3)', 0o100302, 5000],
  ['mknod(2), as libfuse makes it', 0o301, 5000],
])('a file that %s makes, flags %o, starts with %i bytes and is open', (_, flags, size) => {
  const { createFile, call, stat } = mounted();
  const [result, handle] = createFile('/x.raw', 0o100600, flags);
  expect([result, stat('/x.raw')]).toMatchObject([0, { size }]);
  expect(call('release', '/x.raw', Number(handle))).toEqual([0]);
});

test('a file whose flags are not known is not made', () => {
  const { call, stat } = mounted();
  expect([call('create', '/x.raw', 0o100600), stat('/x.raw')]).toEqual([[-EOPNOTSUPP, 0], -ENOENT]);
});

test('on a read-only mount nothing of it works', () => {
  const { call, names } = mounted({ readOnly: true });
  const results = [
    call('mknod', '/x.raw', 0o600, 0),
    call('mkdir', '/d', 0o755),
    call('unlink', '/disk.raw'),
    call('rmdir', '/d'),
    call('rename', '/disk.raw', '/x.raw'),
  ];
  expect(results).toEqual(results.map(() => [-EROFS]));
  expect(names('/')).toEqual(['.', '..', 'disk.raw']);
});

test('nobody is remembered: libfuse asks by path, and never forgets', () => {
  const ops = fakeOps();
  const { call } = newOperations(ops);
  call('mknod', '/x.raw', 0o100640, 0);
  call('getattr', '/x.raw');
  expect(ops.create).toHaveBeenCalledExactlyOnceWith(1, 'x.raw', { mode: 0o640, uid: 1000, gid: 1001 }, 0);
  expect(ops.remember).not.toHaveBeenCalled();
});

test('a trace names each request as the kernel does', () => {
  const { call, lines } = newOperations(fakeOps());
  call('mknod', '/x.raw', 0o100640, 0);
  call('mkdir', '/größer', 0o755);
  call('unlink', '/x.raw');
  call('rmdir', '/d/e');
  call('rename', '/a', '/d/b');
  expect(lines.filter((line) => line.startsWith('rx')).map((line) => line.replace(/^rx \d+ /, ''))).toEqual([
    'MKNOD x.raw mode=0100640',
    'MKDIR größer mode=0755',
    'UNLINK x.raw',
    'RMDIR d/e',
    'RENAME a to=d/b',
  ]);
});
