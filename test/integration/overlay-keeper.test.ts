/** What programs have written becomes durable by itself within seconds, and only then is the file written to. */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { usersBelow } from '../../src/sys/processes.ts';
import { cowfs, makeBase, makeMountpoint, poll, scratch } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { needsRoot, said, tmpfs } from './machine-support.ts';
import { checkOf, generationOf, keptDisk, killed, MIB, remounted, unmounted, untilSynced } from './overlay-support.ts';
import { expectContent, filled, KERNEL_MODES, patched, TRANSPORT_MODES } from './sessions-support.ts';
import { pattern, STAY, startWriter, untilHeld } from './store-full-support.ts';

const BASE_BYTES = 4 * MIB;
/** Of the keeper. */
const INTERVAL_MS = 5000;

test.for(TRANSPORT_MODES)(
  '$name: what reached the daemon is durable within seconds, without fsync',
  async (mode, context) => {
    if (mode.transport === 'fuse-native') needsFuseNative(context);
    const kept = keptDisk(['--transport', mode.transport], BASE_BYTES);
    const before = generationOf(kept.overlay);
    const fd = openSync(kept.disk, 'r+');
    writeSync(fd, filled(1, MIB), 0, MIB, 5000);
    closeSync(fd);
    const tookMs = await untilSynced(kept.overlay, before);
    await killed(kept);
    expect(cowfs(['check', kept.overlay]).status).toBe(0);
    const again = remounted(kept);
    expectContent(again.disk, patched(kept.original, [5000, filled(1, MIB)]));
    await unmounted(again);
    console.log(`${mode.name}: durable by itself after ${(tookMs / 1000).toFixed(1)} s`);
    expect(tookMs).toBeLessThan(10_000);
  },
);

test.for(KERNEL_MODES)(
  '$name: so is what a program has written that keeps the disk open and never syncs',
  async ({ cache }) => {
    const kept = keptDisk(['--cache', cache], BASE_BYTES);
    const before = generationOf(kept.overlay);
    // One request, so that no sync sees a part.
    const written = pattern(1, 64 * 1024);
    await said(startWriter(kept.disk, MIB, written.length, 1, STAY), 'written');
    const tookMs = await untilSynced(kept.overlay, before);
    await killed(kept);
    const again = remounted(kept);
    expectContent(again.disk, patched(kept.original, [MIB, written]));
    await unmounted(again);
    console.log(`${cache}: durable by itself after ${(tookMs / 1000).toFixed(1)} s`);
  },
);

test('a full store: what waits for room holds up neither writers nor the end, and is asked for once', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const place = tmpfs(directory, '4M');
  const base = makeBase(directory, 16 * MIB);
  const mountpoint = makeMountpoint(directory);
  const original = readFileSync(base);
  const kept = remounted({ directory, base, original, mountpoint, overlay: join(place, 'vm.cow') }, [
    '--enospc-timeout',
    '100s',
  ]);
  await said(startWriter(kept.disk, 0, 8 * MIB, 1, STAY), 'written');
  await untilHeld(mountpoint);
  const heldMs = performance.now();
  let most = 0;
  await poll(
    'two intervals go by',
    () => {
      most = Math.max(most, usersBelow(mountpoint).filter(({ command }) => command === 'sync').length);
      return performance.now() - heldMs > 2.5 * INTERVAL_MS;
    },
    3 * INTERVAL_MS,
  );
  expect(most).toBeLessThanOrEqual(1);
  const beganMs = performance.now();
  await said(startWriter(kept.disk, 12 * MIB, 5, 2, STAY), 'written');
  expect(performance.now() - beganMs).toBeLessThan(10_000);
  await killed(kept);
  expect(checkOf(kept.overlay).code).toBe(0);
});

test('a kept disk that nobody writes to is not synced again and again', async () => {
  const kept = keptDisk([], BASE_BYTES);
  const fd = openSync(kept.disk, 'r+');
  writeSync(fd, filled(1, 5000), 0, 5000, 0);
  closeSync(fd);
  const before = generationOf(kept.overlay);
  await untilSynced(kept.overlay, before);
  const after = generationOf(kept.overlay);
  // Another mount's writes show that more than one interval has gone by.
  const other = keptDisk([], BASE_BYTES);
  for (let round = 0; round < 2; round++) {
    const since = generationOf(other.overlay);
    const otherFd = openSync(other.disk, 'r+');
    writeSync(otherFd, filled(round, 5000), 0, 5000, round * 100_000);
    closeSync(otherFd);
    await untilSynced(other.overlay, since);
  }
  expect(generationOf(kept.overlay)).toBe(after);
});
