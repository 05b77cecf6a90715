/** Exports of disks in use: of one moment, with all that was written before, and nothing of them is left in the mount. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { makeMountpoint, mountDisk, mustCowfs, scratch, statusOf } from '../harness.ts';
import {
  BLOCK,
  contentOf,
  diffOf,
  expectDone,
  expectExport,
  expectSame,
  exported,
  FORMAT_NAMES,
  MIB,
  startExport,
  untilThawed,
} from './export-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { needs } from './machine-support.ts';
import { APART, DISK_BYTES, expectOneMoment, numberAt, SLOTS, Writer } from './moment-support.ts';
import {
  ALL_MODES,
  filled,
  make,
  mountSessions,
  opened,
  put,
  TRANSPORT_MODES,
  untilStores,
  WRITEBACK,
} from './sessions-support.ts';

beforeEach((context) => needs(context, 'qemu-img', 'cmp'));

/** A base that is a hole, so that exports are quick. */
function zeroBase(directory: string, bytes: number): string {
  const base = join(directory, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, bytes);
  return base;
}

test.for(ALL_MODES)(
  'a writer hammers, $name: every export is of one moment',
  { timeout: 300_000 },
  async (mode, context) => {
    if (mode.transport === 'fuse-native') needsFuseNative(context);
    const directory = scratch();
    const base = zeroBase(directory, DISK_BYTES);
    const options = ['--transport', mode.transport, '--cache', mode.cache];
    const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), options);
    const writer = new Writer(disk);
    const seen: number[] = [];
    for (let round = 0; round < 3; round++) {
      for (const format of FORMAT_NAMES) {
        await writer.goesOn();
        const atLeast = writer.number;
        const image = join(directory, format);
        await expectDone(startExport(disk, image, format, ['--force']));
        const number = expectOneMoment(contentOf(image, format, directory));
        expect(number).toBeGreaterThanOrEqual(atLeast);
        seen.push(number);
      }
    }
    await writer.goesOn();
    // Two at once, and a look at the differences.
    const both = ['one', 'two'].map((name) => startExport(disk, join(directory, name), 'raw'));
    expect(diffOf(disk).ranges.length).toBeGreaterThan(0);
    await Promise.all(both.map(expectDone));
    for (const name of ['one', 'two']) expectOneMoment(readFileSync(join(directory, name)));
    const last = await writer.stop();
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    const content = readFileSync(disk);
    expect([expectOneMoment(content), numberAt(content, APART)]).toEqual([last, last]);
    await untilThawed(mountpoint);
    expect(statusOf(mountpoint).disks[0]?.writtenBytes).toBe((2 + SLOTS) * BLOCK);
    expect(statusOf(mountpoint).disks[0]?.storeBytes).toBeLessThanOrEqual((2 + SLOTS) * BLOCK + 64 * 1024);
    expectSame(exported(disk, join(directory, 'end'), 'raw'), disk);
    expect(readFileSync(disk).equals(content)).toBe(true);
    console.log(`${mode.name}: exports at ${seen.join(', ')} of ${last}`);
  },
);

test.for(ALL_MODES)('what write(2) took before is in it, closed or not, $name', (mode, context) => {
  const { directory, disk, mountpoint } = mountSessions(mode, context, [], 4 * MIB);
  const fd = openSync(disk, 'r+');
  for (let round = 0; round < 5; round++) {
    for (const format of FORMAT_NAMES) {
      const bytes = filled(round * 3 + FORMAT_NAMES.indexOf(format), 200_000);
      writeSync(fd, bytes, 0, bytes.length, round * 300_000);
      const other = openSync(disk, 'r+');
      writeSync(other, bytes, 0, 50_000, 3 * MIB);
      closeSync(other);
      // Not synced, and still open.
      const image = exported(mountpoint, join(directory, format), format, ['--force']);
      const content = contentOf(image, format, directory);
      expect(content.subarray(round * 300_000, round * 300_000 + bytes.length).equals(bytes)).toBe(true);
      expect(content.subarray(3 * MIB, 3 * MIB + 50_000).equals(bytes.subarray(0, 50_000))).toBe(true);
    }
  }
  closeSync(fd);
});

test.for(TRANSPORT_MODES)(
  'the layers that exports and diffs froze go, and so do their stores, $name',
  async (mode, context) => {
    const { directory, disk, mountpoint, pid } = mountSessions(mode, context, [], 4 * MIB);
    const fd = opened(disk);
    for (let round = 0; round < 6; round++) {
      writeSync(fd, filled(round, MIB), 0, MIB, round * 100_000);
      exported(disk, join(directory, 'x'), FORMAT_NAMES[round % 3] ?? 'raw', ['--force']);
      diffOf(disk);
    }
    await untilThawed(mountpoint);
    await untilStores(pid, 1);
    expectExport(exported(disk, join(directory, 'x'), 'raw', ['--force']), disk, 'raw');
  },
);

test('a disk of which much was written is thawed, too', async () => {
  const directory = scratch();
  const { disk, mountpoint } = mountDisk(zeroBase(directory, 128 * MIB), makeMountpoint(directory));
  const fd = opened(disk);
  const bytes = filled(1, 4 * MIB);
  for (let at = 0; at < 100 * MIB; at += bytes.length) writeSync(fd, bytes, 0, bytes.length, at);
  const child = startExport(disk, join(directory, 'x'), 'raw');
  for (let at = 0; at < 60 * MIB; at += bytes.length) writeSync(fd, bytes, 0, bytes.length, at + 1000);
  await expectDone(child);
  await untilThawed(mountpoint, 60_000);
});

test('snapshots and forks stay what they are while and after disks are exported', async () => {
  const { at, directory, disk, mountpoint, original } = mountSessions(WRITEBACK, undefined, [], 2 * MIB);
  put(disk, 0, filled(1, MIB));
  mustCowfs(['snapshot', disk, 's']);
  put(disk, 0, filled(2, 1000));
  exported(disk, join(directory, 'x'), 'raw');
  mustCowfs(['fork', disk, at('f.raw')]);
  exported(at('f.raw'), join(directory, 'f'), 'raw');
  put(disk, 0, filled(3, 1000));
  expectSame(exported(at('f.raw'), join(directory, 'f'), 'raw', ['--force']), at('f.raw'));
  mustCowfs(['rollback', disk, 's']);
  const back = readFileSync(exported(disk, join(directory, 'x'), 'raw', ['--force']));
  expect(back.equals(Buffer.concat([filled(1, MIB), original.subarray(MIB)]))).toBe(true);
  mustCowfs(['snapshot', '--delete', disk, 's']);
  mustCowfs(['reset', disk]);
  expectSame(exported(disk, join(directory, 'x'), 'raw', ['--force']), join(directory, 'base.img'));
  make(at('g.raw'));
  expect(statusOf(mountpoint).disks.length).toBe(3);
});
