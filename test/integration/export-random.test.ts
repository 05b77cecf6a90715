/**
 * Random disks: writes, trims, sizes, forks, snapshots and ways back, then exports in all formats, and diff, against what
 * plain reads through the mount give. COWFS_SEED repeats a run, COWFS_EXPORT_ROUNDS makes it longer.
 */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { makeMountpoint, mountDisk, must, mustCowfs, scratch } from '../harness.ts';
import {
  BLOCK,
  blocksOf,
  differingBlocks,
  diffOf,
  expectExport,
  exported,
  FORMAT_NAMES,
  MIB,
  readThrough,
} from './export-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { needs } from './machine-support.ts';
import { randomOf, SEED } from './overlay-support.ts';
import { filled, type Mode, put, TRANSPORT_MODES } from './sessions-support.ts';

const ROUNDS = Number(process.env['COWFS_EXPORT_ROUNDS'] ?? 8);
const MOST_BYTES = 6 * MIB;

beforeEach((context) => needs(context, 'qemu-img', 'cmp'));

type Random = (below: number) => number;

/** Sparse where `random` says so. */
function makeRandomBase(path: string, random: Random): Buffer {
  const bytes = 1 + random(4) * MIB + random(MIB);
  writeFileSync(path, '');
  const fd = openSync(path, 'r+');
  for (let at = 0; at < bytes; ) {
    const length = Math.min(bytes - at, 1 + random(400_000));
    if (random(3) > 0) writeSync(fd, filled(random(1000), length), 0, length, at);
    at += length;
  }
  closeSync(fd);
  truncateSync(path, bytes);
  return readFileSync(path);
}

/** Near a block's border as often as not. */
function place(random: Random, below: number): number {
  const at = random(below);
  return random(2) === 0 ? at : Math.max(0, Math.floor(at / BLOCK) * BLOCK + random(3) - 1);
}

class RandomDisk {
  readonly mode: Mode;
  readonly at: (name: string) => string;
  readonly random: Random;
  readonly log: string[] = [];
  #disks: string[];
  #made = 0;

  constructor(mode: Mode, at: (name: string) => string, first: string, random: Random) {
    this.mode = mode;
    this.at = at;
    this.random = random;
    this.#disks = [first];
  }

  get disks(): readonly string[] {
    return this.#disks;
  }

  step(base: Buffer): void {
    const { random } = this;
    const name = this.#disks[random(this.#disks.length)] as string;
    const disk = this.at(name);
    const kind = random(100);
    if (kind < 40) {
      const [offset, length] = [place(random, MOST_BYTES), 1 + random(random(2) === 0 ? 9000 : 200_000)];
      // The base's own bytes, now and then: written, and no different.
      const same = base.subarray(offset, offset + length);
      const bytes = random(5) === 0 && same.length > 0 ? Buffer.from(same) : filled(random(1000), length);
      if (random(8) === 0) bytes.fill(0);
      this.#note(`write ${name} ${offset} ${bytes.length}`);
      put(disk, offset, bytes);
    } else if (kind < 60) {
      const [offset, length] = [place(random, MOST_BYTES), 1 + random(MIB)];
      this.#note(`trim ${name} ${offset} ${length}`);
      if (this.mode.transport === 'kernel') {
        must('fallocate', ['-p', '-o', String(offset), '-l', String(length), disk]);
      }
    } else if (kind < 80) {
      const size = place(random, MOST_BYTES);
      this.#note(`truncate ${name} ${size}`);
      truncateSync(disk, size);
    } else if (kind < 85) {
      const to = `fork-${this.#made++}.raw`;
      this.#note(`fork ${name} ${to}`);
      mustCowfs(['fork', disk, this.at(to)]);
      this.#disks.push(to);
    } else if (kind < 95) {
      const snapshot = `s${this.#made++}`;
      this.#note(`snapshot ${name} ${snapshot}`);
      mustCowfs(['snapshot', disk, snapshot]);
      if (random(3) === 0) {
        put(disk, place(random, MOST_BYTES), filled(random(1000), 10_000));
        this.#note(`rollback ${name} ${snapshot}`);
        mustCowfs(['rollback', disk, snapshot]);
      }
    } else if (this.mode.transport === 'kernel') {
      this.#note(`allocate ${name}`);
      must('fallocate', ['-n', '-o', String(place(random, MOST_BYTES)), '-l', String(1 + random(MIB)), disk]);
    }
  }

  #note(text: string): void {
    this.log.push(text);
  }
}

test.for(TRANSPORT_MODES)('random disks, $name', { timeout: 600_000 }, (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  const rounds = mode.transport === 'kernel' ? ROUNDS : Math.ceil(ROUNDS / 3);
  let exports = 0;
  for (let round = 0; round < rounds; round++) {
    const seed = SEED + round;
    const random = randomOf(seed);
    const directory = scratch();
    const base = join(directory, 'base.img');
    const original = makeRandomBase(base, random);
    const mountpoint = makeMountpoint(directory);
    const options = ['--transport', mode.transport, '--cache', mode.cache];
    mountDisk(base, mountpoint, options);
    const disks = new RandomDisk(mode, (name) => join(mountpoint, name), 'disk.raw', random);
    try {
      for (let steps = 5 + random(30); steps > 0; steps--) disks.step(original);
      for (const name of disks.disks.slice(-2)) {
        const disk = join(mountpoint, name);
        const content = readThrough(disk);
        const copy = join(directory, 'copy.raw');
        writeFileSync(copy, content);
        for (const format of FORMAT_NAMES) {
          expectExport(exported(disk, join(directory, format), format, ['--force']), copy, format);
          exports += 1;
        }
        expect(readFileSync(join(directory, 'raw')).equals(content)).toBe(true);
        const different = diffOf(disk);
        expect(different).toMatchObject({ size: content.length, baseSize: original.length, base, disk });
        expect(blocksOf(different.ranges)).toEqual(differingBlocks(content, original));
        for (const { offset, length, kind } of different.ranges) {
          if (kind === 'zero') expect(content.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
        }
        const written = new Set(blocksOf(diffOf(disk, ['--written']).ranges));
        expect(blocksOf(different.ranges).filter((block) => !written.has(block))).toEqual([]);
      }
      mustCowfs(['unmount', '--force', mountpoint]);
      expect(readFileSync(base).equals(original)).toBe(true);
    } catch (error) {
      console.log(`COWFS_SEED=${seed}\n${disks.log.join('\n')}`);
      throw error;
    }
  }
  console.log(`random disks, ${mode.name}: ${exports} exports, COWFS_SEED=${SEED}`);
});
