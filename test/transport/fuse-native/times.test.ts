import { expect, test, vi } from 'vitest';
import type { NativeHandler } from '../../../src/transport/fuse-native/addon.ts';
import { RequestTimes } from '../../../src/transport/fuse-native/times.ts';
import { deliver, halves, type Request, requestMemory, UTIMENS } from './request-memory.ts';

const ATIME_MS = 1_600_000_000_123;
const MTIME_MS = 1_234_567_890_987;
const BOTH = { atimeMs: ATIME_MS, mtimeMs: MTIME_MS };

/** Handlers of the package, its utimens among them. */
function packageHandlers(utimens: NativeHandler = () => {}): NativeHandler[] {
  const handlers: NativeHandler[] = [];
  handlers[UTIMENS] = utimens;
  return handlers;
}

/** What is known of the times after a request, whose handler must have got everything. */
function timesOf(request: Partial<Request>, operation = UTIMENS, told = ATIME_MS): RequestTimes['current'] {
  const handler = vi.fn<NativeHandler>();
  const handlers = packageHandlers(handler);
  const times = new RequestTimes();
  times.attach(handlers);
  const memory = requestMemory({ ...BOTH, ...request });
  deliver(handlers, memory, told, operation);
  const [low, high] = halves(told);
  expect(handler).toHaveBeenCalledExactlyOnceWith(memory, operation, '/disk.raw', low, high, low, high);
  return times.current;
}

test('both times are read from the request', () => {
  expect(timesOf({})).toEqual(BOTH);
});

test.each([
  ['the epoch', 0],
  ['after 2038', 2 ** 32 * 1000 + 1],
  ['before the epoch', -1],
  ['long before', -2_208_988_800_000],
])('%s: %i ms', (_, timeMs) => {
  expect(timesOf({ mtimeMs: timeMs })).toEqual({ ...BOTH, mtimeMs: timeMs });
  expect(timesOf({ atimeMs: timeMs }, UTIMENS, timeMs)).toEqual({ ...BOTH, atimeMs: timeMs });
});

test.each<[string, Partial<Request>, number?]>([
  ['the operation in it is another', { operation: 13 }],
  ['the operation it comes with is another', {}, 13],
  ['the access time in it is another', { atimeMs: ATIME_MS + 1 }],
  ['the access time in it differs above 32 bits', { atimeMs: ATIME_MS + 2 ** 32 }],
  ['it ends within the time', { bytes: 119 }],
  ['it is empty', { bytes: 0 }],
])('nothing is known when %s', (_, request, operation) => {
  expect(timesOf(request, operation)).toBe(undefined);
});

test('a request that ends right behind the time is enough', () => {
  expect(timesOf({ bytes: 120 })).toEqual(BOTH);
});

test('what is known is of the last request alone, and nothing before the first', () => {
  const handlers = packageHandlers();
  const times = new RequestTimes();
  times.attach(handlers);
  expect(times.current).toBe(undefined);
  deliver(handlers, requestMemory(BOTH), ATIME_MS);
  expect(times.current).toEqual(BOTH);
  deliver(handlers, requestMemory({ ...BOTH, operation: 5 }), ATIME_MS);
  expect(times.current).toBe(undefined);
});

test('it is known while the package’s handler runs, which is when it is wanted', () => {
  const times = new RequestTimes();
  const seen: RequestTimes['current'][] = [];
  const handlers = packageHandlers(() => seen.push(times.current));
  times.attach(handlers);
  deliver(handlers, requestMemory(BOTH), ATIME_MS);
  expect(seen).toEqual([BOTH]);
});

test('a package without utimens is a bug that shows at once; other handlers are left alone', () => {
  const other = vi.fn<NativeHandler>();
  expect(() => new RequestTimes().attach([other])).toThrow('utimens');
  const handlers = packageHandlers();
  handlers[0] = other;
  new RequestTimes().attach(handlers);
  expect(handlers[0]).toBe(other);
});
