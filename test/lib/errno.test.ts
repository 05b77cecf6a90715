import { openSync } from 'node:fs';
import { constants } from 'node:os';
import { expect, test } from 'vitest';
import * as errno from '../../src/lib/errno.ts';

const { errnoName, errnoOf, isNoSpace, OK } = errno;

test('numbers are those of Linux, positive', () => {
  const { EIO, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM } = errno;
  expect([OK, EPERM, ENOENT, EIO, ENOSPC, ENOSYS, EOPNOTSUPP]).toEqual([0, 1, 2, 5, 28, 38, 95]);
});

test.each([
  [28, 'ENOSPC'],
  [5, 'EIO'],
  // Two names each: the one that manual pages use.
  [11, 'EAGAIN'],
  [95, 'EOPNOTSUPP'],
  [999, 'errno 999'],
])('%i is %s', (number, name) => {
  expect(errnoName(number)).toBe(name);
});

test('every name leads back to its number', () => {
  for (const number of Object.values(constants.errno)) {
    const name = errnoName(number) as keyof typeof constants.errno;
    expect([number, constants.errno[name]]).toEqual([number, number]);
  }
});

test('the errno of an exception', () => {
  let thrown: unknown;
  try {
    openSync('/nowhere/at/all', 'r');
  } catch (error) {
    thrown = error;
  }
  expect(errnoOf(thrown)).toBe(errno.ENOENT);
});

test.each<[string, unknown]>([
  ['a bug', new TypeError('x is not a function')],
  ['no memory', new RangeError('Array buffer allocation failed')],
  ['no Error at all', 'text'],
  ['nothing', undefined],
  ['an object that looks like one', { errno: -2 }],
  ['an errno of 0', Object.assign(new Error('x'), { errno: 0 })],
  ['an errno that is no number', Object.assign(new Error('x'), { errno: 'ENOENT' })],
  ['an errno of libuv alone (UV_UNKNOWN)', Object.assign(new Error('x'), { errno: -4094 })],
])('%s is EIO', (_, error) => {
  expect(errnoOf(error)).toBe(errno.EIO);
});

test('no space is a full file system or a full quota', () => {
  const { EDQUOT, EFBIG, EIO, ENOSPC } = constants.errno;
  expect([ENOSPC, EDQUOT, OK, EIO, EFBIG].map(isNoSpace)).toEqual([true, true, false, false, false]);
});
