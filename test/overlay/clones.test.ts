/**
 * Disks that are clones of the base against plain buffers, on the file systems that share blocks: any sequence of writes,
 * holes, sizes, forks, snapshots and ways back, on two threads' views, gives the bytes of the model; and what `diff`,
 * `export` and `commit` ask for, the difference from the base, leaves out no block that differs.
 */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import { BASE, BLOCK_BYTES, STORE, ZERO } from '../../src/overlay/block.ts';
import type { Clone } from '../../src/overlay/clone.ts';
import { unsharedBytes } from '../../src/overlay/clones.ts';
import { differencesOf } from '../../src/overlay/export/source.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import type { SessionDisk, Sessions } from '../../src/overlay/sessions.ts';
import { scratch } from '../harness.ts';
import { formatted, needsRoot } from '../integration/machine-support.ts';
import { difference, openOverlay } from './disk-fixture.ts';
import { nonZeroBytes, Random } from './random.ts';
import { openSessions } from './thread-jobs.ts';

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const STEPS = 400;
const BLOCKS = 200;
const HOLES = [3, 4, 5, 60, 198];

interface Held {
  readonly session: number;
  bytes: Buffer;
  readonly snapshots: { readonly layer: number; readonly bytes: Buffer }[];
}

function readAll(disk: SessionDisk): Buffer {
  const bytes = Buffer.alloc(disk.sizeBytes);
  expect(disk.read(0, bytes.length, bytes, 0)).toBe(OK);
  expect(disk.transferred).toBe(bytes.length);
  return bytes;
}

/** What is told of the difference, applied to the base, is the disk; of what was not written little is told. */
function expectDifference(clone: Clone, base: Buffer, wanted: Buffer): void {
  const shown = Buffer.alloc(wanted.length);
  base.copy(shown);
  let differing = 0;
  for (let at = 0; at < wanted.length; at += BLOCK_BYTES) {
    const there = Buffer.alloc(BLOCK_BYTES);
    base.subarray(at, at + BLOCK_BYTES).copy(there);
    const here = wanted.subarray(at, at + BLOCK_BYTES);
    if (here.compare(there, 0, here.length) !== 0) differing++;
  }
  let told = 0;
  for (const { first, count, state } of differencesOf(clone)) {
    const [at, end] = [first * BLOCK_BYTES, Math.min((first + count) * BLOCK_BYTES, wanted.length)];
    if (state === BASE) continue;
    told += count;
    if (state === ZERO) shown.fill(0, at, end);
    else {
      expect(state).toBe(STORE);
      expect(clone.read(at, end - at, shown, at)).toBe(OK);
    }
  }
  expect(difference(shown, wanted)).toBe(undefined);
  expect(told).toBeGreaterThanOrEqual(differing);
}

describe.each(['xfs', 'btrfs'] as const)('%s', (type) => {
  let place = '';
  let fixture: ReturnType<typeof openOverlay>;
  let threads: readonly Sessions[] = [];
  const content = nonZeroBytes(BLOCKS * BLOCK_BYTES - 77, 1);
  for (const hole of HOLES) content.fill(0, hole * BLOCK_BYTES, (hole + 1) * BLOCK_BYTES);

  beforeEach((context) => {
    needsRoot(context);
    place = formatted(scratch(), type, context);
    fixture = openOverlay({ directory: place, content, holes: HOLES });
    threads = [0, 1].map(() => openSessions({ ...fixture.task(), clonesBase: true }));
  });

  afterEach(() => fixture.close());

  test('random steps', { timeout: 120_000 }, () => {
    const random = new Random(SEED);
    const held: Held[] = [];
    const [main] = threads as [Sessions];
    const add = (session: number, bytes: Buffer): void => {
      held.push({ session, bytes: Buffer.from(bytes), snapshots: [] });
    };
    const resized = (bytes: Buffer, size: number): Buffer => {
      const next = Buffer.alloc(size);
      bytes.copy(next);
      return next;
    };
    add(main.create(content.length), content);
    add(main.create(content.length + 50_001), resized(content, content.length + 50_001));
    for (let step = 0; step < STEPS; step++) {
      const one = held[random.below(held.length)] as Held;
      const sessions = threads[random.below(2)] as Sessions;
      const disk = sessions.disk(one.session);
      const offset = random.below(one.bytes.length + 5000);
      const length = 1 + random.below(random.below(2) === 0 ? 9 : 5 * BLOCK_BYTES);
      switch (random.below(12)) {
        case 0:
          expect(disk.truncate(offset)).toBe(OK);
          one.bytes = resized(one.bytes, offset);
          break;
        case 1:
        case 2:
          expect(disk.discard(offset, length)).toBe(OK);
          one.bytes.fill(0, Math.min(offset, one.bytes.length), Math.min(offset + length, one.bytes.length));
          break;
        case 3:
          expect(disk.allocate(offset, length, true)).toBe(OK);
          break;
        case 4:
          if (held.length < 6) add(sessions.fork(one.session), one.bytes);
          break;
        case 5:
          one.snapshots.push({ layer: sessions.snapshot(one.session), bytes: Buffer.from(one.bytes) });
          break;
        case 6: {
          const snapshot = one.snapshots[random.below(one.snapshots.length + 1)];
          if (snapshot === undefined) break;
          sessions.rollback(one.session, snapshot.layer);
          one.bytes = Buffer.from(snapshot.bytes);
          break;
        }
        case 7:
          if (random.below(3) > 0) break;
          expect(sessions.reset(one.session, content.length)).toBe(OK);
          one.bytes = Buffer.from(content);
          break;
        default: {
          const data = nonZeroBytes(length, step + 1);
          expect(disk.write(offset, length, data, 0)).toBe(OK);
          expect(disk.transferred).toBe(length);
          if (offset + length > one.bytes.length) one.bytes = resized(one.bytes, offset + length);
          data.copy(one.bytes, offset);
        }
      }
      expect(sessions.sizeBytes(one.session)).toBe(one.bytes.length);
      expect(difference(readAll(sessions.disk(one.session)), one.bytes)).toBe(undefined);
    }
    let snapshots = 0;
    for (const { session, bytes, snapshots: kept } of held) {
      expect(difference(readAll(main.disk(session)), bytes)).toBe(undefined);
      const layers = [{ layer: main.snapshot(session), bytes }, ...kept];
      snapshots += layers.length;
      for (const { layer, bytes } of layers) {
        expect(main.layerBytes(layer)).toBe(bytes.length);
        expectDifference(main.clones.open(layer), content, bytes);
        closeStores(main.layers.release(layer));
      }
      closeStores(main.discard(session));
    }
    expect(readFileSync(fixture.basePath).equals(content)).toBe(true);
    console.log(`COWFS_SEED=${SEED}: ${type}, ${STEPS} steps on ${held.length} disks, ${snapshots} differences`);
  });

  test('of what was not written nothing is told, and what was is told to the block', () => {
    const [sessions] = threads as [Sessions];
    const session = sessions.create(content.length);
    const disk = sessions.disk(session);
    const told = (): unknown[] => {
      const layer = sessions.snapshot(session);
      const found = [...differencesOf(sessions.clones.open(layer))].filter(({ state }) => state !== BASE);
      closeStores(sessions.layers.release(layer));
      return found;
    };
    expect(told()).toEqual([]);
    expect(disk.write(10 * BLOCK_BYTES + 5, 7, nonZeroBytes(7, 2), 0)).toBe(OK);
    // In a hole of the base.
    expect(disk.write(4 * BLOCK_BYTES, BLOCK_BYTES, nonZeroBytes(BLOCK_BYTES, 3), 0)).toBe(OK);
    expect(disk.discard(20 * BLOCK_BYTES, 2 * BLOCK_BYTES)).toBe(OK);
    expect(told()).toEqual([
      { first: 4, count: 1, state: STORE },
      { first: 10, count: 1, state: STORE },
      { first: 20, count: 2, state: ZERO },
    ]);
    // The one block in the hole, the one that was copied up; XFS sets aside some more beside them.
    const own = unsharedBytes(sessions.cloned.file(session) ?? -1);
    expect(own).toBeGreaterThanOrEqual(2 * BLOCK_BYTES);
    expect(own).toBeLessThanOrEqual(256 * 1024);
    closeStores(sessions.discard(session));
  });
});
