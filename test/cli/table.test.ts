import { expect, test } from 'vitest';
import { formatTable } from '../../src/cli/table.ts';

test('columns are as wide as their widest cell, two blanks apart, and no line ends in a blank', () => {
  expect(
    formatTable([
      ['DISK', 'SIZE', 'PID'],
      ['/mnt/vm/disk.raw', '1.0 GiB', '7'],
      ['/a', '', '4242'],
      ['/b', '5 B', ''],
    ]),
  ).toBe(
    'DISK              SIZE     PID\n' +
      '/mnt/vm/disk.raw  1.0 GiB  7\n' +
      '/a                         4242\n' +
      '/b                5 B\n',
  );
});

test('no rows, no lines', () => {
  expect(formatTable([])).toBe('');
});
