import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { Arena } from '../../src/overlay/arena.ts';
import { BASE, type BlockState, RESERVED, STORE, ZERO } from '../../src/overlay/block.ts';
import { BlockMap } from '../../src/overlay/map.ts';
import { LAYER } from '../../src/overlay/shared.ts';
import { mapSteps } from './thread-jobs.ts';
import { runThreads, useThreads } from './threads.ts';

useThreads();

const LEAF = 1024;
const NODE = 1024 * LEAF;
const LIMIT = 2 ** 40;
const STATES: readonly BlockState[] = [BASE, STORE, ZERO, RESERVED];
const nameOf = (state: BlockState): string => ['BASE', 'STORE', 'ZERO', 'RESERVED'][state] as string;

function newMap(arena = new Arena(Arena.create())): { map: BlockMap; control: Int32Array; arena: Arena } {
  const control = new Int32Array(new SharedArrayBuffer(LAYER.WORDS * 4));
  return { map: new BlockMap(arena, control), control, arena };
}

function stateAt(map: BlockMap, block: number): BlockState {
  expect(map.runAt(block, 1)).toBe(1);
  return map.runState;
}

/**
 * The map as plain arrays: a few windows of two leaves where anything may happen, on the borders of words, leaves and
 * nodes, and gaps between them, each of one state.
 */
class Model {
  static readonly WINDOWS = [0, 5 * LEAF, NODE - LEAF, 2 ** 30 - LEAF, 2 ** 35, LIMIT - 2 * LEAF] as const;
  static readonly LENGTH = 2 * LEAF;
  readonly windows: BlockState[][] = Model.WINDOWS.map(() => new Array<BlockState>(Model.LENGTH).fill(BASE));
  /** The gap after each window. */
  readonly gaps: BlockState[] = Model.WINDOWS.map(() => BASE);

  set(first: number, end: number, state: BlockState): void {
    this.#each(first, end, (window, from, to) => {
      this.windows[window]?.fill(state, from, to);
    });
    // Only whole gaps are ever set.
    for (let window = 0; window < this.gaps.length; window++) {
      const [start, stop] = this.#gap(window);
      if (first <= start && end >= stop) this.gaps[window] = state;
    }
  }

  /** Maximal runs of equal state from a block on: first block, block after the last, state. */
  *runs(from: number): Generator<[number, number, BlockState]> {
    let [first, end, state]: [number, number, BlockState] = [from, from, BASE];
    for (const [, stop, found] of this.#pieces(from)) {
      if (first !== end && found !== state) {
        yield [first, end, state];
        first = end;
      }
      state = found;
      end = stop;
    }
    yield [first, end, state];
  }

  *#pieces(from: number): Generator<[number, number, BlockState]> {
    for (let window = 0; window < this.windows.length; window++) {
      const start = Model.WINDOWS[window] as number;
      const states = this.windows[window] as BlockState[];
      for (let at = Math.max(0, from - start); at < states.length; at++) {
        yield [start + at, start + at + 1, states[at] as BlockState];
      }
      const [gapStart, gapEnd] = this.#gap(window);
      if (gapEnd > Math.max(from, gapStart)) yield [Math.max(from, gapStart), gapEnd, this.gaps[window] as BlockState];
    }
  }

  runAt(block: number, limit: number): [number, BlockState] {
    const [first, end, state] = this.runs(block).next().value as [number, number, BlockState];
    return [Math.min(limit, end - first), state];
  }

  count(first: number, end: number, matches: (state: BlockState) => boolean): number {
    let total = 0;
    this.#each(first, end, (window, from, to) => {
      total += (this.windows[window] as BlockState[]).slice(from, to).filter(matches).length;
    });
    return total;
  }

  #gap(window: number): [number, number] {
    const start = (Model.WINDOWS[window] as number) + (this.windows[window] as BlockState[]).length;
    return [start, Model.WINDOWS[window + 1] ?? LIMIT];
  }

  #each(first: number, end: number, act: (window: number, from: number, to: number) => void): void {
    Model.WINDOWS.forEach((start, window) => {
      const length = (this.windows[window] as BlockState[]).length;
      const from = Math.max(0, first - start);
      const to = Math.min(length, end - start);
      if (from < to) act(window, from, to);
    });
  }
}

const windowArbitrary = fc.integer({ min: 0, max: Model.WINDOWS.length - 1 });
const within = fc.integer({ min: 0, max: Model.LENGTH - 1 });
const place = fc.tuple(windowArbitrary, within).map(([window, at]) => (Model.WINDOWS[window] as number) + at);
const inWindow = fc.record({ window: windowArbitrary, from: within, count: fc.integer({ min: 1, max: Model.LENGTH }) });

const stepArbitrary = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('set' as const), range: inWindow, state: fc.constantFrom(...STATES) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('zero' as const), from: place, to: place }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('look' as const),
      block: place,
      limit: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 4000 }), fc.constant(LIMIT)),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const), from: place }) },
);

describe('against a plain array', () => {
  test('sets, runs, counts and clears agree on every border', () => {
    const arena = new Arena(Arena.create());
    fc.assert(
      fc.property(fc.array(stepArbitrary, { minLength: 1, maxLength: 40, size: 'max' }), (steps) => {
        const { map, control } = newMap(arena);
        const model = new Model();
        for (const step of steps) {
          if (step.kind === 'set') {
            const start = Model.WINDOWS[step.range.window] as number;
            const first = start + step.range.from;
            const end = Math.min(first + step.range.count, start + Model.LENGTH);
            map.set(first, end - first, step.state);
            model.set(first, end, step.state);
          } else if (step.kind === 'zero') {
            const first = Math.min(step.from, step.to);
            const end = Math.max(step.from, step.to) + 1;
            map.set(first, end - first, ZERO);
            model.set(first, end, ZERO);
          } else if (step.kind === 'look') {
            const limit = Math.min(step.limit, LIMIT - step.block);
            const [run, state] = model.runAt(step.block, limit);
            expect([map.runAt(step.block, limit), nameOf(map.runState)]).toEqual([run, nameOf(state)]);
            expect(map.occupied(step.block, limit)).toBe(model.count(step.block, step.block + limit, occupies));
          } else {
            map.clearFrom(step.from);
            // What reads as zeros may stay so; all else is gone.
            for (const [first, end, state] of [...model.runs(step.from)]) {
              for (let at = first; at < end; at += map.runAt(at, end - at)) {
                map.runAt(at, end - at);
                expect([BASE, state === ZERO ? ZERO : BASE]).toContain(map.runState);
              }
              // The model knows no mixture.
              if (state === ZERO) map.set(first, end - first, ZERO);
              else model.set(first, end, BASE);
            }
          }
          expect(control[LAYER.WRITTEN_BLOCKS]).toBe(model.count(0, LIMIT, (state) => state === STORE));
        }
        for (const [first, end, state] of model.runs(0)) {
          expect([first, map.runAt(first, LIMIT - first), nameOf(map.runState)]).toEqual([
            first,
            end - first,
            nameOf(state),
          ]);
        }
        expect(map.occupied(0, LIMIT)).toBe(model.count(0, LIMIT, occupies));
      }),
      { numRuns: 150 },
    );
  });

  test.each([1, 15, 16, 17, 1023, 1024, 1025, 2049])('a run of %i blocks from any place within a leaf', (count) => {
    for (const state of [STORE, ZERO, RESERVED] as const) {
      for (const first of [0, 1, 15, 16, 1007, 1008, 1023, NODE - 1, NODE - 1024]) {
        const { map } = newMap();
        map.set(first, count, state);
        expect(map.runAt(first, LIMIT - first)).toBe(count);
        expect(map.runState).toBe(state);
        expect(map.runAt(first + count, 5)).toBe(5);
        expect(map.runState).toBe(BASE);
        if (first > 0) {
          expect(map.runAt(0, LIMIT)).toBe(first);
          expect(map.runState).toBe(BASE);
        }
        expect(map.occupied(0, LIMIT)).toBe(state === ZERO ? 0 : count);
      }
    }
  });
});

function occupies(state: BlockState): boolean {
  return state === STORE || state === RESERVED;
}

describe('memory', () => {
  test('a fresh map takes none and says base everywhere', () => {
    const { map, arena } = newMap();
    expect(map.runAt(0, LIMIT)).toBe(LIMIT);
    expect(map.runState).toBe(BASE);
    expect(map.occupied(0, LIMIT)).toBe(0);
    expect(arena.usedBytes).toBe(64);
  });

  test('zeroing terabytes costs a few nodes, and what is written into them stands among zeros', () => {
    const { map, arena } = newMap();
    const first = 12_345;
    const count = 2 ** 38 + 777;
    map.set(first, count, ZERO);
    // At either end at most one path of three nodes and a leaf.
    expect(arena.usedBytes).toBeLessThanOrEqual(64 + 2 * (3 * 4096 + 256));
    map.set(2 ** 36 + 5, 3, STORE);
    expect(arena.usedBytes).toBeLessThanOrEqual(64 + 3 * (3 * 4096 + 256));
    expect(map.runAt(first, LIMIT - first)).toBe(2 ** 36 + 5 - first);
    expect(map.runState).toBe(ZERO);
    expect(map.runAt(2 ** 36 + 5, LIMIT)).toBe(3);
    expect(map.runState).toBe(STORE);
    expect(map.runAt(2 ** 36 + 8, 2 ** 39)).toBe(first + count - (2 ** 36 + 8));
    expect(map.runState).toBe(ZERO);
    expect(stateAt(map, first - 1)).toBe(BASE);
    expect(stateAt(map, first + count)).toBe(BASE);
  });

  test('zeroing the whole map and clearing it are a few words, whatever the number of blocks', () => {
    const { map, arena } = newMap();
    map.set(0, LIMIT, ZERO);
    expect(arena.usedBytes).toBe(64);
    expect(stateAt(map, LIMIT - 1)).toBe(ZERO);
    map.clearFrom(0);
    expect(arena.usedBytes).toBe(64);
  });

  test('what was written all over and then trimmed is passed over in a few steps, and its leaves serve again', () => {
    const { map, control, arena } = newMap();
    const leaves = 1500;
    const writeAll = (): void => {
      for (let leaf = 0; leaf < leaves; leaf++) map.set(leaf * LEAF + 7, 1, STORE);
    };
    writeAll();
    const used = arena.usedBytes;
    map.set(0, leaves * LEAF, ZERO);
    expect(control[LAYER.WRITTEN_BLOCKS]).toBe(0);
    const reach = vi.spyOn(arena, 'reach');
    expect(map.runAt(3, LIMIT - 3)).toBe(leaves * LEAF - 3);
    expect(map.runState).toBe(ZERO);
    // Two nodes with leaves, and the stretch without any.
    expect(reach.mock.calls.length).toBeLessThanOrEqual(3 * 3);
    reach.mockRestore();
    expect(map.runAt(5, 11)).toBe(11);
    expect(map.occupied(0, LIMIT)).toBe(0);
    writeAll();
    expect(arena.usedBytes).toBe(used);
    expect([control[LAYER.WRITTEN_BLOCKS], map.occupied(0, LIMIT)]).toEqual([leaves, leaves]);
    expect([stateAt(map, 6), stateAt(map, 7), stateAt(map, 8)].map(nameOf)).toEqual(['ZERO', 'STORE', 'ZERO']);
    expect(map.runAt(LEAF + 8, LIMIT)).toBe(LEAF - 1);
  });

  test('a GiB written in one piece takes 66 KiB, the next one 64 more', () => {
    const { map, arena } = newMap();
    const gib = 2 ** 18;
    map.set(0, gib, STORE);
    const first = arena.usedBytes;
    expect(first).toBeLessThanOrEqual(64 + 3 * 4096 + 256 * 256);
    map.set(gib, gib, STORE);
    expect(arena.usedBytes - first).toBe(64 * 1024);
    expect(map.occupied(0, LIMIT)).toBe(2 * gib);
  });

  test('giving base to what is base, or zero to what is zero, takes nothing', () => {
    const { map, arena } = newMap();
    map.set(5, 100_000, BASE);
    expect(arena.usedBytes).toBe(64);
    map.set(0, NODE * LEAF, ZERO);
    const used = arena.usedBytes;
    map.set(77, 2_000_000, ZERO);
    expect(arena.usedBytes).toBe(used);
  });
});

describe('many threads', () => {
  test('states of regions that share leaves, words beside each other, over a growing arena', async () => {
    const { map, control, arena } = newMap();
    const threads = 4;
    const seed = 20_041;
    const buffer = Arena.create();
    const shared = new SharedArrayBuffer(LAYER.WORDS * 4);
    const steps = Array.from({ length: threads }, (_, thread) => ({ seed, count: 3000, thread, threads }));
    await runThreads(steps.map((each) => ({ kind: 'map', arena: buffer, control: shared, steps: each })));

    const result = new BlockMap(new Arena(buffer), new Int32Array(shared));
    const model = new Map<number, BlockState>();
    for (const each of steps) {
      for (const [first, count, state] of mapSteps(each)) {
        for (let block = first; block < first + count; block++) model.set(block, state);
        map.set(first, count, state);
      }
    }
    const wrong = [...model].filter(([block, state]) => stateAtQuietly(result, block) !== state);
    expect(wrong.slice(0, 5)).toEqual([]);
    expect(new Int32Array(shared)[LAYER.WRITTEN_BLOCKS]).toBe(control[LAYER.WRITTEN_BLOCKS]);
    expect(result.occupied(0, LIMIT)).toBe(map.occupied(0, LIMIT));
    // More than the first piece of memory; no thread made a second node beside another's (order decides on a few leaves).
    expect(new Arena(buffer).usedBytes).toBeGreaterThan(4 * 256 * 1024);
    expect(new Arena(buffer).usedBytes).toBeLessThan(arena.usedBytes * 1.05);
  });
});

function stateAtQuietly(map: BlockMap, block: number): BlockState {
  map.runAt(block, 1);
  return map.runState;
}

/**
 * Readers take no lock, so a word can change between any two looks at it. Here it does so at every possible moment:
 * `words` is counted, and the state is flipped at the nth look.
 */
test('a run never comes out empty, whenever another thread changes the state', () => {
  for (let moment = 1; moment <= 12; moment++) {
    const { map, arena, control } = newMap();
    map.set(0, 64, STORE);
    const other = new BlockMap(arena, control);
    const words = arena.words;
    let looks = 0;
    let flipped = false;
    Object.defineProperty(arena, 'words', {
      get: () => {
        looks += 1;
        if (looks === moment && !flipped) {
          flipped = true;
          other.set(3, 1, ZERO);
        }
        return words;
      },
    });
    expect([moment, map.runAt(3, 10)]).not.toEqual([moment, 0]);
  }
});
