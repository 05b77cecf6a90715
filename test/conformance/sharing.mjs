/**
 * Several handles and processes on one disk: caches that agree, locks, and fsync. QEMU holds such locks on its images.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { aligned, lockByte, PAGE } from '../system-calls.mjs';
import { BASES, otherBytes } from './content.mjs';
import { Model, readAt, readDirect, reading, refusal, sameBytes, withFile, writeAll, writing } from './file.mjs';

const { O_RDWR, O_DIRECT } = fs.constants;
const SIZE = BASES.even.bytes;

function writeDirect(fd, bytes, offset) {
  const from = aligned(bytes.length);
  bytes.copy(from);
  writeAll(fd, from, offset);
}

export const sharing = [
  {
    name: 'cached and O_DIRECT handles see at once what the other wrote',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (cached) =>
        withFile(disk, O_RDWR | O_DIRECT, (direct) => {
          // Warm, so that a stale page would be there to be seen.
          sameBytes(readAt(cached, 0, SIZE), model.bytes, 'warm');
          for (let turn = 0; turn < 40; turn++) {
            const offset = ((turn * 97) % 900) * PAGE;
            const bytes = otherBytes(turn, PAGE * (1 + (turn % 5)));
            if (turn % 2 === 0) writeDirect(direct, bytes, offset);
            else writeAll(cached, bytes, offset);
            model.write(bytes, offset);
            const seen = turn % 2 === 0 ? readAt(cached, offset, bytes.length) : readDirect(disk, offset, bytes.length);
            sameBytes(seen, bytes, `turn ${turn}`, offset);
          }
        }),
      );
      model.verify(disk);
    },
  },
  {
    name: 'O_DIRECT writes past the end grow it, and cached readers see them',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      reading(disk, (cached) =>
        withFile(disk, O_RDWR | O_DIRECT, (direct) => {
          for (const offset of [SIZE, SIZE + 10 * PAGE]) {
            const bytes = otherBytes(offset, 3 * PAGE);
            writeDirect(direct, bytes, offset);
            model.write(bytes, offset);
            assert.equal(fs.fstatSync(cached).size, model.size);
            sameBytes(readAt(cached, SIZE - 5, model.size), model.at(SIZE - 5, model.size), 'cached', SIZE - 5);
          }
        }),
      );
      model.verify(disk);
    },
  },
  {
    name: 'one handle sees at once what another wrote, truncated or grew',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (one) =>
        writing(disk, (other) => {
          for (const size of [SIZE, 100_001, 50_000, 300_000]) {
            fs.ftruncateSync(one, size);
            model.truncate(size);
            sameBytes(readAt(other, 0, SIZE + 1), model.bytes, `after ${size}`);
            const bytes = otherBytes(size, 10_000);
            writeAll(other, bytes, size - 5000);
            model.write(bytes, size - 5000);
            sameBytes(readAt(one, 0, SIZE + 10_000), model.bytes, `written at ${size}`);
          }
        }),
      );
      model.verify(disk);
    },
  },
  {
    name: 'fsync and fdatasync succeed, and so does closing',
    base: 'even',
    run: (disk) => {
      const model = new Model('even');
      writing(disk, (fd) => {
        for (let turn = 0; turn < 10; turn++) {
          const bytes = otherBytes(turn, 70_001);
          writeAll(fd, bytes, turn * 90_000);
          model.write(bytes, turn * 90_000);
          if (turn % 2 === 0) fs.fsyncSync(fd);
          else fs.fdatasyncSync(fd);
        }
      });
      reading(disk, (fd) => fs.fsyncSync(fd));
      model.verify(disk);
    },
  },
  {
    name: 'locks of open files exclude each other by byte, and go with them',
    base: 'even',
    run: (disk) => {
      writing(disk, (one) => {
        writing(disk, (other) => {
          lockByte(one, 100, true);
          assert.equal(
            refusal(() => lockByte(other, 100, false)),
            'EAGAIN',
          );
          lockByte(other, 101, true);
          lockByte(other, 203, false);
          lockByte(one, 203, false);
          assert.equal(
            refusal(() => lockByte(one, 203, true)),
            'EAGAIN',
          );
        });
        lockByte(one, 101, true);
      });
    },
  },
];
