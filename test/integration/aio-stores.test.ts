/**
 * A ring does otherwise on each file system: it reads and writes at once, by itself or through the kernel, or later. So
 * cases of the conformance suite with a base and a store on each.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Ring } from '../../src/sys/io-uring.ts';
import { makeMountpoint, mountDisk, must, PROJECT, run, scratch, sha256, statusOf } from '../harness.ts';
import { formatted, needsRoot, skipUnless, tmpfs } from './machine-support.ts';

const SUITE = join(PROJECT, 'test/conformance/main.mjs');

const CASES = [
  ['odd', 'random operations with fallocate'],
  ['even', 'four readers beside four writers'],
  ['even', 'four writers that meet in every block lose nothing of each other'],
] as const;

test.for([
  { type: 'xfs', kept: false },
  { type: 'xfs', kept: true },
  { type: 'btrfs', kept: false },
  { type: 'tmpfs', kept: false },
  { type: 'tmpfs', kept: true },
] as const)('base and store on $type, kept: $kept', { timeout: 300_000 }, async ({ type, kept }, context) => {
  needsRoot(context);
  const errno = Ring.probe(128);
  skipUnless(context, errno === 0, `io_uring is refused here: errno ${errno}`);
  const directory = scratch();
  const place = type === 'tmpfs' ? tmpfs(directory, '400M') : formatted(directory, type, context);
  for (const [index, [name, what]] of CASES.entries()) {
    const base = join(place, `base-${index}`);
    must(process.execPath, [SUITE, 'base', name, base]);
    const before = await sha256(base);
    const overlay = kept ? ['--overlay', join(place, `${index}.cow`)] : [];
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory, `mnt-${index}`), [
      '--store',
      place,
      ...overlay,
    ]);
    const { status, stderr } = run(process.execPath, [SUITE, 'run', what, disk]);
    expect(status, `${what}: ${stderr}`).toBe(0);
    const { aio, io } = statusOf(mountpoint);
    expect(aio).toBe('io_uring');
    expect(io.ioErrors).toBe(0);
    expect(await sha256(base)).toBe(before);
  }
});
