/**
 * Byte ranges of every alignment over blocks of every state. After what nbdkit's tests of its copy-on-write filter do,
 * with sizes that no block size divides.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { copyFileRange } from '../system-calls.mjs';
import { BASES, otherBytes, patternAt } from './content.mjs';
import { Model, readAt, sameBytes, withFile, writeAll, writing } from './file.mjs';

const { O_RDWR, O_SYNC } = fs.constants;
const SIZE = BASES.odd.bytes;
const LENGTHS = [1, 511, 512, 513, 4095, 4096, 4097, 65_519];
const OFFSETS = [0, 1, 4095, 4096, 4097, 32_767, 65_518, 65_536, 126_975];

/** Writes each to clean blocks of a disk in turn, and to those of before. */
function writeEverywhere(disk, flags) {
  const model = new Model('odd');
  withFile(disk, flags, (fd) => {
    let seed = 0;
    for (const length of LENGTHS) {
      for (const offset of OFFSETS) {
        const bytes = otherBytes(seed++, length);
        writeAll(fd, bytes, offset);
        model.write(bytes, offset);
      }
      sameBytes(readAt(fd, 0, model.size), model.bytes, `writes of ${length}`);
    }
  });
  model.verify(disk);
}

export const ranges = [
  { name: 'writes of every alignment', base: 'odd', run: (disk) => writeEverywhere(disk, O_RDWR) },
  { name: 'writes of every alignment with O_SYNC', base: 'odd', run: (disk) => writeEverywhere(disk, O_RDWR | O_SYNC) },
  {
    name: 'a partial write keeps the rest of its block, for each place in the block',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (fd) => {
        // A clean block each, so that each is a copy-up of its own.
        for (let block = 0; block < 64; block++) {
          const offset = block * 4096 + block * 61;
          const bytes = otherBytes(block, 1 + ((block * 37) % (4096 - block * 61)));
          writeAll(fd, bytes, offset);
          model.write(bytes, offset);
        }
      });
      model.verify(disk);
    },
  },
  {
    name: 'the whole disk rewritten in pieces of 65519 bytes',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) => {
        for (let offset = 0; offset < SIZE; offset += 65_519) {
          const bytes = otherBytes(offset, Math.min(65_519, SIZE - offset));
          writeAll(fd, bytes, offset);
          model.write(bytes, offset);
        }
      });
      assert.equal(model.size, SIZE);
      model.verify(disk);
    },
  },
  {
    name: 'reads of every alignment over base, written and grown parts',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) => {
        for (const offset of [8192, 50_001, 126_976, 150_000]) {
          const bytes = otherBytes(offset, 5000);
          writeAll(fd, bytes, offset);
          model.write(bytes, offset);
        }
        for (const length of LENGTHS) {
          for (const offset of [...OFFSETS, 8191, 12_000, 49_999, SIZE - 5, 149_999, 154_999]) {
            sameBytes(readAt(fd, offset, length), model.at(offset, length), `read of ${length} at ${offset}`, offset);
          }
        }
      });
    },
  },
  {
    name: 'writev and readv',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      const parts = [1, 4095, 0, 8192, 77].map((length, index) => otherBytes(index, length));
      writing(disk, (fd) => {
        assert.equal(fs.writevSync(fd, parts, 9999), 12_365);
        model.write(Buffer.concat(parts), 9999);
        const into = [3, 4096, 20_000].map((length) => Buffer.alloc(length));
        assert.equal(fs.readvSync(fd, into, 9000), 24_099);
        sameBytes(Buffer.concat(into), model.at(9000, 24_099), 'readv', 9000);
      });
      model.verify(disk);
    },
  },
  {
    name: 'empty reads and writes do nothing',
    base: 'odd',
    run: (disk) => {
      writing(disk, (fd) => {
        for (const offset of [0, SIZE, SIZE + 99_999]) {
          assert.equal(fs.writeSync(fd, Buffer.alloc(0), 0, 0, offset), 0);
          assert.equal(fs.readSync(fd, Buffer.alloc(1), 0, 0, offset), 0);
        }
      });
      new Model('odd').verify(disk);
    },
  },
  {
    name: 'zeros that are written are data like any other',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) => {
        for (const [offset, length] of [
          [0, 4096],
          [5000, 10],
          [65_536, 65_519],
        ]) {
          writeAll(fd, Buffer.alloc(length), offset);
          model.write(Buffer.alloc(length), offset);
        }
      });
      model.verify(disk);
    },
  },
  {
    name: 'copy_file_range within the disk',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (fd) => {
        for (const [from, to, length] of [
          [0, 2_000_000, 500_000],
          [2_100_000, 7, 4096],
        ]) {
          let done = 0;
          while (done < length) done += copyFileRange(fd, from + done, to + done, length - done);
          model.write(Buffer.from(model.at(from, length)), to);
        }
      });
      model.verify(disk);
    },
  },
  {
    name: 'the pattern is where it says, written in pieces from 4 handles in turn',
    base: 'even',
    run: (disk) => {
      const handles = [0, 1, 2, 3].map(() => fs.openSync(disk, 'r+'));
      try {
        for (let offset = 0, turn = 0; offset < BASES.even.bytes; offset += 24_567, turn++) {
          const length = Math.min(24_567, BASES.even.bytes - offset);
          // The base's own pattern, moved by a GiB.
          writeAll(handles[turn % 4], patternAt(2 ** 30 + offset, length), offset);
        }
        for (const fd of handles)
          sameBytes(readAt(fd, 0, BASES.even.bytes), patternAt(2 ** 30, BASES.even.bytes), 'all');
      } finally {
        for (const fd of handles) fs.closeSync(fd);
      }
    },
  },
];
