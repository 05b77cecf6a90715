import { expect, test } from 'vitest';
import { lock, unlock } from '../../src/lib/mutex.ts';
import { runThreads, useThreads } from '../overlay/threads.ts';

useThreads();

test('alone: taken and given back', () => {
  const words = new Int32Array(new SharedArrayBuffer(8));
  lock(words, 1);
  expect([...words]).toEqual([0, 1]);
  unlock(words, 1);
  expect([...words]).toEqual([0, 0]);
});

test('four threads count without a loss, and nobody sleeps on a free lock', async () => {
  const mutex = new SharedArrayBuffer(8);
  const times = 30_000;
  await runThreads(Array.from({ length: 4 }, () => ({ kind: 'count', mutex, times })));
  expect([...new Int32Array(mutex)]).toEqual([0, 4 * times]);
});
