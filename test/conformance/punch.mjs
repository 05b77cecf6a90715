/**
 * Punching holes and writing zeros by fallocate(2), over blocks of every state. After libnbd's tests of trim and zero.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
  lseek,
  SEEK_HOLE,
} from '../system-calls.mjs';
import { BASES, otherBytes } from './content.mjs';
import { Model, reading, refusal, writeAll, writing } from './file.mjs';

const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const SIZE = BASES.even.bytes;
/** Whole blocks, parts of one, across several, at the end. */
const PLACES = [
  [0, 4096],
  [8192, 65_536],
  [100_000, 10],
  [200_001, 4095],
  [300_000, 50_001],
  [SIZE - 4097, 4097],
  [1_000_000, 1_000_000],
];

/** Clean and written blocks by turns beneath each place. */
function prepared(fd) {
  const model = new Model('even');
  for (let offset = 0; offset < SIZE; offset += 12_288) {
    const bytes = otherBytes(offset, 5000);
    writeAll(fd, bytes, offset);
    model.write(bytes, offset);
  }
  return model;
}

function zeroEverywhere(disk, mode) {
  let model;
  writing(disk, (fd) => {
    model = prepared(fd);
    for (const [offset, length] of PLACES) {
      fallocate(fd, mode, offset, length);
      model.zero(offset, length);
    }
  });
  model.verify(disk, 'zeroed');
  writing(disk, (fd) => {
    // A hole is written to as anything else.
    for (const [offset, length] of PLACES) {
      const bytes = otherBytes(length, Math.ceil(length / 3));
      writeAll(fd, bytes, offset + 1);
      model.write(bytes, offset + 1);
    }
  });
  model.verify(disk, 'written again');
}

export const punches = [
  {
    name: 'without fallocate: EOPNOTSUPP in every mode, and nothing changes',
    base: 'odd',
    lacks: 'fallocate',
    run: (disk) => {
      const modes = [0, FALLOC_FL_KEEP_SIZE, PUNCH, FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE];
      writing(disk, (fd) => {
        for (const mode of modes) {
          assert.equal(
            refusal(() => fallocate(fd, mode, 0, 200_000)),
            'EOPNOTSUPP',
          );
        }
      });
      new Model('odd').verify(disk);
    },
  },
  {
    name: 'PUNCH_HOLE reads as zeros, and its neighbours stay',
    base: 'even',
    needs: ['fallocate'],
    run: (disk) => zeroEverywhere(disk, PUNCH),
  },
  {
    name: 'ZERO_RANGE reads as zeros, and its neighbours stay',
    base: 'even',
    needs: ['fallocate'],
    run: (disk) => zeroEverywhere(disk, FALLOC_FL_ZERO_RANGE),
  },
  {
    name: 'ZERO_RANGE past the end grows it, and with KEEP_SIZE does not',
    base: 'odd',
    needs: ['fallocate'],
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) => {
        fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 120_000, 50_000);
        model.zero(120_000, 10_000);
        assert.equal(fs.fstatSync(fd).size, model.size);
        fallocate(fd, FALLOC_FL_ZERO_RANGE, 125_000, 25_001);
        model.truncate(150_001);
        fallocate(fd, PUNCH, 149_000, 99_999);
      });
      model.verify(disk);
    },
  },
  {
    name: 'a whole block punched by halves',
    base: 'even',
    needs: ['fallocate'],
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (fd) => {
        for (const [offset, length] of [
          [4096, 2048],
          [6144, 2048],
          [20_480, 1],
          [20_481, 4095],
        ]) {
          fallocate(fd, PUNCH, offset, length);
          model.zero(offset, length);
        }
      });
      model.verify(disk);
    },
  },
  {
    name: 'everything punched is one hole once the writer is gone',
    base: 'even',
    needs: ['holes'],
    run: async (disk) => {
      writing(disk, (fd) => {
        prepared(fd);
        fallocate(fd, PUNCH, 0, SIZE);
      });
      // The kernel tells of a close in its own time; until then all is called data, which is never wrong.
      const deadline = performance.now() + 10_000;
      let hole;
      do {
        hole = reading(disk, (fd) => lseek(fd, 0, SEEK_HOLE));
        await new Promise((wake) => setTimeout(wake, 5));
      } while (hole !== 0 && performance.now() < deadline);
      assert.equal(hole, 0);
    },
  },
  {
    name: 'what no disk needs is refused and changes nothing',
    base: 'odd',
    needs: ['fallocate'],
    run: (disk) => {
      writing(disk, (fd) => {
        for (const [mode, offset, length, code] of [
          [FALLOC_FL_PUNCH_HOLE, 0, 4096, 'EOPNOTSUPP'],
          [PUNCH | FALLOC_FL_ZERO_RANGE, 0, 4096, 'EOPNOTSUPP'],
          [PUNCH, 0, 0, 'EINVAL'],
          [PUNCH, 0, -1, 'EINVAL'],
          [PUNCH, -1, 4096, 'EINVAL'],
        ]) {
          assert.equal(
            refusal(() => fallocate(fd, mode, offset, length)),
            code,
          );
        }
      });
      reading(disk, (fd) =>
        assert.equal(
          refusal(() => fallocate(fd, PUNCH, 0, 4096)),
          'EBADF',
        ),
      );
      new Model('odd').verify(disk);
    },
  },
];
