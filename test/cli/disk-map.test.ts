import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Partition } from '../../src/base/partition.ts';
import { drawDiskMap, type MapInput, type MapStyle } from '../../src/cli/disk-map.ts';
import { formatBytes } from '../../src/lib/units.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;

const PLAIN: MapStyle = { columns: 40, rows: 14, colorDepth: 1, unicode: true };

function partition(number: number, startBytes: number, endBytes: number, label = 'Linux'): Partition {
  return { number, startBytes, endBytes, label };
}

function linesOf(picture: string): string[] {
  expect(picture.endsWith('\n')).toBe(true);
  return picture.slice(0, -1).split('\n');
}

/** Without colours. */
function stripped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what colours begin with
  return text.replace(/\x1b\[[\d;]*m/g, '');
}

/** Columns in the terminal, for the characters that the tests use. */
function widthOf(line: string): number {
  return [...stripped(line)].reduce(
    (sum, character) => sum + (/[\u3000-\u9fff\u{1f000}-\u{1ffff}]/u.test(character) ? 2 : 1),
    0,
  );
}

/** All cells, one after the other. */
function cellsOf(picture: string): string {
  return linesOf(stripped(picture))
    .flatMap((line) => /^[ \d.]{6,} (?:B|[KMGTP]iB) ([·░▒▓█.:+#@]+)$/.exec(line)?.[1] ?? [])
    .join('');
}

const SMALL: MapInput = {
  sizeBytes: 64 * KIB,
  ranges: [
    { offset: 0, length: 1 },
    { offset: 512, length: 171 },
    { offset: 1024, length: 342 },
    { offset: 1536, length: 511 },
    { offset: 2048, length: 1024 },
    { offset: 20_000, length: 20_000 },
    { offset: 65_535, length: 1 },
  ],
  partitions: [
    partition(1, 1024, 16_384, 'EFI System'),
    partition(2, 16_384, 40_000, 'root'),
    partition(5, 50_000, 50_001),
    partition(6, 50_100, 65_536),
  ],
};

describe('exactly', () => {
  test('with unicode', () => {
    expect(linesOf(drawDiskMap(SMALL, { ...PLAIN, columns: 60, rows: 20 }))).toEqual([
      '       0 B ░▒▓▓██·································▓████████',
      '             └1                           ┘└2',
      '  24.0 KiB ██████████████████████████████░·················',
      '                                         ┘',
      '  48.0 KiB ·······························░',
      '            ┴5,6                          ┘',
      'a cell is 512 B: · nothing  ░▒▓ part  █ all written',
      '1   1.0 KiB - 16.0 KiB  EFI System   1.8 KiB written',
      '2  16.0 KiB - 39.1 KiB  root        19.5 KiB written',
      '5  48.8 KiB - 48.8 KiB  Linux            0 B written',
      '6  48.9 KiB - 64.0 KiB  Linux            1 B written',
      '21.5 KiB of 64.0 KiB written',
    ]);
  });

  test('in ASCII', () => {
    expect(linesOf(drawDiskMap(SMALL, { ...PLAIN, columns: 60, rows: 20, unicode: false }))).toEqual([
      '       0 B :+##@@.................................#@@@@@@@@',
      '             [1                           ][2',
      '  24.0 KiB @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@:.................',
      '                                         ]',
      '  48.0 KiB ...............................:',
      '            |5,6                          ]',
      'a cell is 512 B: . nothing  :+# part  @ all written',
      '1   1.0 KiB - 16.0 KiB  EFI System   1.8 KiB written',
      '2  16.0 KiB - 39.1 KiB  root        19.5 KiB written',
      '5  48.8 KiB - 48.8 KiB  Linux            0 B written',
      '6  48.9 KiB - 64.0 KiB  Linux            1 B written',
      '21.5 KiB of 64.0 KiB written',
    ]);
  });

  test('in a narrow window: rows below each other, and the list without what has no room', () => {
    expect(linesOf(drawDiskMap(SMALL, { ...PLAIN, columns: 20, rows: 20 }))).toEqual([
      '       0 B ░▓█······',
      '            └1',
      '   9.0 KiB ·········',
      '                 ┘└2',
      '  18.0 KiB ·▒███████',
      '  27.0 KiB █████████',
      '  36.0 KiB ███░·····',
      '              ┘',
      '  45.0 KiB ·········',
      '              ┴5,6',
      '  54.0 KiB ·········',
      '  63.0 KiB ░',
      '           ┘',
      '·none ░▒▓part █all',
      '1   1.8 KiB written',
      '2  19.5 KiB written',
      '5       0 B written',
      '6       1 B written',
      '21.5 KiB written',
    ]);
  });

  test('in colour, by what the terminal has', () => {
    const input = { ...SMALL, sizeBytes: 4096, partitions: [] };
    const run = (sgr: string, text: string): string => `\x1b[${sgr}m${text}\x1b[0m`;
    expect(linesOf(drawDiskMap(input, { ...PLAIN, colorDepth: 24 }))[0]).toBe(
      `       0 B ${run('38;2;40;120;200;48;2;40;120;200', '░')}${run('38;2;128;90;205;48;2;40;120;200', '▒')}` +
        `${run('38;2;200;60;140;48;2;128;90;205', '▓▓')}${run('38;2;225;75;40;48;2;225;75;40', '██')}··`,
    );
    expect(linesOf(drawDiskMap(input, { ...PLAIN, colorDepth: 8, unicode: false }))[0]).toBe(
      `       0 B ${run('38;5;231;48;5;32', ':')}${run('38;5;231;48;5;98', '+')}` +
        `${run('38;5;231;48;5;162', '##')}${run('38;5;231;48;5;202', '@@')}..`,
    );
    expect(linesOf(drawDiskMap(input, { ...PLAIN, colorDepth: 4, columns: 20 }))).toEqual([
      `       0 B ${run('36;46', '░')}${run('34;46', '▒')}${run('35;44', '▓▓')}${run('31;41', '██')}··`,
      `·none ${run('36;46', '░')}${run('34;46', '▒')}${run('35;44', '▓')}part ${run('31;41', '█')}all`,
      '2.0 KiB written',
    ]);
  });

  test('nothing to show, one block, one byte', () => {
    const legend = '· nothing  ░▒▓ part  █ all\n';
    const ranges = [{ offset: 0, length: 512 }];
    expect(drawDiskMap({ sizeBytes: 0, ranges: [], partitions: [] }, PLAIN)).toBe('0 B of 0 B written\n');
    expect(drawDiskMap({ sizeBytes: 512, ranges, partitions: [] }, PLAIN)).toBe(
      `       0 B █\n${legend}512 B of 512 B written\n`,
    );
    expect(drawDiskMap({ sizeBytes: 1, ranges: [], partitions: [] }, PLAIN)).toBe(
      `       0 B ·\n${legend}0 B of 1 B written\n`,
    );
  });
});

describe('the window', () => {
  const LABELS = ['EFI System', '\x1b[31m\nred', '日本語のパーティション名', '💾'.repeat(18), 'x'.repeat(36), ''];

  function diskOf(sizeBytes: number, count: number): MapInput {
    return {
      sizeBytes,
      ranges: [{ offset: 0, length: sizeBytes / 3 }],
      partitions: Array.from({ length: count }, (_, index) =>
        partition(
          index + 1,
          Math.floor((sizeBytes * index) / count),
          Math.floor((sizeBytes * (index + 1)) / count),
          LABELS[index % LABELS.length],
        ),
      ),
    };
  }

  test('is never too narrow, from 20 columns on', () => {
    const disks = [diskOf(512, 1), diskOf(64 * KIB, 40), diskOf(1000 * MIB, 6), diskOf(8 * TIB - 512, 130)];
    const looks = [
      { colorDepth: 1, unicode: false },
      { colorDepth: 1, unicode: true },
      { colorDepth: 24, unicode: true },
    ];
    for (let columns = 20; columns <= 200; columns += 1) {
      for (const disk of disks) {
        for (const look of looks) {
          const lines = linesOf(drawDiskMap(disk, { columns, rows: 24, ...look }));
          expect(Math.max(...lines.map(widthOf)), lines.join('\n')).toBeLessThanOrEqual(columns);
        }
      }
    }
  });

  test('is filled, but for a row for the prompt', () => {
    for (let rows = 16; rows <= 100; rows += 1) {
      for (const count of [0, 1, 4, 12, 60]) {
        for (const columns of [20, 80, 400]) {
          const lines = linesOf(drawDiskMap(diskOf(TIB + 512, count), { ...PLAIN, columns, rows }));
          expect(lines.length, `${rows} rows, ${count} partitions`).toBeLessThan(rows);
          // Cells grow by quarters at most, and so may rulers go.
          expect(lines.length, `${rows} rows, ${count} partitions`).toBeGreaterThan(rows / 2);
        }
      }
    }
  });

  test.each([
    [1, 1],
    [0, 0],
    [20, 5],
    [-1, -1],
  ])('of %d columns and %d rows has a few of each all the same', (columns, rows) => {
    const lines = linesOf(drawDiskMap(diskOf(GIB, 3), { ...PLAIN, columns, rows }));
    expect(lines.filter((line) => /[·█]{2}/.test(line)).length).toBeGreaterThanOrEqual(3);
    expect(lines.slice(-4, -1).map((line) => line.slice(0, 3))).toEqual(['1  ', '2  ', '3  ']);
  });

  test('without bounds', () => {
    const lines = linesOf(drawDiskMap(diskOf(8 * TIB, 3), { ...PLAIN, columns: Infinity, rows: Infinity }));
    expect(lines.length).toBeLessThan(501);
    expect(Math.max(...lines.map(widthOf))).toBeLessThan(1001);
  });

  test('has room for some partitions only: those written to', () => {
    const input = diskOf(GIB, 130);
    const written = {
      ...input,
      ranges: [
        { offset: 0, length: 1 },
        { offset: GIB - 1, length: 1 },
      ],
    };
    const lines = linesOf(drawDiskMap(written, { ...PLAIN, columns: 100, rows: 24 }));
    const list = lines.slice(lines.findIndex((line) => line.startsWith('a cell')) + 1, -2);
    expect(list[0]).toMatch(/^ {2}1 .* 1 B written$/);
    expect(list.at(-1)).toMatch(/^130 .* 1 B written$/);
    expect(lines.at(-2)).toBe(`and ${130 - list.length} more`);
  });

  test('of a usual size: rows begin at round offsets', () => {
    const lines = linesOf(drawDiskMap(diskOf(10 * GIB, 0), { ...PLAIN, columns: 80, rows: 24 }));
    expect(lines.slice(0, 4).map((line) => line.slice(0, 10))).toEqual([
      '       0 B',
      ' 512.0 MiB',
      '   1.0 GiB',
      '   1.5 GiB',
    ]);
  });
});

describe('fullness', () => {
  const sizes = fc.oneof(
    fc.integer({ min: 1, max: 100_000 }),
    fc.integer({ min: 1, max: 8 * TIB }),
    fc.constantFrom(512, 8 * TIB),
  );
  const window = fc.record({
    columns: fc.integer({ min: 20, max: 200 }),
    rows: fc.integer({ min: 1, max: 60 }),
    colorDepth: fc.constantFrom(1, 4, 8, 24),
    unicode: fc.boolean(),
  });

  test('one byte is seen where it is, on a disk of whatever size', () => {
    const place = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(sizes, place, window, (sizeBytes, at, style) => {
        const offset = Math.floor(sizeBytes * at);
        const ranges = [{ offset, length: 1 }];
        const cells = cellsOf(drawDiskMap({ sizeBytes, ranges, partitions: [] }, style));
        const seen = [...cells.matchAll(/[^·.]/g)];
        expect(seen).toHaveLength(1);
        // The last cell may have less of the disk than the others; of three bytes or fewer, one is a third at least.
        const index = seen[0]?.index ?? -1;
        const restBytes = sizeBytes % 512;
        const isTiny = index === cells.length - 1 && restBytes >= 1 && restBytes <= 3;
        if (!isTiny) expect(seen[0]?.[0]).toMatch(/[░:]/);
        expect(offset).toBeGreaterThanOrEqual(index * (sizeBytes / cells.length));
        if (cells.length > 1) expect(offset).toBeLessThan((index + 1) * (sizeBytes / (cells.length - 1)));
      }),
      { numRuns: 300 },
    );
  });

  test('one byte is all of a last cell that has no more', () => {
    const map = { sizeBytes: 167 * 512 + 1, ranges: [{ offset: 167 * 512, length: 1 }], partitions: [] };
    expect(cellsOf(drawDiskMap(map, PLAIN))).toBe(`${'·'.repeat(167)}█`);
  });

  test('one byte that is missing is seen as well', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 8 * TIB }), window, (sizeBytes, style) => {
        const ranges = [{ offset: 1, length: sizeBytes - 1 }];
        const cells = cellsOf(drawDiskMap({ sizeBytes, ranges, partitions: [] }, style));
        expect(cells).toMatch(sizeBytes > 512 ? /^[▓#][█@]*$/ : /^[▒▓+#]$/);
      }),
    );
  });

  /** Gaps and lengths, one after the other. */
  const ranges = fc.array(fc.tuple(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 0, max: 3000 })), {
    maxLength: 100,
  });

  test('each cell, each partition and the total say what the ranges sum up to', () => {
    fc.assert(
      fc.property(
        ranges,
        fc.array(fc.tuple(fc.nat({ max: 200_000 }), fc.integer({ min: 1, max: 200_000 })), { maxLength: 4 }),
        fc.integer({ min: 0, max: 10_000 }),
        window,
        (steps, places, rest, style) => {
          const written: { offset: number; length: number }[] = [];
          let end = 0;
          for (const [gap, length] of steps) {
            written.push({ offset: end + gap, length });
            end += gap + length;
          }
          const sizeBytes = end + rest;
          const partitions = places
            .map(([start, length], index) => partition(index + 1, start, Math.min(start + length, sizeBytes)))
            .filter(({ startBytes }) => startBytes < sizeBytes);
          const within = (from: number, to: number): number =>
            written.reduce(
              (sum, { offset, length }) => sum + Math.max(0, Math.min(to, offset + length) - Math.max(from, offset)),
              0,
            );
          // Once only, as of a generator.
          const input = { sizeBytes, ranges: written.values(), partitions };
          const picture = drawDiskMap(input, { ...style, columns: Math.max(style.columns, 60) });
          const lines = linesOf(stripped(picture));

          expect(lines.at(-1)).toBe(`${formatBytes(within(0, sizeBytes))} of ${formatBytes(sizeBytes)} written`);
          for (const { number, startBytes, endBytes } of partitions) {
            const line = lines.find((text) => new RegExp(`^${number} .* written$`).test(text));
            expect(line).toMatch(new RegExp(` ${formatBytes(within(startBytes, endBytes))} written$`));
          }
          const cells = [...cellsOf(picture)];
          const cellText = lines.find((line) => line.startsWith('a cell is '))?.match(/([\d.]+) (B|KiB):/);
          const cellBytes = cells.length === 0 ? 0 : Number(cellText?.[1]) * (cellText?.[2] === 'B' ? 1 : 1024);
          expect(cells).toEqual(
            Array.from({ length: cells.length }, (_, index) => {
              const [from, to] = [index * cellBytes, Math.min((index + 1) * cellBytes, sizeBytes)];
              const bytes = within(from, to);
              const step = bytes === 0 ? 0 : bytes === to - from ? 4 : 1 + Math.floor((bytes * 3) / (to - from));
              return (style.unicode ? '·░▒▓█' : '.:+#@')[step];
            }),
          );
          expect(cells.length === 0 ? 0 : Math.ceil(sizeBytes / cellBytes)).toBe(cells.length);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('partitions', () => {
  /** Rulers of a disk of 24 cells; places are in cells, such as `2.5-4 8-20`. */
  function rulersOf(places: string, columns = 36): string[] {
    const partitions = places.split(' ').map((place, index) => {
      const [start = 0, end = 0] = place.split('-').map((cells) => Number(cells) * 512);
      return partition(index + 1, start, end);
    });
    const lines = linesOf(drawDiskMap({ sizeBytes: 24 * 512, ranges: [], partitions }, { ...PLAIN, columns }));
    return lines.filter((line) => /[└┘┴]/.test(line)).map((line) => line.slice(11));
  }

  test.each([
    ['from end to end', '0-24', '└1                     ┘'],
    ['one cell', '3-4', '   ┴1'],
    ['next to each other', '2-8 8-20', '  └1   ┘└2         ┘'],
    ['limits inside of cells', '2.5-8.5 8.5-20.5', '  └1    ┴2          ┘'],
    ['one in another', '2-20 2.5-10', '  └1,2   ┘         ┘'],
    ['no room for the numbers', '2-20 2.5-10 4-5 5-6', '  └+┴┴4  ┘         ┘'],
    ['room for one number', '2-20 2.5-10 2.6-10 5-6', '  └1+┴4  ┘         ┘'],
    ['in the last cell', '0-24 23.5-24', '└1                     ┴2'],
    ['outside of the disk: not drawn, and no harm', '30-40 3-40', '   └2'],
  ])('%s', (_, places, expected) => {
    expect(rulersOf(places)).toEqual([expected]);
  });

  test('the last cell has no room for a number where the window ends with it', () => {
    expect(rulersOf('0-24 23.5-24', 35)).toEqual(['└1                     ┴']);
  });

  test.each([
    [
      'colours and cursor',
      '\x1b[31m\x1b[2J\r\n\t\x07\x7f\x9b',
      true,
      '\\x1b[31m\\x1b[2J\\x0d\\x0a\\x09\\x07\\x7f\\x9b',
    ],
    ['direction and joiners', 'a\u202eb\u2066c\u200dd\ufeff', true, 'a\\u{202e}b\\u{2066}c\\u{200d}d\\u{feff}'],
    ['lines of unicode', 'a\u2028b\u2029', true, 'a\\u{2028}b\\u{2029}'],
    ['halves of characters', 'a\ud800b\udc00', true, 'a\\u{d800}b\\u{dc00}'],
    ['letters', 'Größe 日本', true, 'Größe 日本'],
    ['letters without unicode', 'Größe 日本💾', false, 'Gr\\xf6\\xdfe \\u{65e5}\\u{672c}\\u{1f4be}'],
  ])('a label with %s', (_, label, unicode, shown) => {
    const input = { sizeBytes: MIB, ranges: [], partitions: [partition(1, 0, MIB, label)] };
    const picture = drawDiskMap(input, { ...PLAIN, columns: 120, unicode });
    expect(linesOf(picture).at(-2)).toBe(`1  0 B - 1.0 MiB  ${shown}  0 B written`);
  });

  test.each([
    [60, '1  0 B - 1.0 MiB  日本語のパーティション  0 B written'],
    [53, '1  0 B - 1.0 MiB  日本語のパーティション  0 B written'],
    [51, '1  0 B - 1.0 MiB  日本語のパーティシ…   0 B written'],
    [39, '1  0 B - 1.0 MiB  日本語…   0 B written'],
    [38, '1  日本語のパーティション  0 B written'],
    [20, '1  0 B written'],
  ])('in %d columns', (columns, expected) => {
    const label = '日本語のパーティション';
    const input = { sizeBytes: MIB, ranges: [], partitions: [partition(1, 0, MIB, label)] };
    expect(linesOf(drawDiskMap(input, { ...PLAIN, columns })).at(-2)).toBe(expected);
  });
});

test('colours stand out from black and from white', () => {
  const picture = drawDiskMap(SMALL, { ...PLAIN, columns: 60, colorDepth: 24, unicode: false });
  const grounds = new Set([...picture.matchAll(/48;2;(\d+);(\d+);(\d+)m/g)].map((match) => match.slice(1).join(' ')));
  expect(grounds.size).toBe(4);
  for (const ground of grounds) {
    // Relative luminance, WCAG 2.1.
    const [red = 0, green = 0, blue = 0] = ground
      .split(' ')
      .map((value) => Number(value) / 255)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    expect((luminance + 0.05) / 0.05, ground).toBeGreaterThan(3);
    expect(1.05 / (luminance + 0.05), ground).toBeGreaterThan(3);
  }
});

test('takes time for ranges and cells alone', () => {
  function* million(): Generator<{ offset: number; length: number }> {
    for (let index = 0; index < 1_000_000; index += 1) yield { offset: index * 8 * MIB, length: 4096 };
  }
  const sizeBytes = 8 * TIB;
  const partitions = Array.from({ length: 8192 }, (_, index) =>
    partition(index + 1, index * GIB, index % 2 === 0 ? (index + 1) * GIB : sizeBytes),
  );
  const before = performance.now();
  const picture = drawDiskMap({ sizeBytes, ranges: million(), partitions }, { ...PLAIN, columns: 400, rows: 500 });
  expect(linesOf(picture).at(-1)).toBe('3.8 GiB of 8.0 TiB written');
  // 50 ms; a pass over the ranges for each partition would take minutes.
  expect(performance.now() - before).toBeLessThan(5000);
});
