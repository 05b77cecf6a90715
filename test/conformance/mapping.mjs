/**
 * mmap(2) beside reads and writes, cached and past the cache.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { load, MAP_PRIVATE, mmap, msync, munmap, PAGE, store } from '../system-calls.mjs';
import { BASES, contentAt, otherBytes } from './content.mjs';
import { Model, readAt, readDirect, reading, refusal, sameBytes, writeAll, writing } from './file.mjs';

const SIZE = BASES.odd.bytes;

/** Maps for as long as `use` takes, which gets the address. */
function mapped(map, length, use) {
  try {
    return use(map);
  } finally {
    munmap(map, length);
  }
}

function readMapped(address, length) {
  const bytes = Buffer.alloc(length);
  load(bytes, address);
  return bytes;
}

/** For the process that dies of it. */
export function touchPastTheEnd(disk) {
  writing(disk, (fd) => load(Buffer.alloc(1), mmap(fd, 0, 64 * PAGE, MAP_PRIVATE) + 40 * PAGE));
}

export const mappings = [
  {
    name: 'a mapping to read shows the disk, with zeros behind the end in its last page',
    base: 'odd',
    run: (disk) =>
      reading(disk, (fd) =>
        mapped(mmap(fd, 0, 32 * PAGE, MAP_PRIVATE), 32 * PAGE, (address) =>
          sameBytes(
            readMapped(address, 32 * PAGE),
            Buffer.concat([contentAt('odd', 0, SIZE), Buffer.alloc(32 * PAGE - SIZE)]),
            'mapping',
          ),
        ),
      ),
  },
  {
    name: 'a private mapping keeps what is written to it',
    base: 'odd',
    run: (disk) => {
      writing(disk, (fd) =>
        mapped(mmap(fd, 4096, 8192, MAP_PRIVATE), 8192, (address) => {
          store(address + 10, otherBytes(1, 5000));
          sameBytes(readMapped(address + 10, 5000), otherBytes(1, 5000), 'its own view');
        }),
      );
      new Model('odd').verify(disk);
    },
  },
  {
    name: 'a page past the end of the file is SIGBUS',
    base: 'odd',
    run: (disk) => {
      const main = fileURLToPath(new URL('./main.mjs', import.meta.url));
      assert.equal(spawnSync(process.execPath, [main, 'touch', disk]).signal, 'SIGBUS');
    },
  },
  {
    name: 'without shared mappings: ENODEV',
    base: 'odd',
    lacks: 'shared-mapping',
    run: (disk) =>
      writing(disk, (fd) =>
        assert.equal(
          refusal(() => mmap(fd, 0, PAGE)),
          'ENODEV',
        ),
      ),
  },
  {
    name: 'a shared mapping and write(2) see each other',
    base: 'odd',
    needs: ['shared-mapping'],
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) =>
        mapped(mmap(fd, 0, 32 * PAGE), 32 * PAGE, (address) => {
          const write = (seed, offset, length) => {
            const bytes = otherBytes(seed, length);
            if (seed % 2 === 0) store(address + offset, bytes);
            else writeAll(fd, bytes, offset);
            model.write(bytes, offset);
            sameBytes(readAt(fd, 0, SIZE), model.bytes, `read(2) after ${seed}`);
            sameBytes(readMapped(address, SIZE), model.bytes, `mapping after ${seed}`);
          };
          for (const [seed, offset] of [5, 4000, 4096, 50_001, 60_000, 100_000, 4097, SIZE - 777].entries()) {
            write(seed, offset, 777);
          }
        }),
      );
      model.verify(disk);
    },
  },
  {
    name: 'what is written to a shared mapping stays, msync or not, and the file closed before',
    base: 'odd',
    needs: ['shared-mapping'],
    run: (disk) => {
      const model = new Model('odd');
      for (const [turn, sync] of [true, false].entries()) {
        const address = writing(disk, (fd) => mmap(fd, 65_536, 8 * PAGE));
        const bytes = otherBytes(turn, 20_000);
        mapped(address, 8 * PAGE, () => {
          store(address + turn * 5000, bytes);
          if (sync) msync(address, 8 * PAGE);
        });
        model.write(bytes, 65_536 + turn * 5000);
        model.verify(disk, sync ? 'with msync' : 'without');
      }
    },
  },
  {
    name: 'O_DIRECT and a shared mapping see each other',
    base: 'odd',
    needs: ['shared-mapping'],
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) =>
        mapped(mmap(fd, 0, 32 * PAGE), 32 * PAGE, (address) => {
          for (const [seed, offset] of [0, 8000, 70_000].entries()) {
            const bytes = otherBytes(seed, 5000);
            store(address + offset, bytes);
            model.write(bytes, offset);
            sameBytes(readDirect(disk, 0, SIZE), model.bytes, `O_DIRECT after a mapped write at ${offset}`);
          }
        }),
      );
      model.verify(disk);
    },
  },
  {
    name: 'a truncate is seen through a mapping',
    base: 'odd',
    needs: ['shared-mapping'],
    run: (disk) => {
      const model = new Model('odd');
      writing(disk, (fd) =>
        mapped(mmap(fd, 0, 16 * PAGE), 16 * PAGE, (address) => {
          store(address, otherBytes(3, 60_000));
          fs.ftruncateSync(fd, 10_001);
          fs.ftruncateSync(fd, SIZE);
          model.write(otherBytes(3, 60_000), 0);
          model.truncate(10_001);
          model.truncate(SIZE);
          sameBytes(readMapped(address, 16 * PAGE), model.at(0, 16 * PAGE), 'mapping');
        }),
      );
      model.verify(disk);
    },
  },
];
