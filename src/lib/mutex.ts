/**
 * A futex-style lock on one Int32 of shared memory (Drepper, "Futexes Are Tricky", mutex 2): 0 free, 1 held,
 * 2 held with somebody waiting. For sections of at most a few system calls, on workers and the main thread alike.
 * Not recursive; a thread that dies inside leaves it held, which is why a dead worker ends the whole daemon.
 */

const FREE = 0;
const HELD = 1;
const CONTENDED = 2;

export function lock(words: Int32Array, index: number): void {
  if (Atomics.compareExchange(words, index, FREE, HELD) === FREE) return;
  while (Atomics.exchange(words, index, CONTENDED) !== FREE) Atomics.wait(words, index, CONTENDED);
}

/** As `lock`, without waiting: false when somebody has it. */
export function tryLock(words: Int32Array, index: number): boolean {
  return Atomics.compareExchange(words, index, FREE, HELD) === FREE;
}

export function unlock(words: Int32Array, index: number): void {
  if (Atomics.exchange(words, index, FREE) === CONTENDED) Atomics.notify(words, index, 1);
}
