/**
 * kill -9 at random moments under write load, many times over: each time the mountpoint is free within 2 s, the store
 * (a file system of its own, so that space is exact) has all its space back, the base is as it was and no list or
 * process knows of the mount.
 */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import { exitOf, listMounts, makeBase, makeMountpoint, mustCowfs, poll, scratch, sha256, start } from '../harness.ts';
import { freeBytes, needsRoot, tmpfs } from './machine-support.ts';
import { expectNothingLeft, FREE_WITHIN_MS } from './nothing-left-support.ts';

const ROUNDS = 50;
const MAX_DELAY_MS = 150;
const MIB = 1024 * 1024;

/**
 * Writers without an end: through the cache, past it, synchronous, in odd pieces, with trims and cuts in between. None
 * makes a file where the disk was.
 */
const LOADS: readonly string[] = [
  'while :; do dd if=/dev/zero of=$0 bs=64k count=128 conv=notrunc,nocreat status=none || exit; done',
  'while :; do dd if=/dev/zero of=$0 bs=1M count=8 oflag=direct conv=notrunc,nocreat status=none || exit; done',
  'while :; do dd if=/dev/zero of=$0 bs=4k count=500 oflag=sync conv=notrunc,nocreat status=none || exit; done',
  'while :; do dd if=/dev/zero of=$0 bs=1000 count=3000 conv=notrunc,nocreat,fsync status=none || exit; done',
  'while :; do dd if=/dev/zero of=$0 bs=1M count=8 conv=notrunc,nocreat status=none && fallocate -p -l 8M $0 || exit; done',
  'while :; do truncate -c -s 3000000 $0 && truncate -c -s 8M $0 && stat $0 >/dev/null && cat $0 >/dev/null || exit; done',
];

test(`${ROUNDS} times kill -9 at a random moment under write load`, async (context) => {
  needsRoot(context);
  const directory = scratch();
  const store = tmpfs(directory, '64M');
  const mountpoint = makeMountpoint(directory);
  const base = makeBase(directory, 8 * MIB);
  const [before, space, { mtimeMs, ctimeMs }] = [await sha256(base), freeBytes(store), statSync(base)];
  const times: number[] = [];
  let wroteBytes = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const disk = mustCowfs(['mount', base, mountpoint, '--store', store]).trim();
    const pid = findEntry(mountpoint)?.pid ?? 0;
    const writers = [round, round + 1].map((which) => startLoad(disk, which));
    const delayMs = Math.random() * MAX_DELAY_MS;
    await new Promise((wake) => setTimeout(wake, delayMs));
    wroteBytes += space - freeBytes(store);
    process.kill(pid, 'SIGKILL');
    const what = `round ${round}, killed after ${delayMs.toFixed(0)} ms`;
    const killedMs = performance.now();
    await expectNothingLeft(mountpoint);
    await poll(`${what}: space is back`, () => freeBytes(store) === space, FREE_WITHIN_MS);
    times.push(performance.now() - killedMs);
    expect(readdirSync(mountpoint), what).toEqual([]);
    await Promise.all(writers.map(stop));
    expect(await sha256(base), what).toBe(before);
    if (round % 10 === 9) expect(listMounts().filter((mount) => mount.mountpoint === mountpoint)).toEqual([]);
  }
  const now = statSync(base);
  expect([now.mtimeMs, now.ctimeMs]).toEqual([mtimeMs, ctimeMs]);
  times.sort((a, b) => a - b);
  console.log(
    `kill -9 under load: ${ROUNDS} rounds, ${(wroteBytes / MIB).toFixed(0)} MiB in stores when killed; free after ` +
      `${times[ROUNDS >> 1]?.toFixed(0)} ms (median), ${times.at(-1)?.toFixed(0)} ms (slowest)`,
  );
  expect(wroteBytes).toBeGreaterThan(ROUNDS * 64 * 1024);
  expect(times.at(-1)).toBeLessThan(FREE_WITHIN_MS);
});

/** In a process group of its own, so that its children can be stopped with it. */
function startLoad(disk: string, which: number): ChildProcess {
  return start('sh', ['-c', LOADS[which % LOADS.length] ?? '', disk], { detached: true, stdio: 'ignore' });
}

async function stop(writer: ChildProcess): Promise<void> {
  const ended = exitOf(writer);
  if (writer.exitCode === null && writer.pid !== undefined) {
    try {
      process.kill(-writer.pid, 'SIGKILL');
    } catch {
      // It has just ended by itself, by the errors that it got.
    }
  }
  await ended;
}
