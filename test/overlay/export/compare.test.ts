/** Which ranges differ from the base, and which were written, against every block of both compared one by one. */
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { Base } from '../../../src/base/base.ts';
import { EIO, OK } from '../../../src/lib/errno.ts';
import { CowfsError } from '../../../src/lib/error.ts';
import { type ChangedRange, changedRanges, writtenRanges } from '../../../src/overlay/export/compare.ts';
import { scratch } from '../../harness.ts';
import { openDisk, readDisk, useDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { FileSource } from './file-source.ts';

vi.setConfig({ testTimeout: 120_000 });

const BLOCK = 4096;
const MIB = 2 ** 20;
const BASE_BYTES = 30 * BLOCK + 100;

const range = (first: number, count: number, kind: ChangedRange['kind'] = 'data'): ChangedRange => ({
  offset: first * BLOCK,
  length: count * BLOCK,
  kind,
});

function blocksOf(ranges: readonly ChangedRange[]): number[] {
  return ranges.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / BLOCK) }, (_, index) => offset / BLOCK + index),
  );
}

/** Ascending, in blocks, nothing empty, nothing twice, neighbours of one kind put together. */
function expectOrdered(ranges: readonly ChangedRange[], sizeBytes: number): void {
  let before: ChangedRange | undefined;
  for (const each of ranges) {
    const end = before === undefined ? 0 : before.offset + before.length;
    expect(each.offset % BLOCK).toBe(0);
    expect(each.length).toBeGreaterThan(0);
    expect(each.offset).toBeGreaterThanOrEqual(end);
    if (before !== undefined && each.offset === end) expect(each.kind).not.toBe(before.kind);
    const last = each.offset + each.length;
    expect(last % BLOCK === 0 || last === sizeBytes).toBe(true);
    before = each;
  }
}

const step = fc.oneof(
  fc.record({
    kind: fc.constantFrom('write' as const, 'same' as const, 'zeros' as const),
    offset: fc.nat({ max: 40 * BLOCK }),
    length: fc.integer({ min: 1, max: 5 * BLOCK }),
    seed: fc.nat({ max: 1000 }),
  }),
  fc.record({
    kind: fc.constant('discard' as const),
    offset: fc.nat({ max: 40 * BLOCK }),
    length: fc.integer({ min: 1, max: 9 * BLOCK }),
  }),
  fc.record({ kind: fc.constant('truncate' as const), size: fc.nat({ max: 45 * BLOCK }) }),
  fc.record({ kind: fc.constant('freeze' as const) }),
);

test('random disks', () => {
  const directory = scratch();
  const holes = [3, 4, 5, 20];
  const content = nonZeroBytes(BASE_BYTES, 1);
  for (const block of [...holes, 11, 12]) content.fill(0, block * BLOCK, (block + 1) * BLOCK);
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 15, size: 'max' }), (steps) => {
      const fixture = openDisk({ directory, content, holes });
      const { sessions, session, baseFd } = fixture;
      const written = new Set<number>();
      try {
        for (const each of steps) {
          const disk = sessions.open(session);
          if (each.kind === 'freeze') sessions.freeze(session);
          else if (each.kind === 'truncate') disk.truncate(each.size);
          else if (each.kind === 'discard') disk.discard(each.offset, each.length);
          else {
            const bytes = each.kind === 'write' ? nonZeroBytes(each.length, each.seed) : Buffer.alloc(each.length);
            if (each.kind === 'same') bytes.set(content.subarray(each.offset, each.offset + each.length));
            disk.write(each.offset, each.length, bytes, 0);
            const end = Math.ceil((each.offset + each.length) / BLOCK);
            for (let block = Math.floor(each.offset / BLOCK); block < end; block++) written.add(block);
          }
          if (each.kind === 'truncate')
            for (const block of written) if (block * BLOCK >= each.size) written.delete(block);
        }
        const disk = sessions.open(session);
        const now = readDisk(disk);
        const base = new Base({ fd: baseFd, sizeBytes: BASE_BYTES, hasHoles: true });
        const shown = Buffer.alloc(Math.max(now.length, BASE_BYTES));
        content.copy(shown);
        const differing: number[] = [];
        for (let at = 0; at < now.length; at += BLOCK) {
          const end = Math.min(at + BLOCK, now.length);
          if (now.compare(shown, at, end, at, end) !== 0) differing.push(at / BLOCK);
        }
        const changed = [...changedRanges(disk.layer, base)];
        expect(blocksOf(changed)).toEqual(differing);
        expectOrdered(changed, now.length);
        for (const { offset, length, kind } of changed) {
          if (kind === 'zero') expect(now.subarray(offset, offset + length).some((byte) => byte !== 0)).toBe(false);
        }
        const listed = [...writtenRanges(disk.layer)];
        expectOrdered(listed, now.length);
        const blocks = new Set(blocksOf(listed));
        expect(differing.filter((block) => !blocks.has(block))).toEqual([]);
        expect([...written].filter((block) => !blocks.has(block))).toEqual([]);
      } finally {
        fixture.close();
        rmSync(fixture.basePath);
      }
    }),
    { numRuns: 300 },
  );
});

test('written as it was: written, not different', () => {
  const content = nonZeroBytes(BASE_BYTES, 1);
  const { disk, baseFd } = useDisk({ directory: scratch(), content });
  const base = new Base({ fd: baseFd, sizeBytes: BASE_BYTES, hasHoles: true });
  disk.write(5 * BLOCK, 3 * BLOCK, content, 5 * BLOCK);
  expect([...changedRanges(disk.layer, base)]).toEqual([]);
  expect([...writtenRanges(disk.layer)]).toEqual([range(5, 3)]);
  disk.write(6 * BLOCK, 1, Buffer.from([0]), 0);
  expect([...changedRanges(disk.layer, base)]).toEqual([range(6, 1)]);
});

test('the last block may be a part of one', () => {
  const content = nonZeroBytes(BASE_BYTES, 1);
  const { disk, baseFd } = useDisk({ directory: scratch(), content });
  const base = new Base({ fd: baseFd, sizeBytes: BASE_BYTES, hasHoles: true });
  disk.write(BASE_BYTES - 1, 1, Buffer.from([0]), 0);
  expect([...changedRanges(disk.layer, base)]).toEqual([{ offset: 30 * BLOCK, length: 100, kind: 'data' }]);
  disk.discard(30 * BLOCK, BLOCK);
  expect([...changedRanges(disk.layer, base)]).toHaveLength(1);
});

test('terabytes that were trimmed cost what the base has there', () => {
  const directory = scratch();
  const source = new FileSource({
    directory,
    baseBytes: 2 ** 42,
    baseData: [
      [0, MIB],
      [2 ** 41 + 5000, 10],
    ],
  });
  source.zero(0, 2 ** 30);
  const baseFd = source.placeFd;
  expect(baseFd).toBe(-1);
  const startMs = performance.now();
  const found: ChangedRange[] = [];
  const { basePath } = source;
  const fd = openBase(basePath);
  for (const each of changedRanges(source, new Base({ fd, sizeBytes: 2 ** 42, hasHoles: true }))) found.push(each);
  closeSync(fd);
  expect(found).toEqual([range(0, 256, 'zero'), range(2 ** 29 + 1, 1, 'zero')]);
  expect(performance.now() - startMs).toBeLessThan(5000);
  expect([...writtenRanges(source)]).toEqual([range(0, 2 ** 30, 'zero')]);
});

function openBase(path: string): number {
  return openSync(path, 'r');
}

test('a base that cannot be read, and a disk', () => {
  const content = nonZeroBytes(BASE_BYTES, 1);
  const { disk, baseFd } = useDisk({ directory: scratch(), content });
  disk.write(20 * BLOCK, BLOCK, nonZeroBytes(BLOCK, 2), 0);
  const base = new Base({ fd: baseFd, sizeBytes: BASE_BYTES, hasHoles: true });
  ftruncateSync(baseFd, 10 * BLOCK);
  expect(disk.read(15 * BLOCK, 1, Buffer.alloc(1), 0)).toBe(EIO);
  expect(() => [...changedRanges(disk.layer, base)]).toThrow(CowfsError);
  expect(() => [...changedRanges(disk.layer, base)]).toThrow(/offset 81920 .*EIO/);
  expect([...writtenRanges(disk.layer)]).toEqual([range(20, 1)]);
  expect(disk.read(20 * BLOCK, 1, Buffer.alloc(1), 0)).toBe(OK);
});
