import { describe, expect, test } from 'vitest';
import { INODE, Inodes, KIND } from '../../src/fs/inodes.ts';
import { NO_NODE, type NodeId, ROOT_NODE } from '../../src/fs/node.ts';

function newTable(): Inodes {
  return new Inodes(Inodes.create());
}

function make(inodes: Inodes, name: string, parent: NodeId = ROOT_NODE): NodeId {
  const node = inodes.allocate();
  inodes.set(node, INODE.KIND, KIND.DISK);
  inodes.link(parent, node, name);
  return node;
}

function childrenOf(inodes: Inodes, parent: NodeId): string[] {
  const names: string[] = [];
  for (let node = inodes.childAfter(parent, 0); node !== NO_NODE; node = inodes.next(node))
    names.push(inodes.name(node));
  return names;
}

test('a fresh table has a root and nothing else', () => {
  const inodes = newTable();
  expect([inodes.count, inodes.kind(ROOT_NODE), inodes.parent(ROOT_NODE)]).toEqual([1, KIND.DIRECTORY, NO_NODE]);
  expect(inodes.childAfter(ROOT_NODE, 0)).toBe(NO_NODE);
  for (const none of [0, -1, 2, 1.5, Number.NaN, 2 ** 31, 2 ** 32 + 1, Number.POSITIVE_INFINITY]) {
    expect([none, inodes.kind(none)]).toEqual([none, KIND.FREE]);
  }
});

describe('rows', () => {
  test('are used again, and whoever remembers one sees that it is another', () => {
    const inodes = newTable();
    const [first, second] = [make(inodes, 'a'), make(inodes, 'b')];
    const seen = new Set<number>([inodes.get(first, INODE.GENERATION)]);
    inodes.set(first, INODE.LOOKUPS, 77);
    for (let round = 0; round < 5; round++) {
      inodes.unlink(first);
      inodes.free(first);
      expect(inodes.kind(first)).toBe(KIND.FREE);
      seen.add(inodes.get(first, INODE.GENERATION));
      expect(make(inodes, 'c')).toBe(first);
      seen.add(inodes.get(first, INODE.GENERATION));
      expect(inodes.get(first, INODE.LOOKUPS)).toBe(0);
    }
    expect(seen.size).toBe(11);
    expect([inodes.count, inodes.name(second)]).toEqual([3, 'b']);
  });

  test('are seen by another thread that has not looked since the table grew', () => {
    const buffer = Inodes.create();
    const [one, other] = [new Inodes(buffer), new Inodes(buffer)];
    const nodes = Array.from({ length: 1000 }, (_, index) => make(one, `disk ${index}`));
    const last = nodes.at(-1) as NodeId;
    expect([other.kind(last), other.name(last), other.parent(last)]).toEqual([KIND.DISK, 'disk 999', ROOT_NODE]);
    expect(other.child(ROOT_NODE, 'disk 500')).toBe(nodes[500]);
    expect([other.count, other.all(KIND.DISK).length]).toEqual([1001, 1000]);
    other.unlink(nodes[0] as NodeId);
    other.free(nodes[0] as NodeId);
    expect([one.count, one.allocate()]).toEqual([1000, nodes[0]]);
  });
});

describe('names', () => {
  const longest = 'ä'.repeat(127);

  test.each(['a', '日本', ' ', 'a/b', longest, `${longest}x`])('%j', (name) => {
    const inodes = newTable();
    const node = make(inodes, name);
    const behind = make(inodes, 'behind');
    expect(inodes.child(ROOT_NODE, name)).toBe(node);
    expect(inodes.child(ROOT_NODE, `${name}x`)).toBe(NO_NODE);
    expect(inodes.child(ROOT_NODE, name.slice(1))).toBe(NO_NODE);
    // The next row is whole.
    expect([inodes.name(node), inodes.kind(behind), inodes.get(behind, INODE.GENERATION)]).toEqual([
      name,
      KIND.DISK,
      1,
    ]);
  });

  test.each([
    ['costarring', 'liquid'],
    ['declinate', 'macallums'],
    ['altarage', 'zinke'],
  ])('of equal hash are told apart: %s and %s', (one, other) => {
    const inodes = newTable();
    const [first, second] = [make(inodes, one), make(inodes, other)];
    expect(inodes.get(first, INODE.NAME_HASH)).toBe(inodes.get(second, INODE.NAME_HASH));
    expect([inodes.child(ROOT_NODE, one), inodes.child(ROOT_NODE, other)]).toEqual([first, second]);
  });

  test('a shorter one over a longer one leaves nothing of it', () => {
    const inodes = newTable();
    const node = make(inodes, 'a long name');
    inodes.unlink(node);
    inodes.link(ROOT_NODE, node, 'short');
    expect([inodes.name(node), inodes.child(ROOT_NODE, 'a long name')]).toEqual(['short', NO_NODE]);
  });
});

describe('siblings', () => {
  test.each([
    [[0], ['b', 'c', 'd']],
    [
      [1, 2],
      ['a', 'd'],
    ],
    [[3], ['a', 'b', 'c']],
    [[0, 1, 2, 3], []],
    [[3, 0, 2], ['b']],
  ])('without those at %j the others stay in their order', (gone, left) => {
    const inodes = newTable();
    const nodes = ['a', 'b', 'c', 'd'].map((name) => make(inodes, name));
    for (const at of gone) inodes.unlink(nodes[at] as NodeId);
    expect(childrenOf(inodes, ROOT_NODE)).toEqual(left);
    make(inodes, 'e');
    expect(childrenOf(inodes, ROOT_NODE)).toEqual([...left, 'e']);
    // What has lost its name still says what it was.
    for (const at of gone) expect(inodes.name(nodes[at] as NodeId)).toBe('abcd'[at]);
  });

  test('cookies grow with every name, whatever goes in between', () => {
    const inodes = newTable();
    let last = 0;
    for (let round = 0; round < 20; round++) {
      const node = make(inodes, `disk ${round}`);
      expect(inodes.cookie(node)).toBeGreaterThan(last);
      last = inodes.cookie(node);
      expect(inodes.childAfter(ROOT_NODE, last - 1)).toBe(node);
      expect(inodes.childAfter(ROOT_NODE, last)).toBe(NO_NODE);
      if (round % 2 === 0) {
        inodes.unlink(node);
        inodes.free(node);
      }
    }
  });

  test('directories in the root are counted while they have a name', () => {
    const inodes = newTable();
    const directory = inodes.allocate();
    inodes.set(directory, INODE.KIND, KIND.DIRECTORY);
    expect(inodes.directories).toBe(0);
    inodes.link(ROOT_NODE, directory, 'd');
    make(inodes, 'a', directory);
    expect([inodes.directories, childrenOf(inodes, directory)]).toEqual([1, ['a']]);
    inodes.unlink(directory);
    expect(inodes.directories).toBe(0);
  });
});
