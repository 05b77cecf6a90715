import { constants as fsConstants } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CONTROL_NODE, STATUS_NODE } from '../../src/fs/control-directory.ts';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import type { NodeId } from '../../src/fs/node.ts';
import { useFs } from '../fuse/server-fixture.ts';
import { scratch } from '../harness.ts';

const ROOT = 1 as NodeId;
const FILE = { mode: 0o600, uid: 1, gid: 1 };

function create(fs: CowFs, name: string): void {
  expect(fs.create(ROOT, name, FILE, fsConstants.O_RDWR)).toBe(0);
}

function newFs(): CowFs {
  return useFs({ directory: scratch(), content: Buffer.alloc(10, 1) }).fs;
}

test('goes on after any entry, with as many as are asked for', () => {
  const fs = newFs();
  for (const name of ['a.raw', 'b.raw', 'c.raw']) create(fs, name);
  fs.remove(ROOT, 'a.raw');
  const all = fs.list(ROOT, 0, 100) ?? [];
  expect(all.map(({ name }) => name)).toEqual(['.', '..', 'disk.raw', 'b.raw', 'c.raw']);
  all.forEach(({ cookie }, at) => {
    for (const most of [0, 1, 2, 3, 100]) {
      expect(fs.list(ROOT, cookie, most)).toEqual(all.slice(at + 1, at + 1 + most));
    }
  });
  for (const past of [2 ** 40, 2 ** 53, Number.POSITIVE_INFINITY]) expect(fs.list(ROOT, past, 100)).toEqual([]);
});

test('a directory has entries of its own, and tells of its parent', () => {
  const fs = newFs();
  fs.makeDirectory(ROOT, 'd', FILE);
  const { node } = fs.attributes;
  fs.create(node, 'a.raw', FILE, 0);
  const inside = fs.attributes.node;
  expect(fs.list(ROOT, 3, 100)).toMatchObject([{ name: 'd', node, type: 4 }]);
  expect(fs.list(node, 0, 100)).toMatchObject([
    { name: '.', node, type: 4 },
    { name: '..', node: ROOT, type: 4 },
    { name: 'a.raw', node: inside, type: 8 },
  ]);
});

test('a name that stays is shown once, whatever comes and goes while the listing goes on', () => {
  const fs = newFs();
  const fresh = fs.list(ROOT, 0, 100)?.length;
  const change = fc.record({
    kind: fc.constantFrom('make' as const, 'remove' as const, 'rename' as const),
    name: fc.nat({ max: 9 }),
  });
  const turn = fc.record({
    most: fc.integer({ min: 1, max: 4 }),
    changes: fc.array(change, { maxLength: 5, size: 'max' }),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20, size: 'max' }), fc.array(turn, { maxLength: 8 }), (before, turns) => {
      const names = new Set(['disk.raw']);
      const touched = new Set<string>();
      let renamed = 0;
      const apply = ({ kind, name }: { kind: 'make' | 'remove' | 'rename'; name: number }): void => {
        const text = `${name}.raw`;
        touched.add(text);
        if (kind === 'make' && !names.has(text)) {
          create(fs, text);
          names.add(text);
        } else if (kind === 'remove' && names.delete(text)) expect(fs.remove(ROOT, text)).toBe(0);
        else if (kind === 'rename' && names.delete(text)) {
          const other = `renamed ${renamed++}.raw`;
          expect(fs.rename(ROOT, text, ROOT, other, 0)).toBe(0);
          names.add(other);
          touched.add(other);
        }
      };
      before.forEach(apply);
      touched.clear();
      const shown: string[] = [];
      let cookie = 0;
      for (const { most, changes } of [...turns, { most: 100, changes: [] }]) {
        const entries = fs.list(ROOT, cookie, most) ?? [];
        expect(entries.length).toBeLessThanOrEqual(most);
        shown.push(...entries.map(({ name }) => name));
        cookie = entries.at(-1)?.cookie ?? cookie;
        changes.forEach(apply);
      }
      const stayed = [...names].filter((name) => !touched.has(name));
      expect(shown.filter((name) => stayed.includes(name)).sort()).toEqual(stayed.sort());
      for (const name of [...names]) if (name !== 'disk.raw') fs.remove(ROOT, name);
      expect(fs.list(ROOT, 0, 100)?.length).toBe(fresh);
    }),
    { numRuns: 200 },
  );
});

test('`.cowfs` is listed nowhere, and lists its one file', () => {
  const fs = newFs();
  expect((fs.list(ROOT, 0, 100) ?? []).map(({ name }) => name)).not.toContain('.cowfs');
  expect(fs.list(CONTROL_NODE, 0, 100)).toEqual([
    { name: '.', node: CONTROL_NODE, type: 4, cookie: 1 },
    { name: '..', node: ROOT, type: 4, cookie: 2 },
    { name: 'status.json', node: STATUS_NODE, type: 8, cookie: 3 },
  ]);
  expect(fs.list(CONTROL_NODE, 2, 100)).toHaveLength(1);
  expect(fs.list(CONTROL_NODE, 3, 100)).toEqual([]);
  expect(fs.list(CONTROL_NODE, 0, 1)).toHaveLength(1);
});
