/** Progress for programs: a line at once, one now and then, one at the end. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { showProgress } from '../../src/cli/progress.ts';

let lines: string[];
let nowMs: number;

beforeEach(() => {
  lines = [];
  nowMs = 1000;
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    lines.push(String(text));
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
});

function events(): unknown[] {
  return lines.map((line) => {
    expect(line.endsWith('\n')).toBe(true);
    return JSON.parse(line);
  });
}

test('the first report at once, others no sooner than 200 ms after the last, the end always', async () => {
  const progress = await showProgress('exporting', true);
  for (const [ms, bytes] of [
    [0, 0],
    [10, 1],
    [199, 2],
    [200, 3],
    [399, 4],
    [400, 5],
    [5000, 6],
    [5001, 7],
  ] as const) {
    nowMs = 1000 + ms;
    progress.report(bytes, 7);
  }
  progress.done();
  expect(events()).toEqual([
    ...[0, 3, 5, 6].map((doneBytes) => ({ event: 'progress', doneBytes, totalBytes: 7 })),
    { event: 'done', doneBytes: 7, totalBytes: 7 },
  ]);
});

test('one that fails says how far it came', async () => {
  const progress = await showProgress('exporting', true);
  progress.report(0, 100);
  progress.report(60, 100);
  progress.failed();
  expect(events()).toEqual([
    { event: 'progress', doneBytes: 0, totalBytes: 100 },
    { event: 'failed', doneBytes: 60, totalBytes: 100 },
  ]);
});

test('one of nothing at all', async () => {
  const progress = await showProgress('exporting', true);
  progress.done();
  expect(events()).toEqual([{ event: 'done', doneBytes: 0, totalBytes: 0 }]);
});

test('where standard error is no terminal, nothing is said', async () => {
  const told = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  const isTTY = process.stderr.isTTY;
  process.stderr.isTTY = false;
  try {
    const progress = await showProgress('exporting', false);
    for (let bytes = 0; bytes <= 10; bytes++) progress.report(bytes, 10);
    progress.done();
    progress.failed();
  } finally {
    process.stderr.isTTY = isTTY;
  }
  expect(lines).toEqual([]);
  expect(told).not.toHaveBeenCalled();
});
