/** A block device as base: byte for byte, odd sizes included, and never written to. */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, sha256, statusOf } from '../harness.ts';
import { loopDevice, needs, needsRoot } from './machine-support.ts';

/** Loop devices end with the last whole sector. */
const SECTOR = 512;

test.for([
  { bytes: 1024 * 1024, options: [] },
  { bytes: 4097 * SECTOR, options: [] },
  { bytes: 1_000_003, options: ['--read-only'] },
])(
  'a device over $bytes bytes ($options) is shown byte for byte and stays as it is',
  async ({ bytes, options }, context) => {
    needsRoot(context);
    needs(context, 'losetup');
    const directory = scratch();
    const image = makeBase(directory, bytes);
    const before = await sha256(image);
    const device = loopDevice(image, ...options);
    const size = Math.floor(bytes / SECTOR) * SECTOR;
    const { mountpoint, disk } = mountDisk(device, makeMountpoint(directory));
    expect(statSync(disk).size).toBe(size);
    expect(readFileSync(disk).equals(readFileSync(image).subarray(0, size))).toBe(true);
    expect(statusOf(mountpoint)).toMatchObject({ base: device, baseSize: size, baseChanged: null });
    const fd = openSync(disk, 'r+');
    writeSync(fd, Buffer.from('odd'), 0, 3, size - 3);
    writeSync(fd, Buffer.alloc(5000, 1), 0, 5000, 1234);
    closeSync(fd);
    const expected = readFileSync(image).subarray(0, size);
    expected.write('odd', size - 3);
    expected.fill(1, 1234, 6234);
    expect(readFileSync(disk).equals(expected)).toBe(true);
    mustCowfs(['unmount', mountpoint]);
    expect(await sha256(image)).toBe(before);
  },
);

test('a partition of a device, by a link to it, is a base of its own', (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const directory = scratch();
  const image = makeBase(directory, 3 * 1024 * 1024);
  const device = loopDevice(image, '--offset', String(1024 * 1024), '--sizelimit', String(1024 * 1024));
  must('ln', ['-s', device, `${directory}/by-link`]);
  const { disk } = mountDisk(`${directory}/by-link`, makeMountpoint(directory));
  expect(readFileSync(disk).equals(readFileSync(image).subarray(1024 * 1024, 2 * 1024 * 1024))).toBe(true);
});

test('--size makes the disk of a device larger', (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const directory = scratch();
  const image = makeBase(directory, 9 * SECTOR);
  const { disk } = mountDisk(loopDevice(image), makeMountpoint(directory), ['--size', '64K']);
  const expected = Buffer.alloc(64 * 1024);
  readFileSync(image).copy(expected);
  expect(readFileSync(disk).equals(expected)).toBe(true);
});
