import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { EXIT_CODES, RUN_EXIT, reportError, warn } from '../../src/cli/exit.ts';
import { CowfsError } from '../../src/lib/error.ts';

let printed = '';

beforeEach(() => {
  printed = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    printed += String(text);
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
});

test('the codes that scripts rely on', () => {
  expect(EXIT_CODES).toEqual({ failed: 1, usage: 2, refused: 3, missing: 4 });
  expect(RUN_EXIT).toEqual({ failed: 125, notExecutable: 126, notFound: 127 });
});

test.each(['failed', 'usage', 'refused', 'missing'] as const)('%s: one line and its code', (kind) => {
  expect(reportError(new CowfsError(kind, 'what, where and what next', new Error('cause')), false)).toBe(
    EXIT_CODES[kind],
  );
  expect(printed).toBe('cowfs: what, where and what next\n');
});

test('a bug, or whatever else is thrown', () => {
  expect(reportError(new TypeError('x is not a function'), false)).toBe(1);
  expect(reportError('text', true)).toBe(1);
  expect(printed).toBe('cowfs: x is not a function\ncowfs: text\n');
});

test('with --verbose the stack, and those of its causes', () => {
  const cause = new Error('inner reason');
  reportError(new CowfsError('failed', 'outer', cause), true);
  expect(printed).toMatch(/^cowfs: outer\nCowfsError: outer\n {4}at /);
  expect(printed).toMatch(/\nError: inner reason\n {4}at /);
});

test('a warning says that it is one', () => {
  warn('mind the gap');
  expect(printed).toBe('cowfs: warning: mind the gap\n');
});
