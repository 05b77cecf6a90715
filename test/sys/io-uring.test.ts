import { execFileSync } from 'node:child_process';
import { closeSync, constants as fsConstants, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { addressOf, Ring } from '../../src/sys/io-uring.ts';
import { scratch } from '../harness.ts';
import { skipUnless } from '../integration/machine-support.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const { EBADF, EINVAL } = constants.errno;
const { O_NONBLOCK, O_RDWR } = fsConstants;
/** asm-generic/poll.h */
const POLLIN = 1;

const memory = new Uint8Array(new SharedArrayBuffer(65536));
const at = addressOf(memory);

function open(context: TestContext, entries = 8): Ring {
  const errno = Ring.probe(entries);
  skipUnless(context, errno === 0, `io_uring is refused here: errno ${errno}`);
  const ring = Ring.open(entries);
  if (typeof ring === 'number') throw new Error(`errno ${ring}`);
  return ring;
}

/** Tokens and results of everything that ends until as many have ended. */
function ended(ring: Ring, count: number): [token: number, result: number][] {
  const found: [number, number][] = [];
  while (found.length < count) {
    ring.enter(1);
    while (ring.next()) found.push([ring.token, ring.result]);
  }
  return found.sort(([a], [b]) => a - b);
}

function file(content: Uint8Array, offset = 0): { fd: number; path: string } {
  const path = join(scratch(), 'file');
  const fd = openSync(path, 'w+');
  writeSync(fd, content, 0, content.length, offset);
  return { fd, path };
}

beforeAll(() => memory.fill(0));

describe('one operation', () => {
  test.for([0, 4096, 2 ** 32 + 8192, 2 ** 40 + 3])('reads at %d what is there', (offset, context) => {
    const ring = open(context);
    const content = nonZeroBytes(5000, offset % 97);
    const { fd } = file(content, offset);
    memory.fill(0xee);
    ring.read(fd, offset, at + 100, 5000, 7);
    expect(ended(ring, 1)).toEqual([[7, 5000]]);
    expect(Buffer.compare(memory.subarray(100, 5100), content)).toBe(0);
    expect([memory[99], memory[5100]]).toEqual([0xee, 0xee]);
    closeSync(fd);
  });

  test.for([0, 2 ** 32 + 8192])('writes at %d', (offset, context) => {
    const ring = open(context);
    const { fd } = file(Buffer.from('x'));
    const content = nonZeroBytes(3000, 5);
    memory.set(content, 4096);
    ring.write(fd, offset, at + 4096, 3000, 2 ** 30);
    expect(ended(ring, 1)).toEqual([[2 ** 30, 3000]]);
    const read = Buffer.alloc(3000);
    expect(readSync(fd, read, 0, 3000, offset)).toBe(3000);
    expect(Buffer.compare(read, content)).toBe(0);
    closeSync(fd);
  });

  test('says when a descriptor has something to read, and not before', (context) => {
    const ring = open(context);
    const fifo = join(scratch(), 'fifo');
    execFileSync('mkfifo', [fifo]);
    const fd = openSync(fifo, O_RDWR | O_NONBLOCK);
    ring.readable(fd, 3);
    ring.enter(0);
    expect(ring.next()).toBe(false);
    writeSync(fd, 'x');
    const [[token, result] = [0, 0]] = ended(ring, 1);
    expect(token).toBe(3);
    expect(result & POLLIN).toBe(POLLIN);
    closeSync(fd);
  });

  test('fails with the errno negated', (context) => {
    const ring = open(context);
    ring.read(1_000_000, 0, at, 10, 1);
    expect(ended(ring, 1)).toEqual([[1, -EBADF]]);
    const { fd } = file(Buffer.from('x'));
    ring.read(fd, -2, at, 10, 2);
    expect(ended(ring, 1)).toEqual([[2, -EINVAL]]);
    closeSync(fd);
  });
});

describe('one after another', () => {
  test('a read and then a write of what it read, with word of the second only', (context) => {
    const ring = open(context);
    const content = nonZeroBytes(20_000, 3);
    const { fd } = file(content);
    const to = file(Buffer.from('x'));
    ring.readThen(fd, 0, at, 20_000, 1);
    ring.write(to.fd, 0, at, 20_000, 2);
    expect(ended(ring, 1)).toEqual([[2, 20_000]]);
    const copy = Buffer.alloc(20_000);
    readSync(to.fd, copy, 0, 20_000, 0);
    expect(Buffer.compare(copy, content)).toBe(0);
    closeSync(fd);
    closeSync(to.fd);
  });

  test('a read that finds less keeps the write from happening', (context) => {
    const ring = open(context);
    const { fd } = file(nonZeroBytes(100, 3));
    const to = file(Buffer.from('as it was'));
    ring.readThen(fd, 0, at, 101, 1);
    ring.write(to.fd, 0, at, 5, 2);
    expect(ended(ring, 1)).toEqual([[1, 100]]);
    const content = Buffer.alloc(9);
    readSync(to.fd, content, 0, 9, 0);
    expect(content.toString()).toBe('as it was');
    closeSync(fd);
    closeSync(to.fd);
  });

  test('so does a write that fails, and what comes behind the pair is not held up', (context) => {
    const ring = open(context);
    const { fd } = file(nonZeroBytes(100, 3));
    ring.writeThen(1_000_000, 0, at, 10, 1);
    ring.write(fd, 0, at, 5, 2);
    ring.read(fd, 0, at, 100, 3);
    expect(ended(ring, 2)).toEqual([
      [1, -EBADF],
      [3, 100],
    ]);
    // Nor does word of the second come later.
    ring.read(fd, 0, at, 1, 4);
    expect(ended(ring, 1)).toEqual([[4, 1]]);
    closeSync(fd);
  });
});

test('a ring goes round: many times as many operations as it has room for', (context) => {
  const ring = open(context);
  const { fd } = file(nonZeroBytes(4096, 1));
  ftruncateSync(fd, 65536);
  const seen = new Set<number>();
  for (let round = 0; round < 500; round++) {
    for (let index = 0; index < 8; index++) ring.read(fd, 0, at, 4096, round * 8 + index);
    for (const [token, result] of ended(ring, 8)) {
      expect(result).toBe(4096);
      seen.add(token);
    }
  }
  expect(seen.size).toBe(4000);
  closeSync(fd);
});

test('more than it has room for is refused, not torn apart', (context) => {
  const ring = open(context, 2);
  const { fd } = file(nonZeroBytes(4096, 1));
  ring.read(fd, 0, at, 1, 1);
  ring.readThen(fd, 0, at, 1, 2);
  expect(() => ring.write(fd, 0, at, 1, 3)).toThrow('full');
  closeSync(fd);
});
