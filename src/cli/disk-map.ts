/**
 * Draws a disk for the terminal: a grid of cells, filled by how much of each cell's range was written, rulers below
 * the rows in which partitions begin or end, a legend, a list of the partitions, and the total. Pure; called by
 * `cowfs diff --map`, which knows the window. Left out on purpose: one colour a partition, because colour is fullness.
 */
import type { Partition } from '../base/partition.ts';
import { formatBytes } from '../lib/units.ts';
import { listPartitions } from './partition-list.ts';

export interface MapInput {
  readonly sizeBytes: number;
  /** What was written, in bytes: ascending, without overlaps. Iterated once. */
  readonly ranges: Iterable<{ readonly offset: number; readonly length: number }>;
  /** Within the disk; they may overlap. */
  readonly partitions: readonly Partition[];
}

export interface MapStyle {
  /** Width of the window; taken for at least 20. */
  readonly columns: number;
  /** Height of the window, one row of which is left to the prompt. A window of fewer than 16 may be overrun. */
  readonly rows: number;
  /** In bits, as `tty.WriteStream.getColorDepth` says: 1 (none), 4, 8 or 24. */
  readonly colorDepth: number;
  readonly unicode: boolean;
}

const MIN_COLUMNS = 20;
/** Whoever says that the window is larger means that there is none. */
const MAX_COLUMNS = 1000;
const MAX_ROWS = 500;

/** Longest that formatBytes gives, as in `1023.9 MiB`. */
const OFFSET_COLUMNS = 10;
/** From here on a row has a multiple of 8 cells, so that offsets of rows come out round. */
const ROUND_CELLS = 16;

/** A grid of fewer rows shows nothing; where the window has none, the picture is higher than the window. */
const MIN_GRID_ROWS = 4;
const MIN_LIST_ROWS = 4;
/** The legend, the total, and the shell's prompt after it. */
const OTHER_ROWS = 3;

/** No program writes less than a sector. */
const MIN_CELL_BYTES = 512;

interface Glyphs {
  /** Nothing written, less than a third (if only a byte), less than two, not all, all. */
  readonly fullness: readonly [string, string, string, string, string];
  /** Below the first and the last cell of a partition, and below one in which some begin and some end. */
  readonly begins: string;
  readonly ends: string;
  readonly both: string;
}

const UNICODE: Glyphs = { fullness: ['·', '░', '▒', '▓', '█'], begins: '└', ends: '┘', both: '┴' };
const ASCII: Glyphs = { fullness: ['.', ':', '+', '#', '@'], begins: '[', ends: ']', both: '|' };

const NOTHING = 0;
const ALL = 4;

/**
 * For the steps from a trace to all. Of middling lightness: each stands out (3:1, WCAG 2.1, 1.4.11) from black and from
 * white, and carries white characters; the palette's sixteen are as the terminal has them.
 */
const HUES = [
  { rgb: [40, 120, 200], xterm: 32, ansi: 6 },
  { rgb: [128, 90, 205], xterm: 98, ansi: 4 },
  { rgb: [200, 60, 140], xterm: 162, ansi: 5 },
  { rgb: [225, 75, 40], xterm: 202, ansi: 1 },
] as const;
const WHITE = { rgb: [255, 255, 255], xterm: 231, ansi: 7 } as const;

const RESET = '\x1b[0m';

/** The picture with its lines' ends; no line is wider than `columns`. Takes time for ranges and cells. */
export function drawDiskMap(input: MapInput, style: MapStyle): string {
  const columns = clamp(style.columns, MIN_COLUMNS, MAX_COLUMNS);
  const rows = clamp(style.rows, 1, MAX_ROWS);
  const glyphs = style.unicode ? UNICODE : ASCII;
  const paint = painter(glyphs, style);

  const listRows = Math.min(input.partitions.length, Math.max(MIN_LIST_ROWS, rows - OTHER_ROWS - 2 * MIN_GRID_ROWS));
  const grid = fitGrid(input, columns - OFFSET_COLUMNS - 1, rows - OTHER_ROWS - listRows);
  const written = measure(input, grid);

  return [
    ...gridLines(input, grid, written, { glyphs, paint, columns }),
    ...(input.sizeBytes > 0 ? [legend(grid, columns, glyphs, paint)] : []),
    ...listPartitions(input.partitions, written.before, { columns, rows: listRows, unicode: style.unicode }),
    firstThatFits(columns, [
      `${formatBytes(written.totalBytes)} of ${formatBytes(input.sizeBytes)} written`,
      `${formatBytes(written.totalBytes)} written`,
    ]),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

function clamp(value: number, min: number, max: number): number {
  return Math.max(min, Math.min(max, Math.floor(value)));
}

interface Grid {
  readonly cellBytes: number;
  readonly cellsPerRow: number;
  readonly rows: number;
  /** Of the whole disk; the last may have less of it than the others. */
  readonly cells: number;
}

/** The finest grid that has room, together with the rulers that it needs. */
function fitGrid({ sizeBytes, partitions }: MapInput, columns: number, roomRows: number): Grid {
  const cellsPerRow = columns < ROUND_CELLS ? columns : columns - (columns % 8);
  let rows = Math.max(roomRows, MIN_GRID_ROWS);
  for (;;) {
    const cellBytes = roundedUp(Math.ceil(sizeBytes / (cellsPerRow * rows)));
    const cells = Math.ceil(sizeBytes / cellBytes);
    const grid = { cellBytes, cellsPerRow, rows: Math.ceil(cells / cellsPerRow), cells };
    const excessRows = grid.rows + marksByRow(partitions, grid).size - roomRows;
    if (excessRows <= 0 || rows === MIN_GRID_ROWS) return grid;
    // A row that goes takes its ruler along.
    rows = Math.max(MIN_GRID_ROWS, grid.rows - Math.ceil(excessRows / 2));
  }
}

/** To three binary digits, so that few offsets need rounding; and to whole sectors. */
function roundedUp(bytes: number): number {
  const step = Math.max(MIN_CELL_BYTES, 2 ** (Math.floor(Math.log2(bytes)) - 2));
  return Math.max(1, Math.ceil(bytes / step)) * step;
}

interface Written {
  readonly totalBytes: number;
  /** Bytes by cell. */
  readonly cells: Float64Array;
  /** Bytes before each offset at which a partition begins or ends. */
  readonly before: ReadonlyMap<number, number>;
}

/** One pass over the ranges, whatever the number of partitions. */
function measure({ sizeBytes, ranges, partitions }: MapInput, { cellBytes, cells }: Grid): Written {
  const byCell = new Float64Array(cells);
  const before = new Map<number, number>();
  const offsets = [...new Set(partitions.flatMap(({ startBytes, endBytes }) => [startBytes, endBytes]))];
  offsets.sort((a, b) => a - b);
  let passed = 0;
  let totalBytes = 0;
  for (const { offset, length } of ranges) {
    const end = Math.min(offset + length, sizeBytes);
    if (offset >= end) continue;
    for (let next = offsets[passed]; next !== undefined && next < end; next = offsets[passed]) {
      before.set(next, totalBytes + Math.max(0, next - offset));
      passed += 1;
    }
    totalBytes += end - offset;
    for (let from = offset; from < end; ) {
      const cell = Math.floor(from / cellBytes);
      const to = Math.min(end, (cell + 1) * cellBytes);
      byCell[cell] = (byCell[cell] ?? 0) + to - from;
      from = to;
    }
  }
  for (const offset of offsets.slice(passed)) before.set(offset, totalBytes);
  return { totalBytes, cells: byCell, before };
}

/** A step of fullness, `count` times over, with its colours. */
type Paint = (step: number, count: number) => string;

function painter(glyphs: Glyphs, { colorDepth, unicode }: MapStyle): Paint {
  return (step, count) => {
    const text = (glyphs.fullness[step] ?? '').repeat(count);
    const hue = HUES[step - 1];
    // A dot in the terminal's own colours is legible on any.
    if (colorDepth < 4 || hue === undefined) return text;
    // What a block leaves of its cell has the hue of the step before: a shade between both. Letters need contrast.
    const below = step === ALL ? hue : (HUES[step - 2] ?? hue);
    const [ink, ground] = unicode ? [hue, below] : [WHITE, hue];
    return `\x1b[${colour(3, ink, colorDepth)};${colour(4, ground, colorDepth)}m${text}${RESET}`;
  };
}

/** Parameters of SGR (console_codes(4), ISO 8613-6). */
function colour(layer: 3 | 4, hue: (typeof HUES)[number] | typeof WHITE, colorDepth: number): string {
  if (colorDepth >= 24) return `${layer}8;2;${hue.rgb.join(';')}`;
  return colorDepth >= 8 ? `${layer}8;5;${hue.xterm}` : `${layer}${hue.ansi}`;
}

function stepOf(writtenBytes: number, cellBytes: number): number {
  if (writtenBytes <= 0) return NOTHING;
  return writtenBytes >= cellBytes ? ALL : 1 + Math.floor((writtenBytes * (ALL - 1)) / cellBytes);
}

interface Pen {
  readonly glyphs: Glyphs;
  readonly paint: Paint;
  readonly columns: number;
}

function gridLines({ sizeBytes, partitions }: MapInput, grid: Grid, written: Written, pen: Pen): string[] {
  const { cellBytes, cellsPerRow, cells } = grid;
  const marks = marksByRow(partitions, grid);
  return Array.from({ length: grid.rows }, (_, row) => {
    const first = row * cellsPerRow;
    const steps = Array.from(written.cells.subarray(first, Math.min(first + cellsPerRow, cells)), (bytes, index) =>
      stepOf(bytes, Math.min(cellBytes, sizeBytes - (first + index) * cellBytes)),
    );
    const line = `${formatBytes(first * cellBytes).padStart(OFFSET_COLUMNS)} ${paintRuns(steps, pen.paint)}`;
    const marked = marks.get(row);
    return marked === undefined ? [line] : [line, `${' '.repeat(OFFSET_COLUMNS + 1)}${ruler(marked, pen)}`];
  }).flat();
}

function paintRuns(steps: readonly number[], paint: Paint): string {
  let line = '';
  for (let from = 0; from < steps.length; ) {
    const step = steps[from] as number;
    let to = from + 1;
    while (steps[to] === step) to += 1;
    line += paint(step, to - from);
    from = to;
  }
  return line;
}

/** What is below one cell: the partitions that begin in it, and whether any ends in it. */
interface Mark {
  readonly begin: number[];
  ends: boolean;
}

/** Rows in which partitions begin or end, and their marks by column. */
function marksByRow(partitions: readonly Partition[], grid: Grid): Map<number, Map<number, Mark>> {
  const rows = new Map<number, Map<number, Mark>>();
  const markAt = (offset: number): Mark => {
    const cell = Math.floor(offset / grid.cellBytes);
    const row = Math.floor(cell / grid.cellsPerRow);
    const marks = rows.get(row) ?? new Map<number, Mark>();
    rows.set(row, marks);
    const mark = marks.get(cell % grid.cellsPerRow) ?? { begin: [], ends: false };
    marks.set(cell % grid.cellsPerRow, mark);
    return mark;
  };
  for (const { number, startBytes, endBytes } of partitions) {
    markAt(startBytes).begin.push(number);
    markAt(endBytes - 1).ends = true;
  }
  return rows;
}

/** The marks below a row, each with the numbers of what begins there as far as the next leaves room. */
function ruler(marks: ReadonlyMap<number, Mark>, { glyphs, columns }: Pen): string {
  const ascending = [...marks].sort(([a], [b]) => a - b);
  let line = '';
  for (const [index, [column, { begin, ends }]] of ascending.entries()) {
    const room = (ascending[index + 1]?.[0] ?? columns - OFFSET_COLUMNS - 1) - column - 1;
    const glyph = begin.length === 0 ? glyphs.ends : ends ? glyphs.both : glyphs.begins;
    const numbers = [begin.join(','), ...(begin.length > 1 ? [`${begin[0]}+`, '+'] : [])];
    line = line.padEnd(column) + glyph + (numbers.find((text) => text.length <= room) ?? '');
  }
  return line;
}

function legend({ cellBytes }: Grid, columns: number, glyphs: Glyphs, paint: Paint): string {
  const texts = (swatch: (step: number) => string): string[] => {
    const [nothing, some, all] = [swatch(NOTHING), [1, 2, 3].map(swatch).join(''), swatch(ALL)];
    return [
      `a cell is ${formatBytes(cellBytes)}: ${nothing} nothing  ${some} part  ${all} all written`,
      `${nothing} nothing  ${some} part  ${all} all`,
      `${nothing}none ${some}part ${all}all`,
    ];
  };
  const plain = texts((step) => glyphs.fullness[step] ?? '');
  return texts((step) => paint(step, 1))[plain.indexOf(firstThatFits(columns, plain))] ?? '';
}

/** The last is cut where none fits. */
function firstThatFits(columns: number, texts: readonly string[]): string {
  return texts.find((text) => text.length <= columns) ?? (texts.at(-1) ?? '').slice(0, columns);
}
