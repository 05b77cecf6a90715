/**
 * Many requests at once through fuse-native: libfuse starts and ends threads as the load comes and goes, and the package
 * keeps something for each. Neither threads nor memory may grow with the length of the load.
 */
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { beforeEach, expect, test } from 'vitest';
import { must, mustCowfs, statusOf } from '../harness.ts';
import { figureOf, mounted, needsFuseNative } from './fuse-native-support.ts';
import { needs } from './machine-support.ts';
import { expectNothingLeft } from './nothing-left-support.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const JOBS = 32;
const JOB_BYTES = 512 * KIB;
/** A load is this many requests at least: each block is written and read again, four times over. */
const LOAD_REQUESTS = (JOBS * JOB_BYTES * 4 * 2) / 4096;
/** Measured 0.1 MiB between loads of 32k requests; a leak of a request's memory, 4 KiB each, would be 128 MiB. */
const GROWTH_BYTES = 24 * MIB;
/** libfuse 2 keeps ten idle ones (its lib/fuse_loop_mt.c), and has one that waits for the end. */
const LIBFUSE_THREADS = 12;

beforeEach(needsFuseNative);

/** Each job writes a part of the disk in random order, and reads it again to see that it is right. */
function load(disk: string): void {
  const jobs = [`--numjobs=${JOBS}`, '--thread', `--size=${JOB_BYTES}`, `--offset_increment=${JOB_BYTES}`, '--loops=4'];
  const requests = ['--rw=randwrite', '--bs=4k', '--ioengine=psync', '--verify=crc32c', '--verify_fatal=1'];
  const quiet = ['--allow_file_create=0', '--verify_state_save=0', '--minimal'];
  must('fio', ['--name=load', `--filename=${disk}`, ...jobs, ...requests, ...quiet]);
}

test('equal loads one after the other leave memory and threads as they are, and every byte right', async (context) => {
  needs(context, 'fio');
  const { mountpoint, disk, pid } = mounted(['--cache', 'none'], JOBS * JOB_BYTES);
  const threadsBefore = figureOf(pid, 'Threads');
  // Until everything is there that stays: code, buffers, the map's leaves.
  for (let round = 0; round < 2; round++) load(disk);
  const figures: { rss: number; threads: number; requests: number }[] = [];
  for (let round = 0; round < 3; round++) {
    const { reads, writes } = statusOf(mountpoint).io;
    figures.push({ rss: figureOf(pid, 'VmRSS'), threads: figureOf(pid, 'Threads'), requests: reads + writes });
    if (round < 2) load(disk);
  }
  const [first, second, third] = figures;
  if (first === undefined || second === undefined || third === undefined)
    throw new Error('three rounds have three figures');
  const growth = [second.rss - first.rss, third.rss - second.rss];
  const inMib = (bytes: number): string => (bytes / MIB).toFixed(1);
  console.log(
    `${JOBS} at once, ${second.requests - first.requests} requests a load: VmRSS ${figures.map(({ rss }) => inMib(rss)).join(', ')} MiB, ` +
      `growth ${growth.map(inMib).join(', ')} MiB; threads ${[threadsBefore, ...figures.map(({ threads }) => threads)].join(', ')}`,
  );
  expect(second.requests - first.requests).toBeGreaterThanOrEqual(LOAD_REQUESTS);
  // The lesser: what the collector has not looked at yet comes and goes.
  expect(Math.min(...growth)).toBeLessThan(GROWTH_BYTES);
  for (const { threads } of figures) expect(threads).toBeLessThanOrEqual(threadsBefore + LIBFUSE_THREADS);
  expect(statusOf(mountpoint).io.ioErrors).toBe(0);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('opening, looking and closing thousands of times leaves no handle and no memory', () => {
  const { mountpoint, disk, pid } = mounted([], 5000);
  const openAndClose = (): number => {
    for (let round = 0; round < 5000; round++) {
      const fd = openSync(disk, round % 2 === 0 ? 'r' : 'r+');
      if (round % 100 === 0) expect(statSync(disk).size).toBe(5000);
      closeSync(fd);
    }
    return figureOf(pid, 'VmRSS');
  };
  openAndClose();
  const [first, second] = [openAndClose(), openAndClose()];
  console.log(`5000 opens: VmRSS from ${(first / MIB).toFixed(1)} to ${(second / MIB).toFixed(1)} MiB`);
  expect(second - first).toBeLessThan(GROWTH_BYTES);
  // The kernel tells of a close after close(2).
  readFileSync(disk);
  expect(statusOf(mountpoint).disks[0]?.openHandles).toBeLessThanOrEqual(1);
});
