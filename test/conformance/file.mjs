/**
 * What the cases share: a plain file in memory that goes along with the disk, and comparisons that say where bytes part.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { aligned, PAGE } from '../system-calls.mjs';
import { BASES, contentAt } from './content.mjs';

const { O_RDONLY, O_RDWR, O_DIRECT } = fs.constants;

/** Opens for as long as `use` takes. */
export function withFile(path, flags, use) {
  const fd = fs.openSync(path, flags);
  try {
    return use(fd);
  } finally {
    fs.closeSync(fd);
  }
}

export const writing = (path, use) => withFile(path, O_RDWR, use);
export const reading = (path, use) => withFile(path, O_RDONLY, use);

/** Reads a range to its end, or to the file's. */
export function readAt(fd, offset, length) {
  const bytes = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const count = fs.readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}

/** Reads the blocks around a range through a handle past the page cache, and gives the range. */
export function readDirect(path, offset, length) {
  return withFile(path, O_RDONLY | O_DIRECT, (fd) => {
    const start = Math.floor(offset / PAGE) * PAGE;
    const into = aligned(Math.ceil((offset + length - start) / PAGE) * PAGE);
    let done = 0;
    while (done < into.length) {
      const count = fs.readSync(fd, into, done, into.length - done, start + done);
      done += count;
      // Short, so at the end; and the next offset would not be aligned.
      if (count === 0 || done % PAGE !== 0) break;
    }
    return Buffer.from(
      into.subarray(offset - start, Math.max(offset - start, Math.min(done, offset - start + length))),
    );
  });
}

export function writeAll(fd, bytes, offset) {
  assert.equal(fs.writeSync(fd, bytes, 0, bytes.length, offset), bytes.length, `write of ${bytes.length} at ${offset}`);
}

export function sameBytes(actual, expected, where, offset = 0) {
  assert.equal(actual.length, expected.length, `${where}: bytes read`);
  if (actual.equals(expected)) return;
  const first = actual.findIndex((byte, index) => byte !== expected[index]);
  const show = (bytes) => bytes.subarray(first, first + 16).toString('hex');
  assert.fail(`${where}: bytes differ from ${offset + first} on: ${show(actual)} for ${show(expected)}`);
}

/** A plain file in memory: what the disk has to be. */
export class Model {
  constructor(base) {
    this.bytes = contentAt(base, 0, BASES[base].bytes);
  }

  get size() {
    return this.bytes.length;
  }

  /** Grows with zeros or shrinks. */
  truncate(size) {
    if (size <= this.size) this.bytes = this.bytes.subarray(0, size);
    else this.bytes = Buffer.concat([this.bytes, Buffer.alloc(size - this.size)]);
  }

  write(bytes, offset) {
    if (offset + bytes.length > this.size) this.truncate(offset + bytes.length);
    else this.bytes = Buffer.from(this.bytes);
    bytes.copy(this.bytes, offset);
  }

  zero(offset, length) {
    this.bytes = Buffer.from(this.bytes);
    this.bytes.fill(0, Math.min(offset, this.size), Math.min(offset + length, this.size));
  }

  at(offset, length) {
    return this.bytes.subarray(offset, offset + length);
  }

  /** Every byte through a cached handle and through one past the cache, and the size by stat(2) and by reading. */
  verify(disk, when = 'at the end') {
    assert.equal(fs.statSync(disk).size, this.size, `${when}: st_size`);
    reading(disk, (fd) => sameBytes(readAt(fd, 0, this.size + PAGE), this.bytes, `${when}, cached`));
    sameBytes(readDirect(disk, 0, this.size + PAGE), this.bytes, `${when}, O_DIRECT`);
  }
}

/** The errno's name that an action is refused with; fails when it is not. */
export function refusal(action) {
  try {
    action();
  } catch (error) {
    return error.code;
  }
  return 'no error';
}
