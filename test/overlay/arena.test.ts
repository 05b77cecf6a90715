import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Arena } from '../../src/overlay/arena.ts';

const SIZES = [16, 64, 272, 1024] as const;
/** Before anything was handed out. */
const HEADER_BYTES = 64;

function allocate(arena: Arena, count: number): number {
  arena.lock();
  try {
    return arena.allocate(count);
  } finally {
    arena.unlock();
  }
}

function free(arena: Arena, index: number, count: number): void {
  arena.lock();
  arena.free(index, count);
  arena.unlock();
}

describe('what is given back', () => {
  test.each(SIZES)('%i words: is handed out again for the same size, zeroed', (count) => {
    const arena = new Arena(Arena.create());
    const index = allocate(arena, count);
    arena.words.fill(-1, index, index + count);
    free(arena, index, count);
    expect(arena.usedBytes).toBe(HEADER_BYTES);
    expect(allocate(arena, count)).toBe(index);
    expect(arena.words.subarray(index, index + count).every((word) => word === 0)).toBe(true);
    expect(arena.usedBytes).toBe(HEADER_BYTES + count * 4);
  });

  test('is not handed out for another size', () => {
    const arena = new Arena(Arena.create());
    const pieces = SIZES.map((count) => allocate(arena, count));
    SIZES.forEach((count, which) => {
      free(arena, pieces[which] as number, count);
    });
    const again = [...SIZES].reverse().map((count) => allocate(arena, count));
    expect(again.reverse()).toEqual(pieces);
    expect(pieces).not.toContain(allocate(arena, 16));
  });

  test('is seen by another thread, which may not have looked since the arena grew', () => {
    const buffer = Arena.create();
    const [one, other] = [new Arena(buffer), new Arena(buffer)];
    let last = 0;
    while (last < other.words.length) last = allocate(one, 1024);
    free(one, last, 1024);
    expect(allocate(other, 1024)).toBe(last);
    free(other, last, 1024);
    expect(one.usedBytes).toBe(other.usedBytes);
    expect(allocate(one, 1024)).toBe(last);
  });
});

test.each([0, 1, 15, 17, 128, 1023, 2048])('no piece of %i words', (count) => {
  const arena = new Arena(Arena.create());
  expect(() => allocate(arena, count)).toThrow(RangeError);
  expect(() => free(arena, 16, count)).toThrow(RangeError);
});

test('records and their Float64 slots lie within the piece, wherever it is', () => {
  const arena = new Arena(Arena.create());
  for (let round = 0; round < 500; round++) {
    const index = allocate(arena, SIZES[round % 4] as number);
    arena.record(index, 16).fill(round);
    arena.doubles(index + 8, 2).fill(round + 0.5);
    expect(arena.words[index + 7]).toBe(round);
    expect([...arena.doubles(index + 8, 2)]).toEqual([round + 0.5, round + 0.5]);
    expect(arena.words[index + 12]).toBe(round);
  }
});

const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('take' as const, 'take' as const, 'give' as const),
    size: fc.constantFrom(...SIZES),
    which: fc.nat(),
  }),
  { minLength: 1, maxLength: 300, size: 'max' },
);

test('any sequence: pieces never overlap, are zeros at first, and all memory comes back', () => {
  fc.assert(
    fc.property(steps, (list) => {
      const buffer = Arena.create();
      const views = [new Arena(buffer), new Arena(buffer)] as const;
      const held: { index: number; size: number; mark: number }[] = [];
      const release = (which: number): void => {
        const [piece] = held.splice(which, 1);
        if (piece === undefined) return;
        const { index, size, mark } = piece;
        const words = new Int32Array(buffer, index * 4, size);
        expect(words.every((word) => word === mark)).toBe(true);
        free(views[which % 2 === 0 ? 0 : 1], index, size);
      };
      let most = 0;
      list.forEach(({ kind, size, which }, step) => {
        if (kind === 'give') release(held.length === 0 ? 0 : which % held.length);
        else {
          const index = allocate(views[step % 2 === 0 ? 0 : 1], size);
          const words = new Int32Array(buffer, index * 4, size);
          expect([index % 2, words.every((word) => word === 0)]).toEqual([0, true]);
          words.fill(step + 1);
          held.push({ index, size, mark: step + 1 });
        }
        const used = held.reduce((sum, piece) => sum + piece.size * 4, HEADER_BYTES);
        most = Math.max(most, used);
        expect(views.map(({ usedBytes }) => usedBytes)).toEqual([used, used]);
      });
      while (held.length > 0) release(0);
      expect(views[0].usedBytes).toBe(HEADER_BYTES);
    }),
    { numRuns: 100 },
  );
});
