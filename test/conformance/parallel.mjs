/**
 * Threads on one disk at once. After libnbd's fuse/test-parallel.sh: readers beside writers, and writers that meet in a
 * block.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { Worker } from 'node:worker_threads';
import { aligned, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate, PAGE } from '../system-calls.mjs';
import { BASES, contentAt, otherBytes } from './content.mjs';
import { Model, readAt, sameBytes, withFile, writeAll } from './file.mjs';

const { O_RDONLY, O_RDWR, O_DIRECT } = fs.constants;
const SIZE = BASES.even.bytes;
const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
/** Stripes of this size are read by all and written by one each, by turns. */
const STRIPE = 65_536;
const STRIPES = SIZE / STRIPE;
const WRITERS = 4;
const READERS = 4;

/** What a thread does, by name: `which` of its kind it is. */
const ROLES = {
  /** Its own stripes (every fourth odd one), in pieces that divide nothing; the last round's bytes stay. */
  write: (disk, which) =>
    withFile(disk, O_RDWR, (fd) => {
      for (let round = 0; round < 6; round++) {
        for (let stripe = 2 * which + 1; stripe < STRIPES; stripe += 2 * WRITERS) {
          const bytes = otherBytes(stripe * 10 + round, STRIPE);
          for (let at = 0; at < STRIPE; at += 7001) {
            writeAll(fd, bytes.subarray(at, at + 7001), stripe * STRIPE + at);
          }
          sameBytes(readAt(fd, stripe * STRIPE, STRIPE), bytes, `writer ${which}, stripe ${stripe}`);
        }
      }
    }),
  /** The stripes that nobody writes, cached or past the cache. */
  read: (disk, which) =>
    withFile(disk, which % 2 === 0 ? O_RDONLY : O_RDONLY | O_DIRECT, (fd) => {
      const into = aligned(STRIPE);
      for (let round = 0; round < 12; round++) {
        for (let stripe = 0; stripe < STRIPES; stripe += 2) {
          assert.equal(fs.readSync(fd, into, 0, STRIPE, stripe * STRIPE), STRIPE);
          sameBytes(into, contentAt('even', stripe * STRIPE, STRIPE), `reader ${which}, stripe ${stripe}`);
        }
      }
    }),
  /** Every fourth piece of 509 bytes: each block is met by all of them, and most pieces end within one. */
  share: (disk, which) =>
    withFile(disk, O_RDWR, (fd) => {
      for (let piece = which; (piece + 1) * 509 <= SIZE; piece += WRITERS) {
        writeAll(fd, otherBytes(piece, 509), piece * 509);
      }
    }),
  /** Punches its stripes and writes a part of each again. */
  punch: (disk, which) =>
    withFile(disk, O_RDWR, (fd) => {
      for (let round = 0; round < 6; round++) {
        for (let stripe = 2 * which + 1; stripe < STRIPES; stripe += 2 * WRITERS) {
          const start = stripe * STRIPE;
          writeAll(fd, otherBytes(round, STRIPE), start);
          fallocate(fd, PUNCH, start, STRIPE);
          writeAll(fd, otherBytes(stripe, PAGE), start + 3 * PAGE);
        }
      }
    }),
};

/** Entry of a thread. */
export function play({ role, disk, which }) {
  ROLES[role](disk, which);
}

/** Runs threads to their ends; the first error of any. */
async function together(disk, crew) {
  const threads = crew.flatMap(([role, count]) => Array.from({ length: count }, (_, which) => ({ role, disk, which })));
  await Promise.all(
    threads.map(
      (workerData) =>
        new Promise((done, fail) => {
          const worker = new Worker(new URL('./thread.mjs', import.meta.url), { workerData });
          worker.once('error', fail);
          worker.once('exit', done);
        }),
    ),
  );
}

export const parallel = [
  {
    name: 'four readers beside four writers',
    base: 'even',
    run: async (disk) => {
      await together(disk, [
        ['write', WRITERS],
        ['read', READERS],
      ]);
      const model = new Model('even');
      for (let stripe = 1; stripe < STRIPES; stripe += 2) {
        model.write(otherBytes(stripe * 10 + 5, STRIPE), stripe * STRIPE);
      }
      model.verify(disk);
    },
  },
  {
    name: 'four writers that meet in every block lose nothing of each other',
    base: 'even',
    run: async (disk) => {
      await together(disk, [['share', WRITERS]]);
      const model = new Model('even');
      const pieces = Math.floor(SIZE / 509);
      model.write(Buffer.concat(Array.from({ length: pieces }, (_, piece) => otherBytes(piece, 509))), 0);
      model.verify(disk);
    },
  },
  {
    name: 'four punchers beside four readers',
    base: 'even',
    needs: ['fallocate'],
    run: async (disk) => {
      await together(disk, [
        ['punch', WRITERS],
        ['read', READERS],
      ]);
      const model = new Model('even');
      for (let stripe = 1; stripe < STRIPES; stripe += 2) {
        model.zero(stripe * STRIPE, STRIPE);
        model.write(otherBytes(stripe, PAGE), stripe * STRIPE + 3 * PAGE);
      }
      model.verify(disk);
    },
  },
];
