/**
 * A disk of 64 GiB with 1 GiB written, all over it: exports take what the 1 GiB takes, in time, memory and space. Prints
 * figures; only sizes and memory are asserted.
 */
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { COWFS, makeMountpoint, mountDisk, must, mustCowfs, run, scratch, statusOf } from '../harness.ts';
import { allocatedBytes, diffOf, FORMAT_NAMES, FORMATS, MIB, untilThawed } from './export-support.ts';
import { freeBytes, needs, skipUnless } from './machine-support.ts';
import { filled, put } from './sessions-support.ts';

const GIB = 2 ** 30;
const DISK_BYTES = 64 * GIB;
const PIECES = 64;
const MOST_RSS_BYTES = 300 * MIB;

beforeEach((context) => {
  needs(context, 'qemu-img');
  skipUnless(context, existsSync('/usr/bin/time'), 'not installed: time');
});

/** Where there is room for the store and an image, and by how much the load has to be less. */
function room(directory: string): { place: string; writtenBytes: number } {
  for (const place of [directory, '/dev/shm']) {
    if (freeBytes(place) >= 4 * GIB) return { place, writtenBytes: GIB };
  }
  console.log('less than 4 GiB are free: 128 MiB are written instead of 1 GiB');
  return { place: directory, writtenBytes: GIB / 8 };
}

interface Figures {
  readonly seconds: number;
  readonly rssBytes: number;
}

/** Runs a command by time(1). */
function measured(args: readonly string[]): Figures {
  const { status, stderr } = run('/usr/bin/time', ['-f', '%e %M', COWFS, ...args], {
    timeoutMs: 600_000,
  });
  expect({ status, stderr }).toMatchObject({ status: 0 });
  const [, seconds, kibibytes] = /^([\d.]+) (\d+)$/m.exec(stderr) ?? [];
  return { seconds: Number(seconds), rssBytes: Number(kibibytes) * 1024 };
}

/** Pieces in equal distances, the last at the end. */
function write(disk: string, writtenBytes: number): void {
  const bytes = filled(5, MIB);
  const fd = openSync(disk, 'r+');
  const piece = writtenBytes / PIECES;
  for (let index = 0; index < PIECES; index++) {
    const end = ((index + 1) * DISK_BYTES) / PIECES;
    for (let at = end - piece; at < end; at += MIB) {
      bytes.writeDoubleLE(at, 0);
      writeSync(fd, bytes, 0, bytes.length, at);
    }
  }
  closeSync(fd);
}

test('64 GiB with 1 GiB written', { timeout: 900_000 }, async () => {
  const directory = scratch();
  const { place, writtenBytes } = room(directory);
  const target = mkdtempSync(join(place, 'cowfs-test-'));
  onTestFinished(() => rmSync(target, { recursive: true, force: true }));
  const base = join(directory, 'base.img');
  writeFileSync(base, filled(1, MIB));
  truncateSync(base, DISK_BYTES);
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), ['--store', target]);
  write(disk, writtenBytes);
  expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe(writtenBytes);
  // What the first export would otherwise wait for.
  must('sync', ['-f', target], { timeoutMs: 600_000 });
  const bounds = {
    raw: [writtenBytes, writtenBytes * 1.02],
    flat: [0, writtenBytes * 1.02],
    backed: [0, writtenBytes * 1.03],
  };
  for (const format of FORMAT_NAMES) {
    const path = join(target, format);
    const { seconds, rssBytes } = measured(['export', disk, path, ...FORMATS[format]]);
    const bytes = allocatedBytes(path);
    console.log(
      `${format}: ${seconds} s, ${(writtenBytes / MIB / seconds).toFixed(0)} MiB/s, ${(rssBytes / MIB).toFixed(0)} MiB of memory, ` +
        `${(bytes / MIB).toFixed(1)} MiB for ${writtenBytes / MIB} MiB written`,
    );
    expect(rssBytes).toBeLessThan(MOST_RSS_BYTES);
    expect(bytes).toBeGreaterThanOrEqual(bounds[format][0] ?? 0);
    expect(bytes).toBeLessThanOrEqual((bounds[format][1] ?? 0) + 8 * MIB);
    if (format === 'raw') expect(statSync(path).size).toBe(DISK_BYTES);
    const given = format === 'raw' ? 'raw' : 'qcow2';
    if (format !== 'raw') must('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
    must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', given, disk, path], { timeoutMs: 600_000 });
    rmSync(path);
  }
  const differing = measured(['diff', disk, '--json']);
  console.log(`diff: ${differing.seconds} s, ${(differing.rssBytes / MIB).toFixed(0)} MiB of memory`);
  expect(differing.rssBytes).toBeLessThan(MOST_RSS_BYTES);
  expect(diffOf(disk).ranges.reduce((sum, { length }) => sum + length, 0)).toBe(writtenBytes);
  await untilThawed(mountpoint, 60_000);
});

test('64 GiB with 16384 single blocks written, and a base trimmed from end to end', { timeout: 900_000 }, () => {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, filled(1, MIB));
  truncateSync(base, DISK_BYTES);
  const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory));
  const fd = openSync(disk, 'r+');
  const block = filled(7, 4096);
  for (let at = 0; at < 16_384; at++) {
    block.writeUInt32LE(at + 1, 0);
    writeSync(fd, block, 0, 4096, at * 4 * MIB);
  }
  closeSync(fd);
  for (const format of FORMAT_NAMES) {
    const path = join(directory, format);
    const { seconds, rssBytes } = measured(['export', disk, path, ...FORMATS[format]]);
    const bytes = allocatedBytes(path);
    console.log(
      `${format}, blocks: ${seconds} s, ${(rssBytes / MIB).toFixed(0)} MiB of memory, ${(bytes / MIB).toFixed(1)} MiB for 64`,
    );
    expect(rssBytes).toBeLessThan(MOST_RSS_BYTES);
    if (format !== 'raw') must('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
    const given = format === 'raw' ? 'raw' : 'qcow2';
    must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', given, disk, path], { timeoutMs: 600_000 });
    rmSync(path);
  }
  const blocks = measured(['diff', disk]);
  console.log(`diff, blocks: ${blocks.seconds} s, ${(blocks.rssBytes / MIB).toFixed(0)} MiB of memory`);
  expect(blocks.rssBytes).toBeLessThan(MOST_RSS_BYTES);

  must('fallocate', ['-p', '-o', '0', '-l', String(DISK_BYTES), disk]);
  put(disk, 40 * GIB, filled(1, 4096));
  for (const format of FORMAT_NAMES) {
    const path = join(directory, format);
    const { seconds, rssBytes } = measured(['export', disk, path, ...FORMATS[format]]);
    console.log(`${format}, trimmed: ${seconds} s, ${(rssBytes / MIB).toFixed(0)} MiB of memory`);
    expect(rssBytes).toBeLessThan(MOST_RSS_BYTES);
    expect(allocatedBytes(path)).toBeLessThan(DISK_BYTES / 512 + MIB);
    const given = format === 'raw' ? 'raw' : 'qcow2';
    must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', given, disk, path], { timeoutMs: 600_000 });
  }
  expect(diffOf(disk).ranges).toEqual([
    { offset: 0, length: MIB, kind: 'zero' },
    { offset: 40 * GIB, length: 4096, kind: 'data' },
  ]);
  mustCowfs(['unmount', mountpoint]);
});
