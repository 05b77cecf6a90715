/**
 * A base that takes its time. The slow reads stand at a gate that the test opens, so that what is shown is an order: who
 * ends while they stand there. Whatever may hang is a process of its own.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { COWFS, cowfs, exitOf, mountsBelow, poll, start, statusOf } from '../harness.ts';
import { needsRoot, skipUnless } from '../integration/machine-support.ts';
import { expectNothingLeft, isAlive } from '../integration/nothing-left-support.ts';
import { BLOCK, expectContent, expectSame, patched } from './access.ts';
import { faultyBase, mountOver } from './faulty-base.ts';
import { MODE_NAME, MODES, needsMode } from './modes.ts';

const SIZE = 4 * 1024 * 1024 + 1;
const GATED = 512 * BLOCK;
const gate = { from: GATED, to: SIZE };
/** The package's own timer, which is off (its index.js, DEFAULT_TIMEOUT): past it a request would be ETIMEDOUT. */
const FUSE_NATIVE_TIMEOUT_MS = 15_000;
/** None of what is not held up takes a second. */
const UNHINDERED_MS = 30_000;

/** Starts a program that reads a block of the disk into a file. */
function startReading(disk: string, offset: number, into: string, flags = 0): ChildProcess {
  return startProgram(disk, flags, `fs.readSync(fd, data, 0, ${BLOCK}, ${offset}); fs.writeFileSync('${into}', data);`);
}

/** Starts a program that writes bytes to the disk. */
function startWriting(disk: string, data: Buffer, offset: number, flags = 0): ChildProcess {
  const bytes = `Buffer.from('${data.toString('base64')}', 'base64')`;
  return startProgram(disk, flags, `fs.writeSync(fd, ${bytes}, 0, ${data.length}, ${offset});`);
}

function startProgram(disk: string, flags: number, body: string): ChildProcess {
  const program = `
    const fs = require('node:fs');
    const fd = fs.openSync('${disk}', ${constants.O_RDWR | flags});
    const data = Buffer.alloc(${BLOCK});
    ${body}`;
  return start(process.execPath, ['-e', program], { stdio: 'ignore' });
}

/** Waits until a program has ended well, as it does unless it is held up. */
async function unhindered(child: ChildProcess): Promise<void> {
  await poll('it is not held up', () => (child.exitCode ?? child.signalCode) !== null, UNHINDERED_MS);
  expect(child.signalCode ?? child.exitCode).toBe(0);
}

function expectPending(children: readonly ChildProcess[]): void {
  for (const { exitCode, signalCode } of children) expect(exitCode ?? signalCode).toBeNull();
}

describe.each(MODES.filter(({ transport }) => transport === 'kernel'))(MODE_NAME, (mode) => {
  const { options } = mode;

  beforeEach((context) => needsMode(context, mode));

  test('slow reads on all threads but one hold up neither reads, nor writes, nor `status`', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, [...options, '--threads', '4']);
    const file = (name: string | number): string => join(base.directory, `read-${name}`);
    base.setPlan({ gate });
    const offsets = [GATED, GATED + 100 * BLOCK, GATED + 200 * BLOCK];
    const slow = offsets.map((at) => startReading(disk, at, file(at)));
    await base.untilGated(slow.length);

    for (const at of [0, 100 * BLOCK, 511 * BLOCK]) {
      await unhindered(startReading(disk, at, file(at)));
      expectSame(readFileSync(file(at)), base.original, at, BLOCK);
    }
    const data = randomBytes(3 * BLOCK);
    await unhindered(startWriting(disk, data, 50 * BLOCK + 100));
    await unhindered(startWriting(disk, data, GATED + 50 * BLOCK));
    expect(statusOf(mountpoint).disks[0]?.openHandles).toBeGreaterThanOrEqual(slow.length);
    expectPending(slow);

    base.setPlan({});
    expect(await Promise.all(slow.map(exitOf))).toEqual([0, 0, 0]);
    for (const at of offsets) expectSame(readFileSync(file(at)), base.original, at, BLOCK);
    expectContent(disk, patched(patched(base.original, 50 * BLOCK + 100, data), GATED + 50 * BLOCK, data));
  });

  test('a copy-up that waits for the base holds up its own block alone, and loses nothing of it', async () => {
    // Past the page cache: through it the kernel lets one writer of a file in at a time, and opens no file for it while
    // there are writers past it (fs/fuse/iomode.c).
    const flags = constants.O_DIRECT;
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, [...options, '--threads', '4']);
    const file = join(base.directory, 'read');
    base.setPlan({ gate });
    const [first, second, third] = [randomBytes(512), randomBytes(512), randomBytes(512)];
    const slow = [startWriting(disk, first, GATED + 512, flags)];
    await base.untilGated(1);
    slow.push(startWriting(disk, second, GATED + 2048, flags));
    for (const at of [0, 511 * BLOCK]) {
      await unhindered(startReading(disk, at, file, flags));
      expectSame(readFileSync(file), base.original, at, BLOCK);
    }
    await unhindered(startWriting(disk, third, 100 * BLOCK + 512, flags));
    expectPending(slow);

    base.setPlan({});
    expect(await Promise.all(slow.map(exitOf))).toEqual([0, 0]);
    const both = patched(patched(base.original, GATED + 512, first), GATED + 2048, second);
    expectContent(disk, patched(both, 100 * BLOCK + 512, third));
  });
});

describe.each(MODES.filter(({ transport }) => transport === 'fuse-native'))(MODE_NAME, (mode) => {
  const { cache, options } = mode;

  beforeEach((context) => needsMode(context, mode));

  test('slow and fast ones wait for each other on its one thread, and all come out right', async () => {
    const base = await faultyBase(SIZE);
    const { disk } = mountOver(base, options);
    const file = (name: string): string => join(base.directory, `read-${name}`);
    base.setPlan({ gate });
    const data = randomBytes(512);
    const slow = startReading(disk, GATED, file('slow'));
    await base.untilGated(1);
    const startMs = performance.now();
    const fast = [startReading(disk, 3 * BLOCK, file('fast')), startWriting(disk, data, 100 * BLOCK + 512)];
    // Once is enough: the timer does not know of caches.
    const waitMs = cache === 'none' ? FUSE_NATIVE_TIMEOUT_MS + 1000 : 0;
    await poll('its timer would have gone off', () => performance.now() - startMs >= waitMs, 60_000);
    expectPending([slow]);

    base.setPlan({});
    expect(await Promise.all([slow, ...fast].map(exitOf))).toEqual([0, 0, 0]);
    expectSame(readFileSync(file('slow')), base.original, GATED, BLOCK);
    expectSame(readFileSync(file('fast')), base.original, 3 * BLOCK, BLOCK);
    expectContent(disk, patched(base.original, 100 * BLOCK + 512, data));
  });
});

describe.each(MODES)(MODE_NAME, (mode) => {
  beforeEach((context) => needsMode(context, mode));

  test('`unmount --force` takes the mount away at once, and all else ends when the base answers', async () => {
    const base = await faultyBase(SIZE);
    const { disk, mountpoint } = mountOver(base, mode.options);
    const file = join(base.directory, 'read');
    base.setPlan({ gate });
    const slow = startReading(disk, GATED, file);
    await base.untilGated(1);
    const unmount = start(COWFS, ['unmount', '--force', mountpoint]);
    await poll('the mount is gone', () => mountsBelow(mountpoint).length === 0, UNHINDERED_MS);

    base.setPlan({});
    expect(await exitOf(unmount)).toBe(0);
    await expectNothingLeft(mountpoint);
    // An unmount with open files: what the daemon still answers on its way out is right, and the rest are errors.
    const status = await exitOf(slow);
    expect(status).toBeOneOf([0, 1]);
    if (status === 0) expectSame(readFileSync(file), base.original, GATED, BLOCK);
  });
});

test('`unmount --force` says so when the daemon cannot end before the base answers', {
  timeout: 120_000,
}, async (context) => {
  needsRoot(context);
  const base = await faultyBase(SIZE);
  const { disk, mountpoint } = mountOver(base, ['--aio', 'threads']);
  const { pid } = statusOf(mountpoint);
  base.setPlan({ gate });
  const slow = startReading(disk, GATED, '/dev/null');
  await base.untilGated(1);
  const { status, stderr } = cowfs(['unmount', '--force', mountpoint]);
  expect(status).toBe(1);
  expect(stderr).toBe(
    `cowfs: unmounted, but the daemon (pid ${pid}) waits for its base or store, and ends when that answers\n`,
  );
  expect(mountsBelow(mountpoint)).toEqual([]);

  base.setPlan({});
  await expectNothingLeft(mountpoint);
  expect(await exitOf(slow)).toBe(1);
});

test('with a ring more threads start while those that there are wait for the base', { timeout: 120_000 }, async () => {
  const base = await faultyBase(SIZE);
  const { disk, mountpoint } = mountOver(base, ['--cache', 'none', '--threads', '4']);
  // A disk has a store, and something to read, from its first write on.
  await unhindered(startWriting(disk, randomBytes(BLOCK), 0));
  base.setPlan({ gate });
  // Parts of two blocks each: nothing that the ring does by itself.
  const slow = [0, 40].map((block) => startWriting(disk, randomBytes(BLOCK), GATED + block * BLOCK + 100));
  await base.untilGated(2);
  await unhindered(start(process.execPath, ['-e', `fs.mkdirSync('${mountpoint}/meanwhile')`], { stdio: 'ignore' }));
  expectPending(slow);
  base.setPlan({});
  for (const child of slow) await unhindered(child);
});

test('a ring lets go of a base that does not answer: `unmount --force` ends the daemon', {
  timeout: 120_000,
}, async (context) => {
  needsRoot(context);
  const base = await faultyBase(SIZE);
  const { disk, mountpoint } = mountOver(base, []);
  const { pid, aio } = statusOf(mountpoint);
  skipUnless(context, aio === 'io_uring', 'io_uring is refused here');
  base.setPlan({ gate });
  const slow = startReading(disk, GATED, '/dev/null');
  await base.untilGated(1);
  expect(cowfs(['unmount', '--force', mountpoint])).toMatchObject({ status: 0, stderr: '' });
  expect(mountsBelow(mountpoint)).toEqual([]);
  // Dead, whether or not its parent has asked how it ended.
  expect(isAlive(pid)).toBe(false);
  base.setPlan({});
  await expectNothingLeft(mountpoint);
  expect(await exitOf(slow)).toBe(1);
});
