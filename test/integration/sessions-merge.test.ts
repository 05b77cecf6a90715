/** Layers that have become superfluous are merged in the background; what happens to their disks meanwhile counts. */
import { truncateSync, unlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { askDaemon } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import { start } from '../harness.ts';
import {
  BLOCK,
  expectContent,
  filled,
  make,
  mountSessions,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  untilOnly,
  untilStores,
} from './sessions-support.ts';

const PAIRS = 24;
const ROUNDS = 10;

/** Removes what forks were made of and, at once or a little later, every other fork. */
const REMOVER = `
import os, random, sys, time
os.chdir(sys.argv[1])
for number in range(int(sys.argv[2])):
    os.unlink(f'a{number}.raw')
    if number % 2 == 0:
        time.sleep(random.choice([0, 0.0003, 0.001, 0.003]))
        os.unlink(f'b{number}.raw')
`;

test.for(TRANSPORT_MODES)(
  '$name: disks that are removed, written and shrunk while their layers are merged',
  async (mode, context) => {
    const { mountpoint, at, original, pid } = mountSessions(mode, context, ['--empty']);
    const socket = findEntry(mountpoint)?.socket ?? '';
    const numbers = Array.from({ length: PAIRS }, (_, index) => index);
    for (let round = 0; round < ROUNDS; round++) {
      for (const number of numbers) {
        const [first, second] = [`a${number}.raw`, `b${number}.raw`];
        make(at(first));
        put(at(first), 5000, filled(number, 20_000));
        await askDaemon(socket, { command: 'fork', disk: first, to: second });
        truncateSync(at(second), 8000);
        put(at(second), 290_000, filled(round, 30_000));
      }
      // With its first one gone, what a fork stands on is its own, and is merged at the daemon's next look at it.
      const remover = start('python3', ['-c', REMOVER, mountpoint, String(PAIRS)]);
      while (remover.exitCode === null) await statusNow(mountpoint);
      for (const number of numbers.filter((each) => each % 2 === 1)) {
        const path = at(`b${number}.raw`);
        const grown = patched(Buffer.alloc(320_000), [0, original.subarray(0, 8000)], [290_000, filled(round, 30_000)]);
        const expected = patched(grown, [5000, filled(number, 20_000).subarray(0, 3000)]);
        expectContent(path, expected);
        put(path, 100_000, filled(7, BLOCK));
        expectContent(path, patched(expected, [100_000, filled(7, BLOCK)]));
        unlinkSync(path);
      }
      await untilOnly(mountpoint, [], 0);
      await untilStores(pid, 0);
    }
    expect((await statusNow(mountpoint)).warnings).toEqual([]);
  },
);
