import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CowfsError } from '../../src/lib/error.ts';
import { formatBytes, formatDuration, parseDuration, parseSize } from '../../src/lib/units.ts';

function refusalOf(act: () => unknown): string {
  try {
    return `gave ${String(act())}`;
  } catch (error) {
    return error instanceof CowfsError ? `${error.kind}: ${error.message}` : `threw ${String(error)}`;
  }
}

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['512', 512],
    ['1K', 1024],
    ['1k', 1024],
    ['64K', 65_536],
    ['64KiB', 65_536],
    ['64KB', 65_536],
    ['64kib', 65_536],
    ['10 M', 10_485_760],
    [' 20G ', 21_474_836_480],
    ['1.5T', 1_649_267_441_664],
    ['0.5K', 512],
    ['7P', 7_881_299_347_898_368],
    ['130000B', 130_000],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    // Whole bytes only.
    ['1.0001K', 1024],
  ])('%s is %i bytes', (text, bytes) => {
    expect(parseSize(text, '--size')).toBe(bytes);
  });

  test.each(['', ' ', 'G', '-1', '+1', '1e3', '0x10', '1.', '.5G', '1,5G', '1GG', '1 G B', '1X', '8P5', 'NaN', '1K2'])(
    '%j is none',
    (text) => {
      expect(refusalOf(() => parseSize(text, '--size'))).toBe(
        `usage: --size ${text}: not a size; write bytes or a number with K, M, G, T, such as 20G`,
      );
    },
  );

  test.each(['9007199254740992', '8P', '9999999999999999999999', '1e400'])(
    '%s is beyond what counts exactly',
    (text) => {
      expect(refusalOf(() => parseSize(text, '--max-store'))).toMatch(/^usage: --max-store /);
    },
  );
});

describe('times', () => {
  test.each([
    ['0', 0],
    ['30', 30_000],
    ['500ms', 500],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['1h', 3_600_000],
    [' 2s ', 2000],
    ['2147483647ms', 2_147_483_647],
  ])('%s is %i ms', (text, milliseconds) => {
    expect(parseDuration(text, '--timeout')).toBe(milliseconds);
  });

  test.each(['', 's', '-1', '1 h', '1d', '5M', '1e3', '0x1', '1h30m', '2147483648ms', '597h'])('%j is none', (text) => {
    expect(refusalOf(() => parseDuration(text, '--timeout'))).toBe(
      `usage: --timeout ${text}: not a time; write seconds or 500ms, 30s, 5m, 1h`,
    );
  });
});

describe('what people read', () => {
  test.each([
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [4096, '4.0 KiB'],
    [130_000, '127.0 KiB'],
    [2 ** 20, '1.0 MiB'],
    [1.5 * 2 ** 30, '1.5 GiB'],
    [2 ** 43, '8.0 TiB'],
    [2 ** 52, '4.0 PiB'],
    [2 ** 63, '8192.0 PiB'],
  ])('%i bytes: %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  test('never more than a thousand and some of one unit', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.integer({ min: 0, max: 2 ** 53 - 1 }),
          // Just below a unit.
          fc
            .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 40 }))
            .map(([unit, by]) => 1024 ** unit - by),
        ),
        (bytes) => {
          const text = formatBytes(bytes);
          expect(text).toMatch(/^\d{1,4}(\.\d)? (B|[KMGTP]iB)$/);
          expect(text).not.toMatch(/^1024/);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('a size that is written can be read again', () => {
    for (const bytes of [0, 1023, 1024, 1536, 2 ** 20, 1.5 * 2 ** 30, 2 ** 43]) {
      expect(parseSize(formatBytes(bytes), '--size')).toBe(bytes);
    }
  });

  test.each([
    [0, '0 s'],
    [999, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [3_599_999, '59 min'],
    [3_600_000, '1 h 0 min'],
    [18_600_000, '5 h 10 min'],
    [172_799_999, '47 h 59 min'],
    [172_800_000, '2 d 0 h'],
    [183_600_000, '2 d 3 h'],
  ])('%i ms: %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });
});
