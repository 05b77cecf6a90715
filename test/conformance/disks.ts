/**
 * Fresh disks for the cases of the suite, all of a base in one mount: making a file there costs next to nothing, and is
 * the way to many disks anyway.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, onTestFinished } from 'vitest';
import { makeMountpoint, mountsBelow, mustCowfs } from '../harness.ts';

/**
 * Called while tests are collected.
 *
 * @param options of `cowfs mount`
 * @param place a directory for their stores, when they are made
 * @returns makes a disk over a base; it goes when the test ends, and the mounts with the last test
 */
export function suiteDisks(options: readonly string[], place: () => string): (base: string) => string {
  const mounts = new Map<string, string>();
  let directory: string | undefined;
  let made = 0;
  afterAll(() => {
    for (const mountpoint of mounts.values()) {
      if (mountsBelow(mountpoint).length > 0) mustCowfs(['unmount', '--force', mountpoint]);
    }
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });
  return (base) => {
    directory ??= mkdtempSync(join(place(), 'cowfs-test-'));
    let mountpoint = mounts.get(base);
    if (mountpoint === undefined) {
      mountpoint = makeMountpoint(directory, `mnt-${mounts.size}`);
      mustCowfs(['mount', base, mountpoint, '--empty', '--store', directory, ...options]);
      mounts.set(base, mountpoint);
    }
    const disk = join(mountpoint, `${made++}.raw`);
    // As touch(1): it begins as the base.
    closeSync(openSync(disk, 'a', 0o600));
    onTestFinished(() => rmSync(disk, { force: true }));
    return disk;
  };
}
