import { describe, expect, test } from 'vitest';
import { mountAt, parseMountinfo, readMounts } from '../../src/sys/mountinfo.ts';

describe('a line', () => {
  test.each([
    [
      'without optional fields',
      '36 35 98:0 /mnt1 /mnt/vm rw,noatime - ext3 /dev/root rw,errors=continue',
      { device: '98:0', mountpoint: '/mnt/vm', type: 'ext3', source: '/dev/root' },
    ],
    [
      'with several',
      '36 35 0:52 / /mnt/vm rw master:1 shared:7 unbindable - fuse.cowfs base.img rw,user_id=0',
      { device: '0:52', mountpoint: '/mnt/vm', type: 'fuse.cowfs', source: 'base.img' },
    ],
    [
      'with escaped blank, tab, newline and backslash',
      String.raw`36 35 0:52 / /mnt/a\040b\011c\012d\134e rw - fuse.cowfs /x\040y rw`,
      { device: '0:52', mountpoint: '/mnt/a b\tc\nd\\e', type: 'fuse.cowfs', source: '/x y' },
    ],
    [
      'whose escaped backslash looks like an escape',
      String.raw`36 35 0:52 / /mnt/\134040 rw - tmpfs none rw`,
      { device: '0:52', mountpoint: String.raw`/mnt/\040`, type: 'tmpfs', source: 'none' },
    ],
    [
      'with letters beyond ASCII, which the kernel leaves alone',
      '36 35 0:52 / /mnt/größe rw - tmpfs none rw',
      { device: '0:52', mountpoint: '/mnt/größe', type: 'tmpfs', source: 'none' },
    ],
    [
      'with a mountpoint that is a dash',
      '36 35 0:52 / - rw - tmpfs - rw',
      { device: '0:52', mountpoint: '-', type: 'tmpfs', source: '-' },
    ],
    [
      'without a source',
      '36 35 0:52 / /mnt/vm rw - tmpfs  rw',
      { device: '0:52', mountpoint: '/mnt/vm', type: 'tmpfs', source: '' },
    ],
  ])('%s', (_, line, entry) => {
    expect(parseMountinfo(`${line}\n`)).toEqual([entry]);
  });

  test.each(['', '36 35 98:0', '36 35 98:0 /mnt1 /mnt2 rw shared:1', '36 35 98:0 /mnt1 /mnt2 rw -'])(
    'that is none is left out: %j',
    (line) => {
      expect(parseMountinfo(line)).toEqual([]);
    },
  );
});

test('lines keep their order', () => {
  const lines = ['1 0 8:1 / / rw - ext4 /dev/sda1 rw', '2 1 0:5 / /a rw - tmpfs a rw', '3 2 0:6 / /a rw - tmpfs b rw'];
  expect(parseMountinfo(lines.join('\n')).map(({ source }) => source)).toEqual(['/dev/sda1', 'a', 'b']);
});

test("this machine's own", () => {
  expect(readMounts().length).toBeGreaterThan(0);
  expect(mountAt('/proc')?.type).toBe('proc');
  expect(mountAt('/nowhere/at/all')).toBe(undefined);
});
