import { spawnSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CowfsError, reasonOf } from '../../src/lib/error.ts';

test('a cause is kept, and only where there is one', () => {
  const cause = new Error('inner');
  const error = new CowfsError('refused', 'outer', cause);
  expect([error.kind, error.message, error.cause, error.name]).toEqual(['refused', 'outer', cause, 'CowfsError']);
  expect('cause' in new CowfsError('usage', 'x')).toBe(false);
});

test("Node's messages lose the system call and the path, which whoever catches names", () => {
  let thrown: unknown;
  try {
    openSync('/nowhere/at, all', 'r');
  } catch (error) {
    thrown = error;
  }
  expect(reasonOf(thrown)).toBe('no such file or directory (ENOENT)');
});

test('what could not be started is said in the same words', () => {
  const { error } = spawnSync('/nowhere/at all', []);
  expect(reasonOf(error)).toBe('no such file or directory (ENOENT)');
});

test.each<[unknown, string]>([
  [new Error('EACCES: permission denied, open /x'), 'permission denied (EACCES)'],
  [new CowfsError('usage', 'say this, all of it'), 'say this, all of it'],
  [new Error('Error: E: is no errno'), 'Error: E: is no errno'],
  ['text', 'text'],
  [undefined, 'undefined'],
])('%s', (error, reason) => {
  expect(reasonOf(error)).toBe(reason);
});
