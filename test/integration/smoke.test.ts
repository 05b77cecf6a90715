import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { listMounts, makeBase, makeMountpoint, mountDisk, mustCowfs, scratch, sha256 } from '../harness.ts';

test('a base is shown, written to through the mount, and unchanged afterwards', async () => {
  const directory = scratch();
  const base = makeBase(directory, 1_000_000);
  const before = await sha256(base);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  const fd = openSync(disk, 'r+');
  writeSync(fd, Buffer.from('changed'), 0, 7, 5000);
  closeSync(fd);
  expect(readFileSync(disk).subarray(5000, 5007).toString()).toBe('changed');
  mustCowfs(['unmount', mountpoint]);
  expect(await sha256(base)).toBe(before);
  expect(listMounts().filter((mount) => mount.mountpoint === mountpoint)).toEqual([]);
});
