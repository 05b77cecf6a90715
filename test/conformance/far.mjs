/**
 * Offsets beyond 32 bits: data at 0, 3, 4, 5 and 8 GiB, as nbdkit's tests have it.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { lseek, SEEK_DATA, SEEK_HOLE } from '../system-calls.mjs';
import { BASES, contentAt, GIB, MIB, otherBytes } from './content.mjs';
import { readAt, readDirect, reading, refusal, sameBytes, writeAll, writing } from './file.mjs';

const { bytes: SIZE, data: ISLANDS } = BASES.far;
/** Where 32 bits or 31 of them end, and where data begins and ends. */
const EDGES = [2 * GIB, 4 * GIB, ...ISLANDS.flatMap(([start, length]) => [start, start + length])].filter(
  (at) => at > 8,
);

/** Data as lseek(2) tells it, from a handle that only reads. */
function extentsOf(disk) {
  return reading(disk, (fd) => {
    const found = [];
    for (let at = 0; at < SIZE; ) {
      let data;
      try {
        data = lseek(fd, at, SEEK_DATA);
      } catch (error) {
        assert.equal(error.code, 'ENXIO');
        break;
      }
      const hole = lseek(fd, data, SEEK_HOLE);
      assert.ok(data >= at && hole > data && hole <= SIZE, `data ${data} to ${hole}, asked from ${at}`);
      found.push([data, hole]);
      at = hole;
    }
    return found;
  });
}

export const far = [
  {
    name: 'data and zeros are where they belong around every edge',
    base: 'far',
    run: (disk) => {
      assert.equal(fs.statSync(disk).size, SIZE);
      reading(disk, (fd) => {
        for (const edge of EDGES) {
          const length = Math.min(9000, SIZE - (edge - 4500));
          sameBytes(
            readAt(fd, edge - 4500, length),
            contentAt('far', edge - 4500, length),
            `around ${edge}`,
            edge - 4500,
          );
        }
      });
      sameBytes(readDirect(disk, 4 * GIB - 9000, 18_000), contentAt('far', 4 * GIB - 9000, 18_000), 'O_DIRECT');
    },
  },
  {
    name: 'writes across every edge',
    base: 'far',
    run: (disk) => {
      const written = EDGES.filter((edge) => edge < SIZE).map((edge, seed) => [edge - 3, otherBytes(seed, 4103)]);
      writing(disk, (fd) => {
        for (const [offset, bytes] of written) writeAll(fd, bytes, offset);
      });
      reading(disk, (fd) => {
        for (const [offset, bytes] of written) sameBytes(readAt(fd, offset, bytes.length), bytes, 'written', offset);
        for (const [offset, bytes] of written) {
          const [before, after] = [offset - 5000, offset + bytes.length];
          sameBytes(readAt(fd, before, 5000), contentAt('far', before, 5000), 'before it', before);
          if (after + 5000 < SIZE) sameBytes(readAt(fd, after, 5000), contentAt('far', after, 5000), 'after it', after);
        }
      });
      assert.equal(fs.statSync(disk).size, SIZE);
    },
  },
  {
    name: 'a size beyond 4 GiB, by truncate and by writing',
    base: 'far',
    run: (disk) => {
      fs.truncateSync(disk, 5 * GIB + 17);
      assert.equal(fs.statSync(disk).size, 5 * GIB + 17);
      writing(disk, (fd) => {
        sameBytes(readAt(fd, 5 * GIB, 100), contentAt('far', 5 * GIB, 17), 'short at the new end');
        fs.ftruncateSync(fd, 100 * GIB + 1);
        sameBytes(
          readAt(fd, 5 * GIB, 5000),
          Buffer.concat([contentAt('far', 5 * GIB, 17), Buffer.alloc(4983)]),
          'grown',
        );
        sameBytes(readAt(fd, 8 * GIB, 5000), Buffer.alloc(5000), 'cut off');
        writeAll(fd, Buffer.from('end'), 200 * GIB);
        assert.equal(fs.fstatSync(fd).size, 200 * GIB + 3);
      });
      sameBytes(
        reading(disk, (fd) => readAt(fd, 200 * GIB - 1, 9)),
        Buffer.from('\0end'),
        'the end',
      );
    },
  },
  {
    name: 'without holes: all is data, to the end',
    base: 'far',
    lacks: 'holes',
    run: (disk) => assert.deepEqual(extentsOf(disk), [[0, SIZE]]),
  },
  {
    name: 'extents: all data is in what SEEK_DATA finds, and holes are where the base has them',
    base: 'far',
    needs: ['holes'],
    run: (disk) => {
      const found = extentsOf(disk);
      for (const [start, length] of ISLANDS) {
        const within = found.some(([data, hole]) => data <= start && hole >= start + length);
        assert.ok(within, `${start} to ${start + length} is not within ${JSON.stringify(found)}`);
      }
      const total = found.reduce((sum, [data, hole]) => sum + hole - data, 0);
      assert.ok(total < 32 * MIB, `${total} bytes are called data`);
    },
  },
  {
    name: 'extents: what was written is data, wherever it is',
    base: 'far',
    needs: ['holes'],
    run: (disk) => {
      const offsets = [GIB + 5, 6 * GIB, 7 * GIB - 1];
      writing(disk, (fd) => {
        for (const offset of offsets) writeAll(fd, Buffer.from('here'), offset);
        // While it is open for writing, too: not a byte may be called a hole that is none.
        for (const offset of offsets) assert.equal(lseek(fd, offset, SEEK_DATA), offset);
      });
      const found = extentsOf(disk);
      for (const offset of offsets) {
        assert.ok(
          found.some(([data, hole]) => data <= offset && hole >= offset + 4),
          `${offset} is in none of ${JSON.stringify(found)}`,
        );
      }
    },
  },
  {
    name: 'SEEK_DATA and SEEK_HOLE past the end are ENXIO, and the end is a hole',
    base: 'odd',
    run: (disk) =>
      reading(disk, (fd) => {
        const size = BASES.odd.bytes;
        assert.equal(lseek(fd, size - 1, SEEK_DATA), size - 1);
        assert.equal(lseek(fd, 0, SEEK_HOLE), size);
        for (const whence of [SEEK_DATA, SEEK_HOLE]) {
          for (const offset of [size, size + 1, 2 ** 40]) {
            assert.equal(
              refusal(() => lseek(fd, offset, whence)),
              'ENXIO',
            );
          }
        }
      }),
  },
];
