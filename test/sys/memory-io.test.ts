import { execFileSync } from 'node:child_process';
import { closeSync, constants as fsConstants, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { addressOf } from '../../src/sys/io-uring.ts';
import { preadMemory, pwriteMemory, readMemory, writeMemory } from '../../src/sys/memory-io.ts';
import { scratch } from '../harness.ts';
import { nonZeroBytes } from '../overlay/random.ts';

const { EAGAIN, EBADF, EISDIR } = constants.errno;
const { O_CREAT, O_NONBLOCK, O_RDWR } = fsConstants;

const memory = new Uint8Array(new SharedArrayBuffer(16_384));
const at = addressOf(memory);

test.each([0, 4097, 2 ** 32 + 5, 2 ** 41 + 3])(
  'what is written at %d is read there, and nothing beside it',
  (offset) => {
    const path = join(scratch(), 'file');
    const fd = openSync(path, O_CREAT | O_RDWR);
    const content = nonZeroBytes(3000, offset % 97);
    memory.set(content, 100);
    expect(pwriteMemory(fd, at + 100, 3000, offset)).toBe(3000);
    memory.fill(0xee);
    // Fewer at the end of the file, and none behind it.
    expect(preadMemory(fd, at + 8000, 5000, offset)).toBe(3000);
    expect(Buffer.compare(memory.subarray(8000, 11_000), content)).toBe(0);
    expect([memory[7999], memory[11_000]]).toEqual([0xee, 0xee]);
    expect(preadMemory(fd, at, 10, offset + 3000)).toBe(0);
    closeSync(fd);
    if (offset === 0) expect(Buffer.compare(readFileSync(path), content)).toBe(0);
  },
);

test('a descriptor that does not wait says so, and what was written to it is read in order', () => {
  const fifo = join(scratch(), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const fd = openSync(fifo, O_RDWR | O_NONBLOCK);
  expect(readMemory(fd, at, 10)).toBe(-EAGAIN);
  memory.set(Buffer.from('first, second'));
  expect(writeMemory(fd, at, 7)).toBe(7);
  expect(writeMemory(fd, at + 7, 6)).toBe(6);
  expect(readMemory(fd, at + 500, 100)).toBe(13);
  expect(Buffer.from(memory.subarray(500, 513)).toString()).toBe('first, second');
  expect(readMemory(fd, at, 10)).toBe(-EAGAIN);
  closeSync(fd);
});

test('errors are errnos negated', () => {
  const directory = openSync(scratch(), 'r');
  expect(readMemory(directory, at, 10)).toBe(-EISDIR);
  expect(preadMemory(directory, at, 10, 0)).toBe(-EISDIR);
  expect(writeMemory(directory, at, 10)).toBe(-EBADF);
  expect(pwriteMemory(directory, at, 10, 0)).toBe(-EBADF);
  closeSync(directory);
});
