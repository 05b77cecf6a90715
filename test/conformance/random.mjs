/**
 * Random operations on one file through several handles, compared with a plain file in memory after each: as fsx does.
 * The seed is in the failure; COWFS_SEED repeats it.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import {
  aligned,
  copyFileRange,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
  load,
  mmap,
  msync,
  munmap,
  PAGE,
  store,
} from '../system-calls.mjs';
import { otherBytes } from './content.mjs';
import { Model, readAt, readDirect, sameBytes, writeAll } from './file.mjs';

const { O_RDWR, O_DIRECT } = fs.constants;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const OPERATIONS = 1500;
const MOST_BYTES = 400_000;

/** xorshift32: the same numbers for the same seed everywhere. */
function randomFrom(seed) {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** By name, each with what it needs besides plain reads and writes. */
const ACTIONS = {
  read: ({ fd, model, offset, length }) =>
    sameBytes(readAt(fd, offset, length), model.at(offset, length), 'read', offset),
  readDirect: ({ disk, model, offset, length }) =>
    sameBytes(readDirect(disk, offset, length), model.at(offset, length), 'O_DIRECT read', offset),
  write: ({ fd, model, offset, bytes }) => {
    writeAll(fd, bytes, offset);
    model.write(bytes, offset);
  },
  writeDirect: ({ direct, model, offset, bytes }) => {
    const from = aligned(Math.ceil(bytes.length / PAGE) * PAGE);
    bytes.copy(from);
    const start = Math.floor(offset / PAGE) * PAGE;
    writeAll(direct, from, start);
    model.write(from, start);
  },
  truncate: ({ fd, model, offset }) => {
    fs.ftruncateSync(fd, offset);
    model.truncate(offset);
  },
  sync: ({ fd }) => fs.fsyncSync(fd),
  copy: ({ fd, model, offset, length }) => {
    const count = Math.min(length, Math.max(0, model.size - offset));
    const to = (offset + count + 12_345) % MOST_BYTES;
    if (count === 0 || Math.abs(to - offset) < count) return;
    assert.equal(copyFileRange(fd, offset, to, count), count);
    model.write(Buffer.from(model.at(offset, count)), to);
  },
  punch: ({ fd, model, offset, length }) => {
    fallocate(fd, PUNCH, offset, length);
    model.zero(offset, length);
  },
  zero: ({ fd, model, offset, length }) => {
    fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, length);
    if (offset + length > model.size) model.truncate(offset + length);
    model.zero(offset, length);
  },
  allocate: ({ fd, model, offset, length }) => {
    fallocate(fd, 0, offset, length);
    if (offset + length > model.size) model.truncate(offset + length);
  },
  mapWrite: ({ fd, model, offset, bytes }) => {
    const start = Math.floor(offset / PAGE) * PAGE;
    const part = bytes.subarray(0, Math.max(0, Math.min(bytes.length, model.size - offset)));
    if (part.length === 0) return;
    const address = mmap(fd, start, MOST_BYTES);
    store(address + offset - start, part);
    if (part.length % 2 === 0) msync(address, MOST_BYTES);
    munmap(address, MOST_BYTES);
    model.write(part, offset);
  },
  mapRead: ({ fd, model, offset, length }) => {
    const start = Math.floor(offset / PAGE) * PAGE;
    const part = Buffer.alloc(Math.max(0, Math.min(length, model.size - offset)));
    if (part.length === 0) return;
    const address = mmap(fd, start, MOST_BYTES);
    load(part, address + offset - start);
    munmap(address, MOST_BYTES);
    sameBytes(part, model.at(offset, part.length), 'mapped read', offset);
  },
};

const PLAIN = ['read', 'read', 'readDirect', 'write', 'write', 'write', 'writeDirect', 'truncate', 'sync', 'copy'];
const SPACE = ['punch', 'punch', 'zero', 'allocate'];
const MAPPED = ['mapWrite', 'mapWrite', 'mapRead'];

function exercise(disk, names) {
  const seed = Number(process.env.COWFS_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = randomFrom(seed);
  const model = new Model('odd');
  const handles = [fs.openSync(disk, O_RDWR), fs.openSync(disk, O_RDWR)];
  const direct = fs.openSync(disk, O_RDWR | O_DIRECT);
  try {
    for (let count = 0; count < OPERATIONS; count++) {
      const name = names[random(names.length)];
      const offset = random(4) === 0 ? random(MOST_BYTES / PAGE) * PAGE : random(MOST_BYTES);
      const length = 1 + random([600, 5000, 5000, 70_000][random(4)]);
      const bytes = random(10) === 0 ? Buffer.alloc(length) : otherBytes(count, length);
      try {
        ACTIONS[name]({ disk, model, fd: handles[random(2)], direct, offset, length, bytes });
        assert.equal(fs.statSync(disk).size, model.size, 'st_size');
      } catch (error) {
        error.message = `seed ${seed}, operation ${count}, ${name} at ${offset} of ${length}: ${error.message}`;
        throw error;
      }
    }
  } finally {
    for (const fd of [...handles, direct]) fs.closeSync(fd);
  }
  model.verify(disk, `seed ${seed}`);
}

export const randoms = [
  { name: 'random operations', base: 'odd', run: (disk) => exercise(disk, PLAIN) },
  {
    name: 'random operations with fallocate',
    base: 'odd',
    needs: ['fallocate'],
    run: (disk) => exercise(disk, [...PLAIN, ...SPACE]),
  },
  {
    name: 'random operations with mappings',
    base: 'odd',
    needs: ['shared-mapping'],
    run: (disk) => exercise(disk, [...PLAIN, ...MAPPED]),
  },
  {
    name: 'random operations with fallocate and mappings',
    base: 'odd',
    needs: ['shared-mapping', 'fallocate'],
    run: (disk) => exercise(disk, [...PLAIN, ...SPACE, ...MAPPED]),
  },
];
