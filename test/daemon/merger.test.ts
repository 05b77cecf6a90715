/** That layers which have become superfluous are found and merged, and what is counted when that fails. */
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Journal } from '../../src/daemon/journal.ts';
import { Merger } from '../../src/daemon/merger.ts';
import { INODE } from '../../src/fs/inodes.ts';
import { NO_NODE, type NodeId, ROOT_NODE } from '../../src/fs/node.ts';
import { ENOSPC, OK } from '../../src/lib/errno.ts';
import { Store } from '../../src/overlay/store.ts';
import { useFs } from '../fuse/server-fixture.ts';
import { poll, scratch } from '../harness.ts';
import { difference } from '../overlay/disk-fixture.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const BLOCK = 4096;
const DISK = 2 as NodeId;
const content = nonZeroBytes(600 * BLOCK, 1);

afterEach(() => {
  vi.restoreAllMocks();
});

function mounted() {
  const fixture = useFs({ directory: scratch(), content });
  const { fs, session } = fixture;
  const journal = new Journal(undefined);
  const merger = new Merger(fs, journal, () => false);
  onTestFinished(() => merger.close());
  const { sessions, namespace, inodes } = fs;
  const write = (block: number, blocks: number, seed: number, node = DISK): void => {
    const data = nonZeroBytes(blocks * BLOCK, seed);
    expect([fs.write(node, block * BLOCK, data.length, data, 0), fs.transferred]).toEqual([OK, data.length]);
  };
  const snapshot = (name: string): void => {
    expect(namespace.addSnapshot(DISK, name, () => sessions.snapshot(session))).toBe(OK);
  };
  const find = (name: string): NodeId => {
    inodes.lock();
    const node = inodes.child(DISK, name);
    inodes.unlock();
    expect(node).not.toBe(NO_NODE);
    return node;
  };
  const read = (node = DISK): Buffer => {
    const bytes = Buffer.alloc(content.length);
    expect(fs.read(node, 0, bytes.length, bytes, 0)).toBe(OK);
    return bytes;
  };
  const depth = (): number => sessions.layers.depth(sessions.top(session));
  return { ...fixture, sessions, journal, merger, write, snapshot, find, read, depth };
}

describe('a snapshot that goes', () => {
  test('leaves a disk of one layer, with its content and counts', async () => {
    const { fs, sessions, merger, write, snapshot, find, read, depth } = mounted();
    write(0, 300, 2);
    for (const name of ['a', 'b', 'c']) {
      snapshot(name);
      write(100, 300, name.charCodeAt(0));
    }
    const before = read();
    for (const name of ['a', 'b', 'c']) fs.namespace.removeSnapshot(find(name));
    expect(depth()).toBe(4);
    merger.look();
    await poll('merged', () => depth() === 1);
    expect(difference(read(), before)).toBe(undefined);
    expect(sessions.occupiedBytes).toBe(400 * BLOCK);
    expect(sessions.open(fs.inodes.get(DISK, INODE.CONTENT)).account.occupiedBytes).toBe(400 * BLOCK);
  });

  test('leaves those before and after it as they are', async () => {
    const { fs, sessions, session, merger, write, snapshot, find, read, depth } = mounted();
    const contents: Buffer[] = [];
    for (const [index, name] of ['a', 'b', 'c'].entries()) {
      write(50 * index, 100, index + 2);
      contents.push(read());
      snapshot(name);
    }
    write(500, 1, 9);
    fs.namespace.removeSnapshot(find('b'));
    merger.look();
    await poll('merged', () => depth() === 3);
    for (const [index, name] of [
      [2, 'c'],
      [0, 'a'],
    ] as const) {
      sessions.rollback(session, fs.inodes.get(find(name), INODE.CONTENT));
      expect(difference(read(), contents[index] as Buffer)).toBe(undefined);
    }
  });
});

test('a fork that goes leaves the disk that it was made of with one layer', async () => {
  const { fs, session, merger, write, read, depth } = mounted();
  write(0, 10, 2);
  expect(fs.namespace.fork(ROOT_NODE, 'fork.raw', { mode: 0o600, uid: 1, gid: 1 }, session)).toBe(OK);
  const fork = fs.namespace.found;
  write(5, 10, 3);
  write(5, 10, 4, fork);
  const before = read();
  merger.look();
  expect(depth()).toBe(2);
  expect(fs.remove(ROOT_NODE, 'fork.raw')).toBe(OK);
  merger.look();
  await poll('merged', () => depth() === 1);
  expect(difference(read(), before)).toBe(undefined);
});

test('what could not be merged is told, is as it was, and is counted as it is', async () => {
  const { fs, sessions, session, journal, merger, write, snapshot, find, read, depth } = mounted();
  write(0, 300, 2);
  snapshot('a');
  write(0, 600, 3);
  const before = read();
  fs.namespace.removeSnapshot(find('a'));
  const real = Store.prototype.write;
  let writes = 0;
  vi.spyOn(Store.prototype, 'write').mockImplementation(function (this: Store, ...args) {
    writes += 1;
    return writes > 1 ? ENOSPC : real.apply(this, args);
  });
  merger.look();
  await poll('told', () => journal.warnings.length > 0);
  expect(journal.warnings).toEqual(['layers that could be merged stay apart: ENOSPC']);
  expect([depth(), difference(read(), before)]).toEqual([2, undefined]);
  // 256 blocks that the upper layer hides have gone from the lower one.
  expect(sessions.occupiedBytes).toBe((300 - 256 + 600) * BLOCK);
  expect(sessions.open(session).account.occupiedBytes).toBe((300 - 256 + 600) * BLOCK);
});
