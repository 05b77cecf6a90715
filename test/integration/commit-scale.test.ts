/** A commit costs what was written, in time and memory, whatever the size of the disk. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, statfsSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { COWFS, makeMountpoint, mountDisk, mustCowfs, statusOf } from '../harness.ts';
import { expectNames, fastScratch } from './commit-support.ts';
import { needs } from './machine-support.ts';
import { MIB, randomOf, SEED } from './overlay-support.ts';
import { filled, opened } from './sessions-support.ts';

console.log(`commit-scale: COWFS_SEED=${SEED}`);

const GIB = 1024 * MIB;
const DISK_BYTES = 64 * GIB;
const MOST_RSS_BYTES = 300 * MIB;
/** The log, the store and the base have it each, and something is left. */
const ROOM_FOR = 4;

/** Writes 1 MiB at each of these places. */
function writeAt(disk: string, places: readonly number[], seed: number): void {
  const fd = openSync(disk, 'r+');
  const piece = filled(seed, MIB);
  for (const place of places) {
    piece.writeDoubleLE(place, 0);
    writeSync(fd, piece, 0, MIB, place);
  }
  closeSync(fd);
}

function expectAt(path: string, places: readonly number[], seed: number): void {
  const fd = openSync(path, 'r');
  const [piece, found] = [filled(seed, MIB), Buffer.alloc(MIB)];
  for (const place of places) {
    piece.writeDoubleLE(place, 0);
    readSync(fd, found, 0, MIB, place);
    if (!found.equals(piece)) expect.fail(`${path} differs at ${place}`);
  }
  closeSync(fd);
}

test.for([
  { what: 'one run', places: (count: number) => Array.from({ length: count }, (_, index) => 7 * GIB + index * MIB) },
  {
    what: 'runs all over it',
    places: (count: number) => {
      const random = randomOf(SEED);
      // No two of them touch, and some begin in the middle of a block.
      return Array.from({ length: count }, (_, index) => (index * 64 + random(60)) * MIB + random(2) * 2049);
    },
  },
])('64 GiB with 1 GiB written, in $what', { timeout: 300_000 }, ({ what, places: placesOf }, context) => {
  needs(context, '/usr/bin/time');
  const directory = fastScratch();
  const { bavail, bsize } = statfsSync(directory);
  const written = Math.min(GIB, Math.floor((bavail * bsize) / ROOM_FOR / MIB) * MIB);
  if (written < GIB) console.log(`${directory} has room for ${written / MIB} MiB only, not for 1024`);
  const places = placesOf(written / MIB);
  const base = join(directory, 'base.img');
  writeFileSync(base, 'start');
  truncateSync(base, DISK_BYTES);
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), ['--store', directory]);
  writeAt(disk, places, 1);
  const before = performance.now();
  const { status, stderr } = spawnSync('/usr/bin/time', ['-f', 'rss %M KiB', COWFS, 'commit', mountpoint], {
    encoding: 'utf8',
  });
  const seconds = (performance.now() - before) / 1000;
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringMatching(/^rss \d+ KiB\n$/) });
  const rssBytes = Number(/\d+/.exec(stderr)?.[0]) * 1024;
  const { memory } = statusOf(mountpoint);
  console.log(
    `64 GiB, ${written / MIB} MiB written in ${what}: commit ${seconds.toFixed(2)} s, ` +
      `${(written / 1e6 / seconds).toFixed(0)} MB/s, ${(rssBytes / MIB).toFixed(0)} MiB; the daemon ${(memory.rssBytes / MIB).toFixed(0)} MiB`,
  );
  expect(rssBytes).toBeLessThan(MOST_RSS_BYTES);
  expectAt(base, places, 1);
  expectAt(disk, places, 1);
  const { size, blocks } = statSync(base);
  expect(size).toBe(DISK_BYTES);
  expect(blocks * 512).toBeLessThan(written * 1.1 + MIB);
  expect(statusOf(mountpoint).disks).toMatchObject([{ writtenBytes: 0, layers: 1 }]);
  expectNames(directory, 'base.img', 'mnt');
  // The store has given its room back.
  expect(statfsSync(directory).bavail * bsize).toBeGreaterThan(bavail * bsize - written * 1.1 - 64 * MIB);
  opened(disk, 'r');
  mustCowfs(['reset', '--force', disk]);
  expectAt(disk, places, 1);
});

test('single blocks all over a disk: much map and little data', { timeout: 300_000 }, (context) => {
  needs(context, '/usr/bin/time');
  const directory = fastScratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, 'start');
  truncateSync(base, DISK_BYTES);
  const overlay = join(directory, 'vm.cow');
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), ['--overlay', overlay]);
  const count = 40_000;
  const stride = Math.floor(DISK_BYTES / count / 4096) * 4096;
  const fd = openSync(disk, 'r+');
  const block = Buffer.alloc(4096);
  for (let index = 0; index < count; index++) {
    block.writeDoubleLE(index + 1, 0);
    writeSync(fd, block, 0, 4096, index * stride);
  }
  closeSync(fd);
  mustCowfs(['unmount', mountpoint]);
  const before = performance.now();
  const { status, stderr } = spawnSync('/usr/bin/time', ['-f', 'rss %M KiB', COWFS, 'commit', overlay], {
    encoding: 'utf8',
  });
  const seconds = (performance.now() - before) / 1000;
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringMatching(/^rss \d+ KiB\n$/) });
  const rssBytes = Number(/\d+/.exec(stderr)?.[0]) * 1024;
  console.log(`${count} single blocks: commit ${seconds.toFixed(2)} s, ${(rssBytes / MIB).toFixed(0)} MiB`);
  expect(rssBytes).toBeLessThan(MOST_RSS_BYTES);
  const baseFd = openSync(base, 'r');
  for (let index = 0; index < count; index++) {
    readSync(baseFd, block, 0, 4096, index * stride);
    if (block.readDoubleLE(0) !== index + 1) expect.fail(`block ${index} differs`);
  }
  closeSync(baseFd);
});
