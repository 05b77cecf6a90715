/** What programs have written becomes durable by itself within seconds, and only then is the file written to. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { cowfs } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { generationOf, keptDisk, killed, MIB, remounted, unmounted, untilSynced } from './overlay-support.ts';
import { expectContent, filled, patched, TRANSPORT_MODES } from './sessions-support.ts';

const BASE_BYTES = 4 * MIB;

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
