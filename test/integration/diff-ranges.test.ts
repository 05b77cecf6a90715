/** `cowfs diff`: exactly the blocks that differ, or those that were written, as a table and for programs. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { COWFS, cowfs, makeBase, makeMountpoint, mountDisk, must, mustCowfs, run, scratch } from '../harness.ts';
import {
  BLOCK,
  blocksOf,
  differingBlocks,
  diffOf,
  MIB,
  type Range,
  readThrough,
  untilThawed,
} from './export-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { keptDisk, unmounted } from './overlay-support.ts';
import { filled, mountSessions, opened, put, TRANSPORT_MODES, WRITEBACK } from './sessions-support.ts';

const range = (first: number, count: number, kind: Range['kind'] = 'data'): Range => ({
  offset: first * BLOCK,
  length: count * BLOCK,
  kind,
});

describe.each(TRANSPORT_MODES)('$name', (mode) => {
  test('data, rewritten data and none', async (context) => {
    const { base, disk, mountpoint, original } = mountSessions(mode, context, [], 40 * BLOCK);
    expect(diffOf(disk)).toEqual({ disk, size: 40 * BLOCK, base, baseSize: 40 * BLOCK, ranges: [] });
    expect(diffOf(mountpoint, ['--written']).ranges).toEqual([]);
    put(disk, 5 * BLOCK + 7, Buffer.from('x'));
    put(disk, 8 * BLOCK, filled(1, 3 * BLOCK));
    // As it was: written, and no different.
    put(disk, 10 * BLOCK, original.subarray(10 * BLOCK, 20 * BLOCK));
    expect(diffOf(disk).ranges).toEqual([range(5, 1), range(8, 2)]);
    expect(diffOf(disk, ['--written']).ranges).toEqual([range(5, 1), range(8, 12)]);
    expect(blocksOf(diffOf(disk).ranges)).toEqual(differingBlocks(readThrough(disk), original));
    await untilThawed(mountpoint);
  });

  test('grown and cut disks, of odd sizes', (context) => {
    const { disk, original } = mountSessions(mode, context, [], 40 * BLOCK + 100);
    truncateSync(disk, 50 * BLOCK + 1);
    expect(diffOf(disk)).toMatchObject({ size: 50 * BLOCK + 1, baseSize: 40 * BLOCK + 100, ranges: [] });
    put(disk, 50 * BLOCK, Buffer.from('!'));
    expect(diffOf(disk).ranges).toEqual([{ offset: 50 * BLOCK, length: 1, kind: 'data' }]);
    truncateSync(disk, 20 * BLOCK + 9);
    expect(diffOf(disk)).toMatchObject({ size: 20 * BLOCK + 9, ranges: [] });
    truncateSync(disk, 45 * BLOCK);
    // The rest of the block in which it was cut, and of the base all that is hidden now.
    expect(diffOf(disk).ranges).toEqual([range(20, 1), range(21, 20, 'zero')]);
    expect(blocksOf(diffOf(disk).ranges)).toEqual(differingBlocks(readThrough(disk), original));
    truncateSync(disk, 0);
    expect(diffOf(disk)).toMatchObject({ size: 0, ranges: [] });
  });
});

test('trims: zeros where the base has data, nothing where it has none', () => {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, filled(1, 20 * BLOCK));
  must('fallocate', ['-p', '-o', String(4 * BLOCK), '-l', String(4 * BLOCK), base]);
  // Zeros that are written, not a hole.
  const content = readFileSync(base).fill(0, 12 * BLOCK, 14 * BLOCK);
  writeFileSync(base, content);
  must('fallocate', ['-p', '-o', String(4 * BLOCK), '-l', String(4 * BLOCK), base]);
  const { disk } = mountDisk(base, makeMountpoint(directory));
  must('fallocate', ['-p', '-o', String(2 * BLOCK), '-l', String(14 * BLOCK), disk]);
  put(disk, 17 * BLOCK, Buffer.alloc(BLOCK));
  expect(diffOf(disk).ranges).toEqual([
    range(2, 2, 'zero'),
    range(8, 4, 'zero'),
    range(14, 2, 'zero'),
    // Zeros by write(2) are data.
    range(17, 1),
  ]);
  expect(diffOf(disk, ['--written']).ranges).toEqual([range(2, 14, 'zero'), range(17, 1)]);
  put(disk, 2 * BLOCK, content.subarray(2 * BLOCK, 4 * BLOCK));
  expect(diffOf(disk).ranges.at(0)).toEqual(range(8, 4, 'zero'));
});

test('the table', () => {
  const directory = scratch();
  const base = makeBase(directory, 20 * BLOCK);
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory));
  const none = mustCowfs(['diff', mountpoint]);
  expect(none).toBe('          OFFSET        LENGTH  NOW\n0 B differ\n');
  put(disk, BLOCK, filled(1, 2 * BLOCK));
  must('fallocate', ['-p', '-o', String(9 * BLOCK), '-l', String(BLOCK), disk]);
  const lines = mustCowfs(['diff', mountpoint]).split('\n');
  expect(lines).toEqual([
    '          OFFSET        LENGTH  NOW',
    '            4096          8192  other data',
    '           36864          4096  zeros',
    '12.0 KiB differ',
    '',
  ]);
  truncateSync(disk, 30 * BLOCK);
  expect(mustCowfs(['diff', disk])).toMatch(/\n12\.0 KiB differ; the disk is 120\.0 KiB, the base 80\.0 KiB\n$/);
});

test('the table of --written does not say that it differs', () => {
  const directory = scratch();
  const base = makeBase(directory, 20 * BLOCK);
  const { disk } = mountDisk(base, makeMountpoint(directory));
  put(disk, 0, readFileSync(base).subarray(0, BLOCK));
  const table = mustCowfs(['diff', disk, '--written']);
  expect(table).toContain('4.0 KiB');
  expect(table).not.toContain('differ');
  expect(table).not.toContain('other data');
});

test('through snapshots, forks and ways back', () => {
  const { at, disk, original } = mountSessions(WRITEBACK, undefined, [], 40 * BLOCK);
  put(disk, 0, filled(1, BLOCK));
  mustCowfs(['snapshot', disk, 's']);
  put(disk, 2 * BLOCK, filled(2, BLOCK));
  mustCowfs(['fork', disk, at('f.raw')]);
  put(disk, 4 * BLOCK, filled(3, BLOCK));
  put(at('f.raw'), 0, original.subarray(0, BLOCK));
  must('fallocate', ['-p', '-o', String(2 * BLOCK), '-l', String(BLOCK), at('f.raw')]);
  expect(diffOf(disk).ranges).toEqual([range(0, 1), range(2, 1), range(4, 1)]);
  expect(diffOf(at('f.raw')).ranges).toEqual([range(2, 1, 'zero')]);
  expect(diffOf(at('f.raw'), ['--written']).ranges).toEqual([range(0, 1), range(2, 1, 'zero')]);
  mustCowfs(['rollback', disk, 's']);
  expect(diffOf(disk).ranges).toEqual([range(0, 1)]);
  mustCowfs(['reset', disk]);
  expect(diffOf(disk, ['--written']).ranges).toEqual([]);
});

test('of a disk in use: what was accepted before is in it', () => {
  const { disk } = mountSessions(WRITEBACK, undefined, [], 40 * BLOCK);
  const fd = opened(disk);
  for (let block = 0; block < 30; block += 3) {
    writeFileSync(`/proc/self/fd/${fd}`, filled(block, 10), { flag: 'r+' });
    put(disk, block * BLOCK, filled(block, 10));
    expect(blocksOf(diffOf(disk).ranges)).toContain(block);
  }
});

test('a kept disk, mounted and not', async () => {
  const kept = keptDisk([], 40 * BLOCK);
  put(kept.disk, 7 * BLOCK, filled(1, BLOCK));
  must('fallocate', ['-p', '-o', '0', '-l', String(BLOCK), kept.disk]);
  const expected = [range(0, 1, 'zero'), range(7, 1)];
  expect(diffOf(kept.disk).ranges).toEqual(expected);
  expect(diffOf(kept.mountpoint, ['--written']).ranges).toEqual(expected);
  await unmounted(kept);
  expect(diffOf(kept.overlay).ranges).toEqual(expected);
});

test('a reader that goes away has seen enough', () => {
  const { disk, directory } = mountSessions(WRITEBACK, undefined, [], 32 * MIB);
  const every = filled(1, 100);
  const writes = Array.from({ length: 4000 }, (_, index) => index * 2 * BLOCK);
  writeFileSync(join(directory, 'writer.mjs'), WRITER);
  must(process.execPath, [join(directory, 'writer.mjs'), disk, JSON.stringify(writes), every.toString('base64')]);
  expect(diffOf(disk).ranges).toHaveLength(4000);
  for (const options of [[], ['--json'], ['--written'], ['--map']]) {
    for (const reader of ['head -n 1', 'head -c 1', 'true']) {
      const script = `set -o pipefail; "$0" "$@" | ${reader}`;
      const { status, stderr } = run('bash', ['-c', script, COWFS, 'diff', disk, ...options]);
      expect({ options, reader, status, stderr }).toEqual({ options, reader, status: 0, stderr: '' });
    }
  }
});

const WRITER = `
import { openSync, writeSync } from 'node:fs';
const fd = openSync(process.argv[2], 'r+');
const bytes = Buffer.from(process.argv[4], 'base64');
for (const at of JSON.parse(process.argv[3])) writeSync(fd, bytes, 0, bytes.length, at);
`;

test('a full output is no success', () => {
  const { disk } = mountSessions(WRITEBACK, undefined, [], 40 * BLOCK);
  put(disk, 0, filled(1, BLOCK));
  for (const options of [[], ['--json'], ['--map']]) {
    const script = '"$0" "$@" >/dev/full';
    const { status } = run('sh', ['-c', script, COWFS, 'diff', disk, ...options]);
    expect({ options, status }).not.toEqual({ options, status: 0 });
  }
});

test('a file that is written to by diff holds all of it', () => {
  const { disk, directory } = mountSessions(WRITEBACK, undefined, [], 40 * BLOCK);
  put(disk, 0, filled(1, BLOCK));
  const path = join(directory, 'out.json');
  must('sh', ['-c', '"$0" diff "$1" --json >"$2"', COWFS, disk, path]);
  expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(diffOf(disk));
});

test('what diff does not take', () => {
  const { disk, mountpoint } = mountSessions(WRITEBACK, undefined);
  expectRefusal(cowfs(['diff', disk, '--json', '--map']), 2, '--json');
  expectRefusal(cowfs(['diff', `${mountpoint}/nothing.raw`]), 2);
  expect(cowfs(['diff']).status).toBe(2);
  expect(cowfs(['diff', disk, disk]).status).toBe(2);
});
