/** Layers that a command stacks up outside of any mount: what they show is what the mount's did. */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { OK } from '../../../src/lib/errno.ts';
import type { BlockState } from '../../../src/overlay/block.ts';
import { LayerStack } from '../../../src/overlay/export/stack.ts';
import type { Layer } from '../../../src/overlay/layer.ts';
import { BASE_LAYER } from '../../../src/overlay/layers.ts';
import type { Sessions } from '../../../src/overlay/sessions.ts';
import { scratch } from '../../harness.ts';
import { difference, openDisk, readDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';

const BLOCK = 4096;

/** As `cli/source.ts` does it with what a daemon lends. */
function copied(sessions: Sessions, top: number, base: { fd: number; sizeBytes: number }): Layer {
  const stack = new LayerStack({ ...base, hasHoles: true });
  const chain: number[] = [];
  for (let at = top; at !== BASE_LAYER; at = sessions.layers.backing(at)) chain.unshift(at);
  for (const at of chain) {
    const { sizeBytes, backingLimit } = sessions.layers.extent(at).both();
    const { map, store } = sessions.layers.open(at);
    const layer = stack.push({
      sizeBytes,
      backingLimit,
      fd: store.fd < 0 ? undefined : store.fd,
      origin: store.origin,
    });
    for (let block = 0; block < map.blocks; ) {
      const run = map.runAt(block, map.blocks - block);
      layer.map.set(block, run, map.runState as BlockState);
      block += run;
    }
  }
  return stack.top;
}

const step = fc.oneof(
  fc.record({
    kind: fc.constant('write' as const),
    offset: fc.nat({ max: 30 * BLOCK }),
    length: fc.integer({ min: 1, max: 4 * BLOCK }),
    seed: fc.nat({ max: 1000 }),
  }),
  fc.record({
    kind: fc.constant('discard' as const),
    offset: fc.nat({ max: 30 * BLOCK }),
    length: fc.nat({ max: 9 * BLOCK }),
  }),
  fc.record({ kind: fc.constant('truncate' as const), size: fc.nat({ max: 35 * BLOCK }) }),
  fc.record({
    kind: fc.constant('allocate' as const),
    offset: fc.nat({ max: 30 * BLOCK }),
    length: fc.integer({ min: 1, max: 5 * BLOCK }),
  }),
  fc.record({ kind: fc.constant('freeze' as const) }),
);

test('random stacks show the same, byte by byte, hole by hole, difference by difference', { timeout: 120_000 }, () => {
  const directory = scratch();
  const content = nonZeroBytes(20 * BLOCK + 5, 1);
  content.fill(0, 7 * BLOCK, 9 * BLOCK);
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 20, size: 'max' }), (steps) => {
      const fixture = openDisk({ directory, content, holes: [7, 8] });
      const { sessions, session, baseFd } = fixture;
      try {
        for (const each of steps) {
          const disk = sessions.open(session);
          if (each.kind === 'freeze') sessions.freeze(session);
          else if (each.kind === 'truncate') disk.truncate(each.size);
          else if (each.kind === 'discard') disk.discard(each.offset, each.length);
          else if (each.kind === 'allocate') disk.allocate(each.offset, each.length, true);
          else disk.write(each.offset, each.length, nonZeroBytes(each.length, each.seed), 0);
        }
        const disk = sessions.open(session);
        const copy = copied(sessions, sessions.top(session), { fd: baseFd, sizeBytes: content.length });
        expect(copy.sizeBytes).toBe(disk.sizeBytes);
        const bytes = Buffer.alloc(copy.sizeBytes, 0xaa);
        expect(copy.read(0, bytes.length, bytes, 0)).toBe(OK);
        expect(difference(bytes, readDisk(disk))).toBe(undefined);
        const end = copy.sizeBytes;
        for (let at = 0; at < end; at += BLOCK) {
          expect([copy.nextData(at, end), copy.nextHole(at, end)]).toEqual([
            disk.layer.nextData(at, end),
            disk.layer.nextHole(at, end),
          ]);
          const limit = Math.ceil((end - at) / BLOCK);
          expect([copy.differenceAt(at / BLOCK, limit), copy.difference]).toEqual([
            disk.layer.differenceAt(at / BLOCK, limit),
            disk.layer.difference,
          ]);
        }
      } finally {
        fixture.close();
      }
    }),
    { numRuns: 80 },
  );
});

test('a stack of no layers is nothing; one that is cleared is the base again', () => {
  const directory = scratch();
  const content = nonZeroBytes(5 * BLOCK, 1);
  const fixture = openDisk({ directory, content });
  onTestFinished(() => fixture.close());
  const path = join(directory, 'store');
  const fd = openSync(path, 'w+');
  onTestFinished(() => closeSync(fd));
  const stack = new LayerStack({ fd: fixture.baseFd, sizeBytes: content.length, hasHoles: true });
  const layer = stack.push({ sizeBytes: 7 * BLOCK, backingLimit: 2 * BLOCK, fd, origin: 0 });
  layer.map.set(0, 1, 2);
  const bytes = Buffer.alloc(5 * BLOCK, 0xaa);
  expect(stack.top.read(0, bytes.length, bytes, 0)).toBe(OK);
  expect(bytes.subarray(2 * BLOCK).every((byte) => byte === 0)).toBe(true);
  stack.clear(5 * BLOCK);
  expect(stack.top.sizeBytes).toBe(5 * BLOCK);
  expect(stack.top.read(0, bytes.length, bytes, 0)).toBe(OK);
  expect(difference(bytes, content)).toBe(undefined);
});
