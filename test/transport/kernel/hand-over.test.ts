import { describe, expect, test } from 'vitest';
import { HandOver, SLOTS } from '../../../src/transport/kernel/hand-over.ts';
import { runThreads, useThreads } from '../../overlay/threads.ts';

useThreads();

/** The slots of a word of bits. */
function slotsOf(bits: number): number[] {
  return Array.from({ length: SLOTS }, (_, slot) => slot).filter((slot) => (bits & (1 << slot)) !== 0);
}

describe('one thread', () => {
  test('what is given is taken in order, with its length, and comes back when it is released', () => {
    const handOver = new HandOver(HandOver.create());
    handOver.give(5, 80);
    handOver.give(31, 1_048_656);
    handOver.give(0, 40);
    const taken = [0, 1, 2].map(() => [handOver.take(), handOver.length]);
    expect(taken).toEqual([
      [5, 80],
      [31, 1_048_656],
      [0, 40],
    ]);
    expect(handOver.takeBack()).toBe(0);
    handOver.release(31);
    handOver.release(0);
    expect(slotsOf(handOver.takeBack())).toEqual([0, 31]);
    expect(handOver.takeBack()).toBe(0);
  });

  test('all slots may be out at once', () => {
    const handOver = new HandOver(HandOver.create());
    for (let round = 0; round < 3; round++) {
      for (let slot = 0; slot < SLOTS; slot++) handOver.give(slot, slot + 1);
      for (let slot = 0; slot < SLOTS; slot++) {
        expect([handOver.take(), handOver.length]).toEqual([slot, slot + 1]);
        handOver.release(slot);
      }
      expect(slotsOf(handOver.takeBack())).toHaveLength(SLOTS);
    }
  });

  test('after the end nobody waits', () => {
    const handOver = new HandOver(HandOver.create());
    handOver.end();
    expect(handOver.take()).toBe(-1);
    expect(handOver.take()).toBe(-1);
  });
});

test('of what one thread gives several, each takes some, all is taken once, and the end reaches all', async () => {
  const shared = HandOver.create();
  const count = 30_000;
  const [given, ...takers] = await runThreads([
    { kind: 'give', handOver: shared, count },
    { kind: 'take', handOver: shared },
    { kind: 'take', handOver: shared },
    { kind: 'take', handOver: shared },
  ]);
  expect(given).toBe(count);
  const lengths = (takers as number[][]).flat().sort((a, b) => a - b);
  expect(lengths).toHaveLength(count);
  expect(lengths.every((length, index) => length === index)).toBe(true);
});
