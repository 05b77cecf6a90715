/**
 * Sizes: reading at the end, growing and shrinking by every call that can. After the behaviours that qemu-iotests 308
 * tests.
 */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import fs from 'node:fs';
import { FALLOC_FL_KEEP_SIZE, fallocate } from '../system-calls.mjs';
import { BASES, contentAt, otherBytes } from './content.mjs';
import { Model, readAt, reading, refusal, sameBytes, withFile, writeAll, writing } from './file.mjs';

const { O_RDWR, O_WRONLY, O_APPEND, O_TRUNC } = fs.constants;
const SIZE = BASES.odd.bytes;

/** Reads the whole disk in another process; rejects when it is not the base. */
function compareElsewhere(disk) {
  return new Promise((done, fail) => {
    const child = fork(new URL('./main.mjs', import.meta.url), ['run', 'reads as the base', disk], { stdio: 'pipe' });
    child.once('error', fail);
    child.once('exit', (code) => (code === 0 ? done() : fail(new Error(`a second reader ended with ${code}`))));
  });
}

export const sizes = [
  {
    name: 'reads as the base',
    base: 'odd',
    run: (disk) => new Model('odd').verify(disk),
  },
  {
    name: 'reads as the base for two processes at once',
    base: 'odd',
    run: (disk) => Promise.all([compareElsewhere(disk), compareElsewhere(disk)]),
  },
  {
    name: 'a read at the end is short, and past it empty',
    base: 'odd',
    run: (disk) =>
      reading(disk, (fd) => {
        const into = Buffer.alloc(8192);
        assert.equal(fs.readSync(fd, into, 0, 8192, SIZE - 100), 100);
        sameBytes(into.subarray(0, 100), contentAt('odd', SIZE - 100, 100), 'the tail');
        for (const offset of [SIZE, SIZE + 1, SIZE + 2 ** 33]) assert.equal(fs.readSync(fd, into, 0, 10, offset), 0);
      }),
  },
  {
    name: 'ftruncate grows with zeros',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      for (const size of [SIZE + 1, SIZE + 4096, 200_001, 1_048_577]) {
        writing(disk, (fd) => fs.ftruncateSync(fd, size));
        model.truncate(size);
        model.verify(disk, `grown to ${size}`);
      }
    },
  },
  {
    name: 'what ftruncate cuts off never comes back',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      for (const size of [129_999, 70_001, 65_536, 4097, 1, 0]) {
        writing(disk, (fd) => {
          fs.ftruncateSync(fd, size);
          model.truncate(size);
          sameBytes(readAt(fd, 0, SIZE), model.bytes, `cut to ${size}`);
          fs.ftruncateSync(fd, SIZE);
          model.truncate(SIZE);
        });
        model.verify(disk, `cut to ${size} and grown`);
      }
    },
  },
  {
    name: 'truncate by path, and O_TRUNC',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      fs.truncateSync(disk, 50_000);
      model.truncate(50_000);
      model.verify(disk, 'by path');
      withFile(disk, O_RDWR | O_TRUNC, (fd) => assert.equal(fs.fstatSync(fd).size, 0));
      model.truncate(0);
      const bytes = otherBytes(1, 5000);
      writing(disk, (fd) => writeAll(fd, bytes, 3));
      model.write(bytes, 3);
      model.verify(disk, 'written again');
    },
  },
  {
    name: 'writes past the end grow it, with zeros between',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      for (const [seed, offset] of [SIZE - 1, SIZE + 3, 140_000, 262_144, 300_001].entries()) {
        const bytes = otherBytes(seed, 777);
        writing(disk, (fd) => {
          writeAll(fd, bytes, offset);
          model.write(bytes, offset);
          assert.equal(fs.fstatSync(fd).size, model.size);
          sameBytes(readAt(fd, 0, model.size + 1), model.bytes, `through the same handle, ${offset}`);
        });
        model.verify(disk, `after the write at ${offset}`);
      }
    },
  },
  {
    name: 'O_APPEND writes at the end, wherever that is by then',
    base: 'odd',
    run: (disk) => {
      const model = new Model('odd');
      withFile(disk, O_WRONLY | O_APPEND, (fd) => {
        for (const [seed, length] of [1, 4095, 4096, 65_519].entries()) {
          const bytes = otherBytes(seed, length);
          // The position says nothing then (open(2)).
          writeAll(fd, bytes, 5);
          model.write(bytes, model.size);
          if (seed === 1) fs.truncateSync(disk, 100_000);
          if (seed === 1) model.truncate(100_000);
        }
      });
      model.verify(disk);
    },
  },
  {
    name: 'fallocate grows it, and with KEEP_SIZE does not',
    base: 'odd',
    needs: ['fallocate'],
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) => {
        fallocate(fd, FALLOC_FL_KEEP_SIZE, SIZE, 100_000);
        assert.equal(fs.fstatSync(fd).size, SIZE);
        fallocate(fd, 0, 0, 10);
        assert.equal(fs.fstatSync(fd).size, SIZE);
        fallocate(fd, 0, SIZE + 10_000, 1);
        model.truncate(SIZE + 10_001);
      });
      model.verify(disk);
    },
  },
  {
    name: 'calls that do not fit the handle are refused and change nothing',
    base: 'odd',
    run: (disk) => {
      reading(disk, (fd) => {
        assert.equal(
          refusal(() => fs.writeSync(fd, Buffer.alloc(1), 0, 1, 0)),
          'EBADF',
        );
        assert.equal(
          refusal(() => fs.ftruncateSync(fd, 5)),
          'EINVAL',
        );
      });
      withFile(disk, O_WRONLY, (fd) =>
        assert.equal(
          refusal(() => fs.readSync(fd, Buffer.alloc(1), 0, 1, 0)),
          'EBADF',
        ),
      );
      assert.equal(
        refusal(() => fs.openSync(disk, 'wx')),
        'EEXIST',
      );
      assert.equal(
        refusal(() => fs.statSync(`${disk}/x`)),
        'ENOTDIR',
      );
      assert.equal(
        refusal(() => fs.readdirSync(disk)),
        'ENOTDIR',
      );
      new Model('odd').verify(disk);
    },
  },
];
