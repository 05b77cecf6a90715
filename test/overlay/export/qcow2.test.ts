/**
 * qcow2 images as QEMU sees them: whole by its own check, the same bytes as the disk, and no larger than they have to be.
 */
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { OK } from '../../../src/lib/errno.ts';
import { BASE, STORE } from '../../../src/overlay/block.ts';
import { exportQcow2 } from '../../../src/overlay/export/qcow2.ts';
import { encodeHeader, geometryOf, refcountsOf } from '../../../src/overlay/export/qcow2-layout.ts';
import type { ExportSource, OnProgress } from '../../../src/overlay/export/source.ts';
import { isRoot, lacks, must, scratch } from '../../harness.ts';
import { needsRoot, tmpfs } from '../../integration/machine-support.ts';
import { errorOf, readDisk, useDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { FileSource, type SourceOptions } from './file-source.ts';

vi.setConfig({ testTimeout: 120_000 });

const BLOCK = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;

type Backing = { readonly path: string; readonly sizeBytes: number } | undefined;

const silent: OnProgress = () => {};
let images = 0;

/** Exports to a new file; its path. */
function exportTo(directory: string, source: ExportSource, backing: Backing, onProgress = silent): string {
  const path = join(directory, `image-${images++}.qcow2`);
  const fd = openSync(path, 'wx');
  try {
    exportQcow2(source, fd, { what: 'IMAGE', backing, onProgress });
  } finally {
    closeSync(fd);
  }
  return path;
}

function makeSource(options: Omit<SourceOptions, 'directory'>): FileSource {
  return new FileSource({ directory: scratch(), ...options });
}

describe('bytes', () => {
  test('the header of an image with a backing file', () => {
    const geometry = geometryOf(3 * GIB, true);
    const bytes = encodeHeader({
      ...geometry,
      l1_table_offset: 0x1_2345_6000,
      refcount_table_offset: 0x1_2345_9000,
      refcount_table_clusters: 1,
      backing: Buffer.from('/a b'),
    });
    const rows = [
      '51 46 49 fb', // magic
      '00 00 00 03', // version
      '00 00 00 00 00 00 00 80', // backing_file_offset
      '00 00 00 04', // backing_file_size
      '00 00 00 0c', // cluster_bits
      '00 00 00 00 c0 00 00 00', // size
      '00 00 00 00', // crypt_method
      '00 00 06 00', // l1_size
      '00 00 00 01 23 45 60 00', // l1_table_offset
      '00 00 00 01 23 45 90 00', // refcount_table_offset
      '00 00 00 01', // refcount_table_clusters
      '00 00 00 00', // nb_snapshots
      '00 00 00 00 00 00 00 00', // snapshots_offset
      '00 00 00 00 00 00 00 00', // incompatible_features
      '00 00 00 00 00 00 00 00', // compatible_features
      '00 00 00 00 00 00 00 00', // autoclear_features
      '00 00 00 04', // refcount_order
      '00 00 00 68', // header_length
      'e2 79 2a ca 00 00 00 03 72 61 77 00 00 00 00 00', // extension: backing file format, 3 bytes, raw
      '00 00 00 00 00 00 00 00', // end of the extensions
      '2f 61 20 62', // the name
    ];
    expect(bytes.toString('hex')).toBe(rows.join('').replaceAll(' ', ''));
  });

  test.each([
    [0, true, 12, 0],
    [1, true, 12, 1],
    [TIB, true, 12, 2 ** 19],
    [TIB + 1, true, 13, 2 ** 17 + 1],
    [8 * TIB, true, 14, 2 ** 18],
    [2 ** 52, true, 18, 2 ** 19],
    [Number.MAX_SAFE_INTEGER, true, 19, 2 ** 18],
    [0, false, 16, 0],
    [TIB, false, 16, 2048],
    [2 ** 52, false, 18, 2 ** 19],
  ])('%d bytes, with a backing file: %s', (bytes, hasBacking, cluster_bits, l1_size) => {
    expect(geometryOf(bytes, hasBacking)).toMatchObject({ cluster_bits, l1_size });
  });

  test('refcounts count themselves, with nothing to spare', () => {
    const clusterBytes = BLOCK;
    const perBlock = clusterBytes / 2;
    // Around the edges of blocks and of clusters of the table.
    const edges = [1, perBlock, 2 * perBlock, 511 * perBlock, 512 * perBlock, 513 * perBlock, 1024 * perBlock, 2 ** 32];
    for (const edge of edges) {
      for (let before = Math.max(1, edge - 1030); before < edge + 10; before++) {
        const { blocks, refcount_table_clusters, clusters } = refcountsOf(before, clusterBytes);
        expect(clusters).toBe(before + blocks + refcount_table_clusters);
        expect(blocks).toBe(Math.ceil(clusters / perBlock));
        expect(refcount_table_clusters).toBe(Math.ceil((blocks * 8) / clusterBytes));
      }
    }
  });
});

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
}

function mapOf(image: string): MapEntry[] {
  return JSON.parse(must('qemu-img', ['map', '-f', 'qcow2', '--output=json', image])) as MapEntry[];
}

/** What the image itself has, as `start+length` in blocks, `z` for zeros that it says are there. */
function ownOf(image: string): string {
  return mapOf(image)
    .filter(({ depth, present, data, zero }) => depth === 0 && present && (data || zero))
    .map(({ start, length, zero }) => `${zero ? 'z' : ''}${start / BLOCK}+${length / BLOCK}`)
    .join(' ');
}

/** The image is in order, and says the same as the disk. */
function expectGood(image: string, source: FileSource, backing: Backing): void {
  const info = JSON.parse(must('qemu-img', ['info', '--output=json', image]));
  const { cluster_bits, size } = geometryOf(source.sizeBytes, backing !== undefined);
  expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': size, 'cluster-size': 2 ** cluster_bits });
  expect(info['format-specific'].data).toMatchObject({ compat: '1.1', 'refcount-bits': 16, corrupt: false });
  expect([info['full-backing-filename'], info['backing-filename-format']]).toEqual(
    backing === undefined ? [undefined, undefined] : [backing.path, 'raw'],
  );
  // Any leak or error is an exit code of its own.
  const check = JSON.parse(must('qemu-img', ['check', '-f', 'qcow2', '--output=json', image]));
  expect(check).toMatchObject({ 'check-errors': 0, 'image-end-offset': statSync(image).size });
  must('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, source.expected()]);
}

/** Exports, and has QEMU look at it. */
function good(source: FileSource, isBacked: boolean): string {
  const backing = isBacked ? { path: source.basePath, sizeBytes: source.baseBytes } : undefined;
  const image = exportTo(scratch(), source, backing);
  expectGood(image, source, backing);
  return image;
}

const noQemu = lacks('qemu-img', 'qemu-io');
if (noQemu !== undefined) console.warn(`exported images are not shown to QEMU: ${noQemu}`);

describe.skipIf(noQemu !== undefined).each([
  { isBacked: true, kind: 'over its base' },
  { isBacked: false, kind: 'stand-alone' },
])('$kind', ({ isBacked }) => {
  test.each([0, 1, 512, 4096, 4097, 130_000, MIB, MIB + 512])('a disk of %d bytes', (bytes) => {
    good(makeSource({ baseBytes: bytes }), isBacked);
    const blocks = Math.ceil(bytes / BLOCK);
    if (blocks === 0) return;
    good(makeSource({ baseBytes: bytes }).write(0), isBacked);
    good(makeSource({ baseBytes: bytes }).write(blocks - 1), isBacked);
    good(makeSource({ baseBytes: bytes }).write(0, blocks), isBacked);
    good(makeSource({ baseBytes: bytes }).zero(0, blocks), isBacked);
    good(makeSource({ baseBytes: bytes, baseData: [] }), isBacked);
  });

  test.each([3 * GIB, 64 * GIB, 8 * TIB])('a sparse disk of %d bytes', (bytes) => {
    const baseData = [0, 12_345, GIB - 3, bytes / 2 - 100_000, bytes - 65_536].map((at) => [at, 65_536] as const);
    const source = makeSource({ baseBytes: bytes, baseData });
    const last = bytes / BLOCK - 1;
    const { clusterBytes, l2_entries } = geometryOf(bytes, isBacked);
    const clusterBlocks = clusterBytes / BLOCK;
    const tableBlocks = l2_entries * clusterBlocks;
    for (const edge of [1, 2, 3, Math.floor(last / tableBlocks)]) source.write(edge * tableBlocks - 1, 2);
    // More clusters than a refcount block counts at 4 KiB, across two tables.
    source.write(5 * tableBlocks - 1000, 2100);
    source.zero(tableBlocks * 7 - 5, 10 + tableBlocks).write(last);
    const started = performance.now();
    const image = good(source, isBacked);
    expect(performance.now() - started).toBeLessThan(60_000);
    expect(statSync(image).size).toBeLessThan(
      source.occupiedBytes + (isBacked ? 4 * MIB : 2 * MIB) + 64 * clusterBytes,
    );
  });

  test.each([
    ['larger than the base', 300_003, 70_001],
    ['much larger', 5 * MIB, 4097],
    ['smaller', 70_001, 300_003],
    ['a sector smaller', MIB - 512, MIB],
    ['a byte smaller', MIB - 1, MIB],
    ['smaller by some of a sector', 130_000, 130_001],
    ['larger by some of a sector', 130_001, 130_000],
    ['over an empty base', 130_000, 0],
    ['nothing over a base', 0, 130_000],
  ])('a disk that is %s', (_, sizeBytes, baseBytes) => {
    const blocks = Math.ceil(sizeBytes / BLOCK);
    good(makeSource({ sizeBytes, baseBytes }), isBacked);
    if (blocks === 0) return;
    good(makeSource({ sizeBytes, baseBytes }).zero(blocks - 1), isBacked);
    good(makeSource({ sizeBytes, baseBytes }).write(blocks - 1), isBacked);
    good(
      makeSource({ sizeBytes, baseBytes })
        .zero(0, blocks)
        .write(Math.floor(blocks / 2)),
      isBacked,
    );
  });

  test('a disk that was written all over takes more than one refcount block', () => {
    const source = makeSource({ baseBytes: 40 * MIB, baseData: [] }).write(0, 10_240);
    expect(statSync(good(source, isBacked)).size).toBeLessThan(40.5 * MIB);
  });

  test('a disk written in every other block', () => {
    const source = makeSource({ baseBytes: 24 * MIB + 5000, baseData: [] });
    for (let block = 0; block * BLOCK < source.sizeBytes; block += 2) source.write(block);
    good(source, isBacked);
  });

  test('zeros that were written take no room', () => {
    const source = makeSource({ baseBytes: 16 * MIB, baseData: [] });
    source.writeZeros(0, 4096).write(100).write(3000, 20);
    expect(statSync(good(source, isBacked)).size).toBeLessThan(MIB);
  });

  test('any disk', () => {
    const operation = fc.record({
      kind: fc.constantFrom('write', 'writeZeros', 'zero'),
      first: fc.nat(1599),
      count: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 600 })),
    } as const);
    const island = fc.tuple(fc.nat(6 * MIB), fc.integer({ min: 1, max: 200_000 }));
    // Past 1 TiB a cluster has several blocks, also over a base.
    const size = fc.oneof(
      { weight: 6, arbitrary: fc.nat(6_500_000) },
      { weight: 4, arbitrary: fc.nat(200_000) },
      { weight: 1, arbitrary: fc.constantFrom(TIB + 4096, 5 * TIB + 512) },
    );
    const disk = fc.record({
      baseBytes: size,
      sizeBytes: size,
      baseData: fc.array(island, { maxLength: 5 }),
      operations: fc.array(operation, { maxLength: 12 }),
    });
    fc.assert(
      fc.property(disk, ({ baseBytes, sizeBytes, baseData, operations }) => {
        const islands = baseData
          .map(([at, length]) => [at, Math.min(length, baseBytes - at)] as const)
          .filter(([, length]) => length > 0);
        const source = makeSource({ baseBytes, sizeBytes, baseData: islands });
        for (const { kind, first, count } of operations) {
          if (first * BLOCK < sizeBytes) source[kind](first, count);
        }
        const image = good(source, isBacked);
        if (sizeBytes > 2 ** 24) return;
        const raw = `${image}.raw`;
        must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, raw]);
        expect(readFileSync(raw).equals(readFileSync(source.expected()))).toBe(true);
      }),
      { seed: 20, numRuns: 60 },
    );
  });

  test('an image can be written to, and grows', () => {
    const source = makeSource({ baseBytes: MIB }).write(3, 5).zero(20, 30);
    const image = good(source, isBacked);
    must('qemu-img', ['resize', '-q', '-f', 'qcow2', image, '3M']);
    must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 10k 2500k', '-c', 'discard 64k 128k', image]);
    must('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
  });
});

describe.skipIf(noQemu !== undefined)('what an image over a base has', () => {
  test('clusters that were written or trimmed, and no others', () => {
    const source = makeSource({ baseBytes: 8 * MIB });
    source.write(1).write(511, 2).zero(600, 700).write(1000).write(2047).writeZeros(1500, 2);
    // 512 blocks are in one L2 table.
    expect(ownOf(good(source, true))).toBe('1+1 511+1 512+1 z600+400 1000+1 z1001+299 z1500+2 2047+1');
  });

  test('nothing of what lies past the end of the base and was trimmed', () => {
    const source = makeSource({ baseBytes: 10 * BLOCK, sizeBytes: 8 * MIB })
      .zero(0, 2048)
      .write(100)
      .writeZeros(300);
    expect(ownOf(good(source, true))).toBe('z0+10 100+1');
  });

  test('clusters of several blocks: whole where any block was written or some were trimmed', () => {
    // 16 KiB, four blocks.
    const source = makeSource({ baseBytes: 8 * TIB, baseData: [[0, MIB]] });
    source.write(1).zero(8, 4).zero(13).zero(16, 2).write(18, 2).zero(20, 7).writeZeros(32, 4);
    expect(ownOf(good(source, true))).toBe('0+4 z8+4 12+8 z20+4 24+4 z32+4');
  });

  test('a last cluster that the end of the disk cuts off counts as whole', () => {
    const baseBytes = 5 * TIB + 2 * BLOCK;
    const last = baseBytes / BLOCK - 2;
    const source = makeSource({ baseBytes, baseData: [[last * BLOCK, 2 * BLOCK]] });
    expect(ownOf(good(source, true))).toBe('');
    expect(ownOf(good(source.zero(last, 2), true))).toBe(`z${last}+2`);
  });

  test('a base that was trimmed from end to end costs 8 bytes a cluster', () => {
    const source = makeSource({ baseBytes: 4 * GIB, baseData: [[MIB, MIB]] }).zero(0, 2 ** 20);
    expect(statSync(good(source, true)).size).toBeLessThan(9 * MIB);
  });

  test('nothing', () => {
    expect(statSync(good(makeSource({ baseBytes: MIB }), true)).size).toBe(4 * BLOCK);
  });
});

describe.skipIf(noQemu !== undefined)('the name of the backing file', () => {
  test.each(['a base.img', 'größe – 磁盘.img', 'a:b.img', 'json:{}.img', "it's\\n"])('%s', (baseName) => {
    const directory = scratch();
    const source = new FileSource({ directory, baseBytes: 70_000, baseName }).write(3);
    const absolute = { path: source.basePath, sizeBytes: 70_000 };
    expectGood(exportTo(directory, source, absolute), source, absolute);
    // Relative to where the image is.
    const image = exportTo(directory, source, { path: basename(source.basePath), sizeBytes: 70_000 });
    must('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, source.expected()]);
  });

  test('1023 bytes, and no more', () => {
    const directory = scratch();
    const part = 'ä'.repeat(100);
    let inside = directory;
    while (Buffer.byteLength(inside) < 1023 - 210) inside = join(inside, part);
    mkdirSync(inside, { recursive: true });
    const baseName = 'b'.repeat(1023 - Buffer.byteLength(inside) - 1);
    const source = new FileSource({ directory: inside, baseBytes: 70_000, baseName }).write(3);
    expect(Buffer.byteLength(source.basePath)).toBe(1023);
    const backing = { path: source.basePath, sizeBytes: 70_000 };
    expectGood(exportTo(directory, source, backing), source, backing);
    const tooLong = { ...backing, path: `${backing.path}b` };
    expect(errorOf(() => exportTo(directory, source, tooLong))).toMatch(
      /^usage: .* 1023 bytes, .* 1024; give the base/,
    );
  });
});

describe('a real disk', () => {
  test.skipIf(noQemu !== undefined).each([true, false])(
    'in layers, cut and grown again; over its base: %s',
    (isBacked) => {
      const content = nonZeroBytes(3 * MIB + 77, 3);
      const directory = scratch();
      const { disk, basePath } = useDisk({ directory, content });
      const data = nonZeroBytes(200_000, 4);
      expect(disk.write(12_345, data.length, data, 0)).toBe(OK);
      expect(disk.truncate(2 * MIB + 1001)).toBe(OK);
      expect(disk.truncate(4 * MIB + 13)).toBe(OK);
      expect(disk.write(4 * MIB, 13, data, 0)).toBe(OK);
      const backing = isBacked ? { path: basePath, sizeBytes: content.length } : undefined;
      const image = exportTo(directory, disk.layer, backing);
      must('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
      const raw = join(directory, 'raw');
      writeFileSync(raw, Buffer.concat([readDisk(disk), Buffer.alloc(512 - 13)]));
      must('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, raw]);
    },
  );
});

describe('reading and writing', () => {
  test('one buffer of 1 MiB at a time, however large the disk', () => {
    const source = makeSource({ baseBytes: 256 * MIB, baseData: [] }).write(0, 65_536);
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    exportTo(scratch(), source, { path: source.basePath, sizeBytes: source.baseBytes }, () => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    });
    expect([source.buffers.size, source.longestRead, source.bytesRead]).toEqual([1, MIB, 256 * MIB]);
    expect(most).toBeLessThan(8 * MIB);
  });

  test('of a disk of 4 PiB nothing is looked at but what was written', () => {
    const written = [0, 1, 2 ** 33 + 5, 2 ** 40 - 2];
    let questions = 0;
    // No file system here has files of that size.
    const source = makeSource({ baseBytes: 0 });
    Object.assign(source, { sizeBytes: 2 ** 52 - BLOCK });
    source.read = (_offset, length, into, at) => {
      into.fill(7, at, at + length);
      return OK;
    };
    source.differenceAt = (block, limit) => {
      questions++;
      const next = written.find((at) => at >= block) ?? Number.POSITIVE_INFINITY;
      source.difference = next === block ? STORE : BASE;
      return Math.min(limit, Math.max(1, next - block));
    };
    const started = performance.now();
    const image = exportTo(scratch(), source, { path: source.basePath, sizeBytes: 0 });
    expect(performance.now() - started).toBeLessThan(5000);
    expect(questions).toBeLessThan(50);
    expect(statSync(image).size).toBeLessThan(8 * MIB);
    if (noQemu === undefined) must('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
  });

  test.each([true, false])('progress in bytes up to all of them; over a base: %s', (isBacked) => {
    const source = makeSource({ baseBytes: 20 * MIB, baseData: [] })
      .write(0, 2048)
      .writeZeros(2048, 2048);
    const told: [number, number][] = [];
    const backing = isBacked ? { path: source.basePath, sizeBytes: source.baseBytes } : undefined;
    exportTo(scratch(), source, backing, (...figures) => told.push(figures));
    expect(new Set(told.map(([, total]) => total))).toEqual(new Set([16 * MIB]));
    const done = told.map(([bytes]) => bytes);
    expect(done).toEqual([...done].sort((a, b) => a - b));
    expect([done[0], done.at(-1)]).toEqual([0, 16 * MIB]);
    // Also through zeros, of which nothing is written.
    expect(done.filter((bytes) => bytes > 8 * MIB).length).toBeGreaterThan(4);
    expect(done.length).toBeLessThan(50);
  });

  test('an end that the caller wants leaves no image', () => {
    const source = makeSource({ baseBytes: 20 * MIB, baseData: [] }).write(0, 2048);
    const directory = scratch();
    const stop = new Error('stop');
    const end: OnProgress = (done) => {
      if (done > 0) throw stop;
    };
    const path = join(directory, 'image');
    const fd = openSync(path, 'wx');
    try {
      expect(() => exportQcow2(source, fd, { what: 'IMAGE', backing: undefined, onProgress: end })).toThrow(stop);
    } finally {
      closeSync(fd);
    }
    const head = readFileSync(path).subarray(0, 4);
    expect([...head].every((byte) => byte === 0)).toBe(true);
  });

  test('a disk that cannot be read', () => {
    const source = makeSource({ baseBytes: 20 * MIB });
    source.badOffset = 3 * MIB + 5;
    expect(errorOf(() => exportTo(scratch(), source, undefined))).toBe(
      `failed: reading the disk at offset ${3 * MIB} failed (EIO); check the base and the store`,
    );
  });

  test.skipIf(noQemu !== undefined)('holes that come and go meanwhile', () => {
    const source = makeSource({ baseBytes: 6 * MIB, baseData: [[MIB, 2 * MIB]] });
    // An extent that was set aside is data while the kernel has pages of it (lseek(2), SEEK_DATA), and then is not.
    let asked = 0;
    const nextHole = source.nextHole.bind(source);
    const nextData = source.nextData.bind(source);
    source.nextData = (offset, end) => (asked++ % 3 === 1 ? offset : nextData(offset, end));
    source.nextHole = (offset, end) => (asked % 2 === 0 ? offset : nextHole(offset, end));
    good(source, false);
  });

  test('a file that takes no writes', () => {
    const source = makeSource({ baseBytes: MIB });
    const fd = openSync('/dev/null', 'r');
    try {
      expect(errorOf(() => exportQcow2(source, fd, { what: 'IMAGE', backing: undefined, onProgress: silent }))).toBe(
        'failed: IMAGE cannot be written (EBADF)',
      );
    } finally {
      closeSync(fd);
    }
  });

  if (!isRoot()) console.warn('an export to a full file system is skipped: needs root');

  test('a full file system', (context) => {
    needsRoot(context);
    const full = tmpfs(scratch(), '1M');
    const source = makeSource({ baseBytes: 4 * MIB });
    expect(errorOf(() => exportTo(full, source, undefined))).toMatch(
      /^missing: IMAGE: no room left \(ENOSPC\); make room there$/,
    );
  });
});
