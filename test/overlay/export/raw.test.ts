/** Raw images: the same bytes, holes where the disk has them, and what is said when a side fails. */
import { closeSync, openSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { exportRaw } from '../../../src/overlay/export/raw.ts';
import type { ExportSource, OnProgress } from '../../../src/overlay/export/source.ts';
import { scratch } from '../../harness.ts';
import { needsRoot, tmpfs } from '../../integration/machine-support.ts';
import { difference, errorOf, readDisk, useDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { FileSource } from './file-source.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;
let images = 0;

function exportTo(directory: string, source: ExportSource, onProgress: OnProgress = () => {}): string {
  const path = join(directory, `image-${images++}`);
  const fd = openSync(path, 'wx+');
  try {
    exportRaw(source, fd, 'IMAGE', onProgress);
  } finally {
    closeSync(fd);
  }
  return path;
}

test.each([1, 511, 4095, 4096, 4097, 130_000, 3 * MIB + 1])('a disk of %i bytes', (sizeBytes) => {
  const directory = scratch();
  const { disk } = useDisk({ directory, content: nonZeroBytes(sizeBytes, 1) });
  disk.write(0, 1, Buffer.from([7]), 0);
  disk.write(sizeBytes - 1, 1, Buffer.from([9]), 0);
  expect(difference(readFileSync(exportTo(directory, disk.layer)), readDisk(disk))).toBe(undefined);
});

test('a disk of no bytes', () => {
  const directory = scratch();
  const { disk } = useDisk({ directory, content: nonZeroBytes(BLOCK, 1) });
  disk.truncate(0);
  const told: [number, number][] = [];
  expect(statSync(exportTo(directory, disk.layer, (...now) => told.push(now))).size).toBe(0);
  expect(told).toEqual([[0, 0]]);
});

test('longer than the base, with what was cut in between', () => {
  const directory = scratch();
  const { disk } = useDisk({ directory, content: nonZeroBytes(20 * BLOCK, 1) });
  disk.truncate(10 * BLOCK + 9);
  disk.truncate(50 * BLOCK + 3);
  disk.write(40 * BLOCK, 5, nonZeroBytes(5, 2), 0);
  const image = exportTo(directory, disk.layer);
  expect(difference(readFileSync(image), readDisk(disk))).toBe(undefined);
  expect(statSync(image).blocks * 512).toBeLessThanOrEqual(12 * BLOCK);
});

test('holes stay holes: of the base, of trims, of layers', () => {
  const directory = scratch();
  const blocks = 400;
  const holes = Array.from({ length: blocks }, (_, block) => block).filter((block) => block % 100 >= 20);
  const content = nonZeroBytes(blocks * BLOCK, 1);
  for (const block of holes) content.fill(0, block * BLOCK, (block + 1) * BLOCK);
  const { sessions, session } = useDisk({ directory, content, holes });
  const disk = sessions.open(session);
  disk.write(50 * BLOCK, 10 * BLOCK, nonZeroBytes(10 * BLOCK, 2), 0);
  const below = sessions.snapshot(session);
  const top = sessions.open(session);
  top.discard(0, 10 * BLOCK);
  top.discard(55 * BLOCK, 5 * BLOCK);
  const image = exportTo(directory, top.layer);
  expect(difference(readFileSync(image), readDisk(top))).toBe(undefined);
  // 10 of the first 20, three times 20, 5 of 10.
  expect(statSync(image).blocks * 512).toBe((10 + 60 + 5) * BLOCK);
  for (const fd of sessions.layers.release(below)) closeSync(fd);
});

test('progress goes from nothing to all of what is data', () => {
  const directory = scratch();
  const source = new FileSource({ directory, baseBytes: 64 * MIB, baseData: [[0, 40 * MIB]] });
  source.write(12_000, 300).zero(0, 256);
  const told: [number, number][] = [];
  const image = exportTo(directory, source, (...now) => told.push(now));
  const total = told[0]?.[1] ?? 0;
  expect(told[0]?.[0]).toBe(0);
  expect(told.at(-1)).toEqual([total, total]);
  expect(told.every(([, each]) => each === total)).toBe(true);
  expect(told.map(([done]) => done)).toEqual(told.map(([done]) => done).sort((a, b) => a - b));
  expect(total).toBe(39 * MIB + 300 * BLOCK);
  expect(difference(readFileSync(image), readFileSync(source.expected()))).toBe(undefined);
  expect(source.longestRead).toBeLessThanOrEqual(MIB);
});

test('who is told may end it', () => {
  const directory = scratch();
  const source = new FileSource({ directory, baseBytes: 8 * MIB });
  expect(() =>
    exportTo(directory, source, (done) => {
      if (done > 0) throw new Error('enough');
    }),
  ).toThrow('enough');
});

test('a source that fails', () => {
  const directory = scratch();
  const source = new FileSource({ directory, baseBytes: 8 * MIB });
  // As far as there is anything the kernel copies it.
  truncateSync(source.basePath, 5 * MIB + 3);
  expect(errorOf(() => exportTo(directory, source))).toBe(
    `failed: reading the disk at offset ${5 * MIB + 3} failed (EIO); check the base and the store`,
  );
});

test('a target without room', (context) => {
  needsRoot(context);
  const directory = scratch();
  const source = new FileSource({ directory, baseBytes: 8 * MIB });
  expect(errorOf(() => exportTo(tmpfs(directory, '4M'), source))).toBe(
    'missing: IMAGE: no room left (ENOSPC); make room there',
  );
});

test('a target that cannot be so large, or not be written to at all', () => {
  const directory = scratch();
  const { disk } = useDisk({ directory, content: nonZeroBytes(BLOCK, 1) });
  disk.truncate(2 ** 52);
  expect(errorOf(() => exportTo(directory, disk.layer))).toMatch(/^failed: IMAGE cannot be written \(EFBIG\)$/);
  disk.truncate(BLOCK);
  const path = exportTo(directory, disk.layer);
  const fd = openSync(path, 'r');
  expect(errorOf(() => exportRaw(disk.layer, fd, 'IMAGE', () => {}))).toMatch(/^failed: IMAGE cannot be written \(E/);
  closeSync(fd);
});
