/**
 * Sessions against plain buffers: any sequence of writes, forks, snapshots, ways back and merges of layers that have
 * become superfluous, on two threads' views in turn, gives the bytes of the model; counts are those of the layers that are left; and in the end everything has come back.
 */
import { readdirSync, rmSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import { BASE_LAYER, closeStores } from '../../src/overlay/layers.ts';
import { Merge } from '../../src/overlay/merge.ts';
import type { Sessions } from '../../src/overlay/sessions.ts';
import { LAYER } from '../../src/overlay/shared.ts';
import { scratch } from '../harness.ts';
import { difference, openOverlay, readDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';
import { openSessions } from './thread-jobs.ts';

vi.setConfig({ testTimeout: 60_000 });

const BLOCK = 4096;
const content = nonZeroBytes(10 * BLOCK - 5, 1);

interface Held {
  readonly session: number;
  bytes: Buffer;
  readonly snapshots: { layer: number; readonly bytes: Buffer }[];
  /** What each thread has of it. */
  readonly views: { disk: Disk; topology: number }[];
}

/** The overlay as two threads have it, and the model of it. */
class World {
  readonly held: Held[] = [];
  readonly #threads: readonly Sessions[];

  constructor(threads: readonly Sessions[]) {
    this.#threads = threads;
  }

  add(session: number, bytes: Buffer): void {
    const views = this.#threads.map((sessions) => ({ disk: sessions.open(session), topology: sessions.topology }));
    this.held.push({ session, bytes: Buffer.from(bytes), snapshots: [], views });
  }

  /** A disk as the thread has it: the view from before, where it is not told to make it anew. */
  disk({ session, views }: Held, thread: number): Disk {
    const sessions = this.#threads[thread] as Sessions;
    const view = views[thread] as { disk: Disk; topology: number };
    if (view.topology !== sessions.topology) {
      view.disk = sessions.open(session);
      view.topology = sessions.topology;
    }
    return view.disk;
  }

  drop(at: number, sessions: Sessions): void {
    for (const { session, snapshots } of this.held.splice(at, 1)) {
      closeStores(sessions.discard(session));
      for (const { layer } of snapshots) closeStores(sessions.layers.release(layer));
    }
  }

  /** As the daemon does when nothing but the upper of two layers stands on the lower (`daemon/merger.ts`). */
  merge(sessions: Sessions, which: number, isGivenUp: boolean): void {
    const { layers } = sessions;
    const writerOf = (layer: number) => this.held.find(({ session }) => sessions.top(session) === layer);
    const pairs = layers.all().filter((above) => {
      const below = layers.backing(above);
      if (below === BASE_LAYER || layers.references(below) !== 1) return false;
      return writerOf(above) === undefined || !layers.hasReservations(above);
    });
    const above = pairs[which % Math.max(1, pairs.length)];
    if (above === undefined) return;
    const writer = writerOf(above);
    const below = layers.backing(above);
    const merge = new Merge(layers, above, below);
    while (!merge.isDone) expect(merge.step()).toBe(OK);
    let stores: number[] = [];
    if (isGivenUp) expect(merge.giveUp()).toBe(OK);
    else {
      expect(merge.finish()).toBe(OK);
      stores = layers.replace(above, below);
      layers.recount(below);
      if (writer !== undefined) sessions.lowerTop(writer.session, below);
    }
    for (const { session, snapshots } of this.held) {
      for (const snapshot of snapshots) if (!isGivenUp && snapshot.layer === above) snapshot.layer = below;
      sessions.recount(session);
    }
    closeStores(stores);
  }

  check(sessions: Sessions): void {
    const { layers } = sessions;
    const all = new Set<number>();
    const chain = (top: number): number[] => {
      const found: number[] = [];
      for (let layer = top; layer !== BASE_LAYER; layer = layers.backing(layer)) found.push(layer);
      for (const layer of found) all.add(layer);
      return found;
    };
    const blocks = (layer: number): number => layers.control(layer)[LAYER.OCCUPIED_BLOCKS] as number;
    for (const held of this.held) {
      const sum = chain(sessions.top(held.session)).reduce((total, layer) => total + blocks(layer), 0);
      for (const { layer, bytes } of held.snapshots) {
        chain(layer);
        const shown = Buffer.alloc(bytes.length);
        expect(layers.open(layer).read(0, bytes.length, shown, 0)).toBe(OK);
        expect(difference(shown, bytes)).toBe(undefined);
      }
      [0, 1].forEach((thread) => {
        const disk = this.disk(held, thread);
        expect(difference(readDisk(disk), held.bytes)).toBe(undefined);
        expect(disk.account.occupiedBytes).toBe(sum * BLOCK);
      });
    }
    let total = 0;
    for (const layer of all) {
      const { map } = layers.open(layer);
      expect(blocks(layer)).toBe(map.occupied(0, map.blocks));
      total += blocks(layer);
    }
    expect(sessions.occupiedBytes).toBe(total * BLOCK);
  }
}

const kinds = [
  ...(['write', 'write', 'write', 'write', 'discard', 'discard', 'allocate', 'truncate'] as const),
  ...(['create', 'fork', 'fork', 'snapshot', 'snapshot', 'rollback', 'rollback', 'forget-snapshot'] as const),
  ...(['merge', 'merge', 'merge', 'merge', 'forget-snapshot', 'reset', 'drop'] as const),
];
const step = fc.record({
  kind: fc.constantFrom(...kinds),
  which: fc.nat(),
  other: fc.nat(),
  thread: fc.constantFrom(0, 1),
  offset: fc.nat({ max: 12 * BLOCK }),
  length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 * BLOCK })),
});
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

function change(disk: Disk, held: Held, { kind, offset, length, other }: Step): void {
  switch (kind) {
    case 'write': {
      const data = nonZeroBytes(length, other);
      expect(disk.write(offset, length, data, 0)).toBe(OK);
      const grown = Buffer.alloc(Math.max(held.bytes.length, offset + length));
      held.bytes.copy(grown);
      data.copy(grown, offset);
      held.bytes = grown;
      return;
    }
    case 'discard':
      expect(disk.discard(offset, length)).toBe(OK);
      held.bytes.fill(0, Math.min(offset, held.bytes.length), Math.min(offset + length, held.bytes.length));
      return;
    case 'allocate':
      expect(disk.allocate(offset, length, true)).toBe(OK);
      return;
    case 'truncate': {
      expect(disk.truncate(offset)).toBe(OK);
      const cut = Buffer.alloc(offset);
      held.bytes.copy(cut);
      held.bytes = cut;
    }
  }
}

function play(world: World, threads: readonly Sessions[], given: Step): void {
  const { kind, which, other, thread } = given;
  const sessions = threads[thread] as Sessions;
  const at = which % Math.max(1, world.held.length);
  const held = world.held[at];
  if (kind === 'create' || held === undefined) {
    if (world.held.length < 6) world.add(sessions.create(content.length), content);
    return;
  }
  const snapshot = held.snapshots[other % Math.max(1, held.snapshots.length)];
  switch (kind) {
    case 'fork':
      if (world.held.length < 6) world.add(sessions.fork(held.session), held.bytes);
      return;
    case 'snapshot':
      held.snapshots.push({ layer: sessions.snapshot(held.session), bytes: Buffer.from(held.bytes) });
      return;
    case 'rollback':
      if (snapshot === undefined) return;
      sessions.rollback(held.session, snapshot.layer);
      held.bytes = Buffer.from(snapshot.bytes);
      return;
    case 'forget-snapshot':
      if (snapshot === undefined) return;
      held.snapshots.splice(held.snapshots.indexOf(snapshot), 1);
      closeStores(sessions.layers.release(snapshot.layer));
      return;
    case 'reset':
      sessions.reset(held.session, content.length);
      held.bytes = Buffer.from(content);
      return;
    case 'merge':
      world.merge(sessions, which, other % 4 === 0);
      return;
    case 'drop':
      world.drop(at, sessions);
      return;
    default:
      change(world.disk(held, thread), held, given);
  }
}

test('any sequence', () => {
  const directory = scratch();
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }), (steps) => {
      const overlay = openOverlay({ directory, content });
      try {
        const threads = [overlay.sessions, openSessions(overlay.task())];
        const descriptors = readdirSync('/proc/self/fd').length;
        const memory = overlay.sessions.memoryBytes;
        const world = new World(threads);
        for (const each of steps) {
          play(world, threads, each);
          world.check(overlay.sessions);
        }
        while (world.held.length > 0) world.drop(0, overlay.sessions);
        expect(overlay.sessions.occupiedBytes).toBe(0);
        expect(overlay.sessions.memoryBytes).toBe(memory);
        expect(readdirSync('/proc/self/fd').length).toBe(descriptors);
      } finally {
        overlay.close();
        rmSync(overlay.basePath);
      }
    }),
    { numRuns: 150 },
  );
});
