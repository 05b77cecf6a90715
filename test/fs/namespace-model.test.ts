/**
 * Any sequence of names that are made, moved, removed, looked up, forgotten, opened and released, on two threads' file
 * systems in turn, against plain objects: answers, lists, links, and what lives on without a name.
 */
import { constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import { INODE, KIND } from '../../src/fs/inodes.ts';
import type { NodeId } from '../../src/fs/node.ts';
import { useFs } from '../fuse/server-fixture.ts';
import { scratch } from '../harness.ts';

vi.setConfig({ testTimeout: 60_000 });

const { EEXIST, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM } = constants.errno;
const { O_RDWR } = fsConstants;
const ROOT = 1;
const [NOREPLACE, EXCHANGE] = [1, 2];
const NAMES = ['a.raw', 'b.raw', 'c.raw', 'd.raw'] as const;

interface Inode {
  readonly id: number;
  readonly isDirectory: boolean;
  parent: number;
  name: string;
  age: number;
  lookups: number;
  handles: number;
}

class Model {
  readonly inodes = new Map<number, Inode>();
  /** Every inode that there ever was, by row and generation. */
  readonly seen = new Set<string>();
  #age = 0;

  constructor() {
    this.inodes.set(ROOT, { id: ROOT, isDirectory: true, parent: 0, name: '', age: 0, lookups: 0, handles: 0 });
  }

  children(parent: number): Inode[] {
    return [...this.inodes.values()].filter((each) => each.parent === parent).sort((a, b) => a.age - b.age);
  }

  child(parent: number, name: string): Inode | undefined {
    return this.children(parent).find((each) => each.name === name);
  }

  /** Why the directory takes no name. */
  refuses(parent: number): number {
    const inode = this.inodes.get(parent);
    if (inode === undefined) return ENOENT;
    if (!inode.isDirectory) return ENOTDIR;
    return parent === ROOT || inode.parent !== 0 ? 0 : ENOENT;
  }

  add(id: number, isDirectory: boolean, parent: number, name: string): void {
    this.inodes.set(id, { id, isDirectory, parent, name, age: ++this.#age, lookups: 0, handles: 0 });
  }

  link(inode: Inode, parent: number, name: string): void {
    Object.assign(inode, { parent, name, age: ++this.#age });
  }

  unlink(inode: Inode): void {
    inode.parent = 0;
    this.dropIfUnused(inode);
  }

  dropIfUnused({ id, parent, lookups, handles }: Inode): void {
    if (id !== ROOT && parent === 0 && lookups === 0 && handles === 0) this.inodes.delete(id);
  }

  removal(target: Inode | undefined, isDirectory: boolean): number {
    if (target === undefined) return ENOENT;
    if (target.isDirectory !== isDirectory) return target.isDirectory ? EISDIR : ENOTDIR;
    return this.children(target.id).length > 0 ? ENOTEMPTY : 0;
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number): number {
    if (this.inodes.get(parent)?.isDirectory !== true) return ENOTDIR;
    const node = this.child(parent, name);
    if (node === undefined) return ENOENT;
    const refused = this.refuses(newParent);
    if (refused !== 0) return refused;
    const target = this.child(newParent, newName);
    if (target === node) return 0;
    const leavesRoot = (moved: Inode, into: number): boolean => moved.isDirectory && into !== ROOT;
    if (flags === EXCHANGE) {
      if (target === undefined) return ENOENT;
      if (leavesRoot(node, newParent) || leavesRoot(target, parent)) return EPERM;
      this.link(node, newParent, newName);
      this.link(target, parent, name);
      return 0;
    }
    if (target !== undefined) {
      if (flags === NOREPLACE) return EEXIST;
      const taken = this.removal(target, node.isDirectory);
      if (taken !== 0) return taken;
    }
    if (leavesRoot(node, newParent)) return EPERM;
    if (target !== undefined) this.unlink(target);
    this.link(node, newParent, newName);
    return 0;
  }
}

const name = fc.constantFrom(...NAMES);
const which = fc.nat({ max: 5 });
const step = fc.record({
  kind: fc.constantFrom(
    ...(['create', 'create', 'create', 'mkdir', 'remove', 'rmdir', 'rename', 'rename', 'rename'] as const),
    ...(['lookup', 'lookup', 'forget', 'forget', 'open', 'release', 'release'] as const),
  ),
  thread: fc.constantFrom(0, 1),
  parent: which,
  name,
  newParent: which,
  newName: name,
  flags: fc.constantFrom(0, 0, NOREPLACE, EXCHANGE),
});
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

const FILE = { mode: 0o600, uid: 1, gid: 1 };

/** A node that was there at some time: mostly one that is. */
function nodeAt(model: Model, at: number): number {
  const ids = [...model.inodes.keys()];
  return ids[at % (ids.length + 1)] ?? 77;
}

function made(fs: CowFs, model: Model, errno: number, isDirectory: boolean, { name: given }: Step, into: number): void {
  const refused = model.refuses(into);
  const expected = refused !== 0 ? refused : model.child(into, given) === undefined ? 0 : EEXIST;
  expect(errno).toBe(expected);
  if (errno !== 0) return;
  const { node } = fs.attributes;
  expect(model.inodes.has(node)).toBe(false);
  const key = `${node} ${fs.inodes.get(node, INODE.GENERATION)}`;
  expect(model.seen.has(key)).toBe(false);
  model.seen.add(key);
  model.add(node, isDirectory, into, given);
}

function play(fs: CowFs, model: Model, given: Step): void {
  const parent = nodeAt(model, given.parent) as NodeId;
  const inode = model.inodes.get(parent);
  switch (given.kind) {
    case 'create':
      made(fs, model, fs.create(parent, given.name, FILE, O_RDWR), false, given, parent);
      return;
    case 'mkdir': {
      const errno = fs.makeDirectory(parent, given.name, FILE);
      if (parent === ROOT) made(fs, model, errno, true, given, parent);
      else expect(errno).toBe(EPERM);
      return;
    }
    case 'remove':
    case 'rmdir': {
      const isDirectory = given.kind === 'rmdir';
      const errno = isDirectory ? fs.removeDirectory(parent, given.name) : fs.remove(parent, given.name);
      const target = model.child(parent, given.name);
      expect(errno).toBe(inode?.isDirectory === true ? model.removal(target, isDirectory) : ENOTDIR);
      if (errno === 0 && target !== undefined) model.unlink(target);
      return;
    }
    case 'rename': {
      const newParent = nodeAt(model, given.newParent) as NodeId;
      const errno = fs.rename(parent, given.name, newParent, given.newName, given.flags);
      expect(errno).toBe(model.rename(parent, given.name, newParent, given.newName, given.flags));
      return;
    }
    case 'lookup': {
      const target = model.child(parent, given.name);
      const errno = fs.lookup(parent, given.name);
      if (inode?.isDirectory !== true) expect(errno).toBe(inode === undefined ? ENOENT : ENOTDIR);
      else expect(errno).toBe(target === undefined ? ENOENT : 0);
      if (target === undefined) return;
      expect(fs.attributes.node).toBe(target.id);
      fs.remember(target.id as NodeId);
      target.lookups += 1;
      return;
    }
    case 'forget':
      if (inode === undefined || inode.lookups === 0) return;
      fs.forget(parent, inode.lookups);
      inode.lookups = 0;
      model.dropIfUnused(inode);
      return;
    case 'open':
      if (inode === undefined || inode.isDirectory) return;
      expect(fs.open(parent, O_RDWR)).toBe(0);
      inode.handles += 1;
      return;
    case 'release':
      if (inode === undefined || inode.handles === 0) return;
      fs.release(parent, O_RDWR);
      inode.handles -= 1;
      model.dropIfUnused(inode);
  }
}

function check(fs: CowFs, model: Model): void {
  expect(fs.inodes.count).toBe(model.inodes.size);
  for (const { id, isDirectory, parent, handles } of model.inodes.values()) {
    const node = id as NodeId;
    expect(fs.getAttributes(node)).toBe(0);
    const subdirectories = model.children(id).filter((each) => each.isDirectory).length;
    const links = id !== ROOT && parent === 0 ? 0 : isDirectory ? 2 + subdirectories : 1;
    expect([id, fs.attributes.nlink]).toEqual([id, links]);
    expect(fs.inodes.get(node, INODE.OPEN_HANDLES)).toBe(handles);
    const listed = fs.list(node, 0, 100);
    if (!isDirectory) expect(listed).toBe(undefined);
    else expect(listed?.slice(2).map((each) => each.node)).toEqual(model.children(id).map((each) => each.id));
  }
}

test('any sequence', () => {
  const { fs, another } = useFs({ directory: scratch(), content: Buffer.alloc(100, 1) });
  const threads = [fs, another()] as const;
  fs.remove(1 as NodeId, 'disk.raw');
  const memory = fs.sessions.memoryBytes;
  let rows = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }), (steps) => {
      const model = new Model();
      steps.forEach((each) => {
        play(threads[each.thread] as CowFs, model, each);
        check(threads[1 - each.thread] as CowFs, model);
        rows = Math.max(rows, ...model.inodes.keys());
      });
      for (const inode of model.inodes.values()) {
        for (; inode.handles > 0; inode.handles--) fs.release(inode.id as NodeId, O_RDWR);
        if (inode.lookups > 0) fs.forget(inode.id as NodeId, inode.lookups);
        inode.lookups = 0;
        model.dropIfUnused(inode);
      }
      const named = [...model.inodes.values()].filter(({ id }) => id !== ROOT).reverse();
      for (const { isDirectory, parent, name: last } of named.sort((a, b) => b.parent - a.parent)) {
        expect(isDirectory ? fs.removeDirectory(parent as NodeId, last) : fs.remove(parent as NodeId, last)).toBe(0);
      }
      expect([fs.inodes.count, fs.sessions.memoryBytes, fs.sessions.occupiedBytes]).toEqual([1, memory, 0]);
      expect([...fs.inodes.all(KIND.DISK), ...fs.inodes.all(KIND.SNAPSHOT)]).toEqual([]);
    }),
    { numRuns: 200 },
  );
  // Rows are used again: there were never more than fit into the model at once.
  expect(rows).toBeLessThan(40);
});
