/** Copying ranges of a disk: by the kernel, by hand where that cannot, and what is said when either side fails. */
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { EIO, EOPNOTSUPP, type Errno, OK } from '../../../src/lib/errno.ts';
import { BASE, type BlockState } from '../../../src/overlay/block.ts';
import { Copier, readError, writeError, zeroRange } from '../../../src/overlay/export/copy.ts';
import type { ExportSource } from '../../../src/overlay/export/source.ts';
import { scratch } from '../../harness.ts';
import { needsRoot, tmpfs } from '../../integration/machine-support.ts';
import { difference, errorOf, useDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;

function openFile(path: string): number {
  const fd = openSync(path, 'w+');
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** One file in pieces of a given length, in memory as well; fails from an offset on when read. */
class Pieces implements ExportSource {
  readonly sizeBytes: number;
  difference: BlockState = BASE;
  placeFd: number;
  placeOffset = 0;
  readonly reads: number[] = [];
  failFrom = Number.POSITIVE_INFINITY;
  readonly #fd: number;
  readonly #content: Buffer;
  readonly #piece: number;

  constructor(fd: number, content: Buffer, piece: number) {
    this.#fd = fd;
    this.placeFd = fd;
    this.#content = content;
    this.#piece = piece;
    this.sizeBytes = content.length;
  }

  read(offset: number, length: number, into: Uint8Array, at: number): Errno {
    this.reads.push(length);
    if (offset + length > this.failFrom) return EIO;
    into.set(this.#content.subarray(offset, offset + length), at);
    return OK;
  }

  locate(offset: number, length: number): number {
    this.placeFd = this.#fd;
    this.placeOffset = offset;
    return Math.min(length, this.#piece - (offset % this.#piece));
  }

  nextData(offset: number): number {
    return offset;
  }

  nextHole(_offset: number, end: number): number {
    return end;
  }

  differenceAt(_block: number, limit: number): number {
    return limit;
  }
}

function pieces(directory: string, bytes: number, piece = MIB): { source: Pieces; content: Buffer } {
  const content = nonZeroBytes(bytes, bytes);
  const fd = openFile(join(directory, 'source'));
  writeSync(fd, content, 0, content.length, 0);
  return { source: new Pieces(fd, content, piece), content };
}

test('all layers of a disk, from where each has its data, shifted or not', () => {
  const directory = scratch();
  const content = nonZeroBytes(60 * BLOCK + 77, 1);
  const { sessions, session } = useDisk({ directory, content });
  const expected = Buffer.from(content);
  const write = (offset: number, length: number, seed: number): void => {
    const bytes = nonZeroBytes(length, seed);
    sessions.open(session).write(offset, length, bytes, 0);
    bytes.copy(expected, offset);
  };
  write(3 * BLOCK, 10 * BLOCK, 2);
  const below = sessions.snapshot(session);
  write(8 * BLOCK + 5, 9 * BLOCK, 3);
  sessions.open(session).discard(30 * BLOCK, 5 * BLOCK);
  expected.fill(0, 30 * BLOCK, 35 * BLOCK);
  const { layer } = sessions.open(session);
  for (const [offset, length, shift] of [
    [0, expected.length, 0],
    [1, expected.length - 1, 0],
    [5 * BLOCK + 9, 20 * BLOCK, 0],
    [5 * BLOCK + 9, 20 * BLOCK, 12_345],
    [29 * BLOCK, 8 * BLOCK, 7],
  ] as const) {
    const to = openFile(join(directory, 'to'));
    ftruncateSync(to, expected.length + shift);
    let moved = 0;
    new Copier(layer, to, 'TO', (bytes) => {
      moved += bytes;
    }).copy(offset, length, shift);
    expect(moved).toBe(length);
    const found = readFileSync(join(directory, 'to')).subarray(offset + shift, offset + shift + length);
    expect(difference(found, expected.subarray(offset, offset + length))).toBe(undefined);
  }
  for (const fd of sessions.layers.release(below)) closeSync(fd);
});

describe('by the kernel', () => {
  test('nothing is read, and the target is told of in pieces', () => {
    const directory = scratch();
    const { source, content } = pieces(directory, 40 * MIB + 3, 64 * MIB);
    const to = openFile(join(directory, 'to'));
    const moved: number[] = [];
    new Copier(source, to, 'TO', (bytes) => moved.push(bytes)).copy(0, content.length, 0);
    expect(source.reads).toEqual([]);
    expect(moved.length).toBeGreaterThanOrEqual(3);
    expect(moved.reduce((sum, bytes) => sum + bytes, 0)).toBe(content.length);
    expect(difference(readFileSync(join(directory, 'to')), content)).toBe(undefined);
  });

  test('a file that ends early is read for what it lacks', () => {
    const directory = scratch();
    const { source, content } = pieces(directory, 3 * BLOCK, MIB);
    ftruncateSync(source.placeFd, BLOCK + 5);
    const to = openFile(join(directory, 'to'));
    let moved = 0;
    new Copier(source, to, 'TO', (bytes) => {
      moved += bytes;
    }).copy(0, content.length, 0);
    expect(moved).toBe(content.length);
    expect(difference(readFileSync(join(directory, 'to')), content)).toBe(undefined);
  });
});

describe('where the kernel cannot', () => {
  test('from one file system to another (EXDEV): by hand, and it is not tried again', (context) => {
    needsRoot(context);
    const directory = scratch();
    const { source, content } = pieces(tmpfs(directory, '32M'), 5 * MIB + 3, MIB);
    const to = openFile(join(directory, 'to'));
    let moved = 0;
    new Copier(source, to, 'TO', (bytes) => {
      moved += bytes;
    }).copy(100, content.length - 100, 0);
    expect(moved).toBe(content.length - 100);
    expect(source.reads.reduce((sum, bytes) => sum + bytes, 0)).toBe(content.length - 100);
    expect(Math.max(...source.reads)).toBeLessThanOrEqual(MIB);
    expect(difference(readFileSync(join(directory, 'to')).subarray(100), content.subarray(100))).toBe(undefined);
  });

  test('within one file (EINVAL where ranges overlap), and from what is nowhere', () => {
    const directory = scratch();
    const { source, content } = pieces(directory, 8 * BLOCK);
    new Copier(source, source.placeFd, 'TO', () => {}).copy(0, 4 * BLOCK, BLOCK);
    expect(
      difference(readFileSync(join(directory, 'source')).subarray(BLOCK, 5 * BLOCK), content.subarray(0, 4 * BLOCK)),
    ).toBe(undefined);
    const nowhere = pieces(directory, 8 * BLOCK).source;
    nowhere.locate = (_offset, length) => {
      nowhere.placeFd = -1;
      return length;
    };
    const to = openFile(join(directory, 'to'));
    new Copier(nowhere, to, 'TO', () => {}).copy(0, 8 * BLOCK, 0);
    expect(nowhere.reads).toEqual([8 * BLOCK]);
  });
});

describe('errors', () => {
  test('a source that cannot be read says where', (context) => {
    needsRoot(context);
    const directory = scratch();
    const { source } = pieces(tmpfs(directory, '32M'), 4 * MIB);
    source.failFrom = 2 * MIB + 5;
    const to = openFile(join(directory, 'to'));
    const moved: number[] = [];
    const error = errorOf(() => new Copier(source, to, 'TO', (bytes) => moved.push(bytes)).copy(0, 4 * MIB, 0));
    expect(error).toBe(`failed: reading the disk at offset ${2 * MIB} failed (EIO); check the base and the store`);
    expect(moved.reduce((sum, bytes) => sum + bytes, 0)).toBe(2 * MIB);
  });

  test('a target that cannot be written to is named', () => {
    const directory = scratch();
    const { source } = pieces(directory, 4 * BLOCK);
    const to = openSync(join(directory, 'source'), 'r');
    onTestFinished(() => closeSync(to));
    expect(errorOf(() => new Copier(source, to, 'TO', () => {}).copy(0, BLOCK, 0))).toBe(
      'failed: TO cannot be written (EBADF)',
    );
  });

  test('a target without room is named, with what to do', (context) => {
    needsRoot(context);
    const directory = scratch();
    const { source } = pieces(directory, 4 * MIB);
    const small = openFile(join(tmpfs(directory, '1M'), 'to'));
    expect(errorOf(() => new Copier(source, small, 'TO', () => {}).copy(0, 4 * MIB, 0))).toBe(
      'missing: TO: no room left (ENOSPC); make room there',
    );
  });

  test.each([
    [readError(5, EIO), 'failed', /offset 5 .*EIO/],
    [writeError('TO', EOPNOTSUPP), 'failed', /^TO .*EOPNOTSUPP/],
    [writeError('TO', 28), 'missing', /^TO.*ENOSPC/],
    [writeError('TO', 122), 'missing', /^TO.*EDQUOT/],
  ])('%s', ({ kind, message }, wanted, words) => {
    expect(kind).toBe(wanted);
    expect(message).toMatch(words);
    expect(message).not.toContain('\n');
  });
});

test('zeroRange gives space back, and zeros whatever the range is', () => {
  const directory = scratch();
  const fd = openFile(join(directory, 'file'));
  const content = nonZeroBytes(MIB, 3);
  writeSync(fd, content, 0, MIB, 0);
  const before = fstatSync(fd).blocks;
  zeroRange(fd, 100, 600_000, 'FILE');
  expect(difference(readFileSync(join(directory, 'file')), Buffer.from(content).fill(0, 100, 600_100))).toBe(undefined);
  expect(fstatSync(fd).size).toBe(MIB);
  expect(fstatSync(fd).blocks).toBeLessThan(before);
  const closed = openSync(join(directory, 'file'), 'r');
  onTestFinished(() => closeSync(closed));
  expect(errorOf(() => zeroRange(closed, 0, 5, 'FILE'))).toBe('failed: FILE cannot be written (EBADF)');
});
