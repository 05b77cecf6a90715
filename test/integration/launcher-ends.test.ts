/** A mount in the background whose command comes to nothing: nothing of it stays. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import { COWFS, cowfs, exitOf, makeBase, makeMountpoint, mustCowfs, poll, scratch, start } from '../harness.ts';
import { expectNothingLeft, leftAt } from './nothing-left-support.ts';
import { MIB, randomOf, SEED } from './overlay-support.ts';

console.log(`launcher-ends: COWFS_SEED=${SEED}`);

const ROUNDS = 40;

/** Whether there is a disk that can be read. */
function isServed(mountpoint: string): boolean {
  try {
    return readFileSync(join(mountpoint, 'disk.raw')).length === MIB;
  } catch {
    return false;
  }
}

test('what is refused leaves no process, not for a moment', () => {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  for (const args of [
    [join(directory, 'missing.img'), mountpoint],
    [makeBase(directory, MIB), mountpoint, '--no-such-option'],
    [join(directory, 'base.img'), mountpoint, '--threads', '0'],
    [join(directory, 'base.img'), join(directory, 'nowhere')],
    [join(directory, 'base.img'), mountpoint, '--size', '1'],
  ]) {
    expect(cowfs(['mount', ...args]).status, args.join(' ')).toBe(2);
    expect(leftAt(mountpoint), args.join(' ')).toEqual([]);
  }
});

test(`a mount whose command is killed is there as a whole, or nothing is left: ${ROUNDS} times`, async () => {
  const random = randomOf(SEED);
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const mountpoint = makeMountpoint(directory);
  const startMs = performance.now();
  mustCowfs(['mount', base, mountpoint]);
  const wholeMs = performance.now() - startMs;
  mustCowfs(['unmount', mountpoint]);
  let mounted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const child = start(COWFS, ['mount', base, mountpoint], { stdio: 'ignore' });
    await new Promise((wake) => setTimeout(wake, (random(1000) / 1000) * 1.3 * wholeMs));
    child.kill('SIGKILL');
    await exitOf(child);
    // One that was killed when all was done has nobody told of it.
    await poll('whole, or nothing', () => leftAt(mountpoint).length === 0 || findEntry(mountpoint) !== undefined);
    // Its daemon may just be ending.
    if (isServed(mountpoint) && cowfs(['unmount', mountpoint]).status === 0) mounted += 1;
    await expectNothingLeft(mountpoint);
  }
  console.log(`${ROUNDS} mounts killed (seed ${SEED}): ${mounted} were there before, of the others nothing was left`);
});
