/** How data is moved: what `--aio` and the machine allow, and that one gets what `status` says. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, type TestContext, test } from 'vitest';
import { Ring } from '../../src/sys/io-uring.ts';
import {
  COWFS,
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  mustCowfs,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

/** Runs a command where io_uring_setup(2) is refused. */
const WITHOUT = join(import.meta.dirname, 'without-io-uring.mjs');

function needsRing(context: TestContext): void {
  const errno = Ring.probe(128);
  skipUnless(context, errno === 0, `io_uring is refused here: errno ${errno}`);
}

test.for([
  { options: [], aio: 'io_uring' },
  { options: ['--aio', 'auto'], aio: 'io_uring' },
  { options: ['--aio', 'io_uring', '--threads', '2'], aio: 'io_uring' },
  { options: ['--aio', 'threads'], aio: 'threads' },
  // What has to wait needs a thread beside the one with the ring.
  { options: ['--threads', '1'], aio: 'threads' },
  { options: ['--trace', '--log-file', '/dev/null'], aio: 'threads' },
])('$options: $aio', ({ options, aio }, context) => {
  if (aio === 'io_uring') needsRing(context);
  const directory = scratch();
  const base = makeBase(directory, 3_000_000);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
  expect(statusOf(mountpoint).aio).toBe(aio);
  expect(mustCowfs(['status', mountpoint])).toContain(`aio ${aio}`);
  const content = readFileSync(base);
  expect(Buffer.compare(readFileSync(disk), content)).toBe(0);
  content.fill('x', 1_000_000, 2_500_000);
  writeFileSync(disk, content, { flag: 'r+' });
  expect(Buffer.compare(readFileSync(disk), content)).toBe(0);
});

test('a machine that refuses io_uring is served by threads', () => {
  const directory = scratch();
  const base = makeBase(directory, 100_000);
  const mountpoint = makeMountpoint(directory);
  const mounted = run(process.execPath, [WITHOUT, COWFS, 'mount', base, mountpoint]);
  expect(mounted).toEqual({ status: 0, stdout: `${mountpoint}/disk.raw\n`, stderr: '' });
  expect(statusOf(mountpoint).aio).toBe('threads');
  expect(Buffer.compare(readFileSync(join(mountpoint, 'disk.raw')), readFileSync(base))).toBe(0);
  mustCowfs(['unmount', mountpoint]);
});

test('--aio io_uring is refused there, with the reason, and nothing is left', async () => {
  const directory = scratch();
  const base = makeBase(directory, 100_000);
  const mountpoint = makeMountpoint(directory);
  const command = [WITHOUT, COWFS, 'mount', '--aio', 'io_uring', base, mountpoint];
  expectRefusal(run(process.execPath, command), 4, '--aio io_uring', 'EPERM', 'seccomp', 'leave --aio out');
  expect(mountsBelow(directory)).toEqual([]);
  await expectNothingLeft(directory);
});

test.each([['--trace'], ['--threads', '1']])('--aio io_uring beside %s %s is refused', (...options) => {
  const directory = scratch();
  const base = makeBase(directory, 100_000);
  const result = cowfs(['mount', '--aio', 'io_uring', ...options, base, makeMountpoint(directory)]);
  expectRefusal(result, 2, '--aio io_uring', options[0] as string);
  expect(mountsBelow(directory)).toEqual([]);
});
