/** System calls on a disk as tests compare them: what they gave, or the errno's name. */
import { closeSync, constants, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { expect, onTestFinished } from 'vitest';

export const BLOCK = 4096;
const CHUNK = 64 * 1024;

/** Opens until the test ends. */
export function opened(disk: string, flags = 0): number {
  const fd = openSync(disk, constants.O_RDWR | flags);
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** What a call gave, or the name of its errno. */
export function outcome<T>(call: () => T): T | string {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
    throw error;
  }
}

/** pread(2): the bytes that it gave, which may be fewer. */
export function readAt(fd: number, offset: number, length: number): Buffer | string {
  return outcome(() => {
    // What a call does not fill must not look like content.
    const into = Buffer.alloc(length, 0xee);
    return into.subarray(0, readSync(fd, into, 0, length, offset));
  });
}

/** pwrite(2): the bytes that it took, which may be fewer. */
export function writeAt(fd: number, data: Buffer, offset: number): number | string {
  return outcome(() => writeSync(fd, data, 0, data.length, offset));
}

/** Fails unless the disk has this content, for who reads through the page cache and for who reads past it. */
export function expectContent(disk: string, content: Buffer): void {
  const fd = openSync(disk, constants.O_RDONLY | constants.O_DIRECT);
  try {
    for (let at = 0; at < content.length; at += CHUNK) expectSame(readAt(fd, at, CHUNK), content, at);
  } finally {
    closeSync(fd);
  }
  expectSame(readFileSync(disk), content, 0);
}

/** Fails unless these bytes, to their end, are those of the content from an offset on. */
export function expectSame(got: Buffer | string, content: Buffer, offset: number, length?: number): void {
  if (typeof got === 'string') expect.fail(`${got} at ${offset}`);
  const wanted = content.subarray(offset, offset + (length ?? got.length));
  expect(got.length, `bytes at ${offset}`).toBe(wanted.length);
  if (got.equals(wanted)) return;
  expect.fail(`content differs at ${offset + got.findIndex((byte, index) => byte !== wanted[index])}`);
}

/** Content with `data` in place at an offset. */
export function patched(content: Buffer, offset: number, data: Buffer): Buffer {
  const copy = Buffer.from(content);
  data.copy(copy, offset);
  return copy;
}
