/**
 * The list of partitions below the picture of a disk, as wide as the window. Pure. Names come from inside of the disk.
 */
import type { Partition } from '../base/partition.ts';
import { formatBytes } from '../lib/units.ts';

/** A label cut to less says nothing. */
const MIN_LABEL_COLUMNS = 8;

export interface ListStyle {
  readonly columns: number;
  readonly rows: number;
  readonly unicode: boolean;
}

/**
 * A line for each; where there is no room for all, those that were not written to go first.
 *
 * @param before bytes written before each offset at which a partition begins or ends
 */
export function listPartitions(
  partitions: readonly Partition[],
  before: ReadonlyMap<number, number>,
  style: ListStyle,
): string[] {
  const lines = partitions.map(({ number, startBytes, endBytes, label }) => ({
    number: `${number}`,
    start: formatBytes(startBytes),
    end: formatBytes(endBytes),
    label: printable(label, style.unicode),
    writtenBytes: (before.get(endBytes) ?? 0) - (before.get(startBytes) ?? 0),
  }));
  if (lines.length <= style.rows) return alignedLines(lines, style);
  const kept = new Set([...lines].sort((a, b) => b.writtenBytes - a.writtenBytes).slice(0, style.rows - 1));
  return [
    ...alignedLines(
      lines.filter((line) => kept.has(line)),
      style,
    ),
    `and ${lines.length - kept.size} more`,
  ];
}

interface ListLine {
  readonly number: string;
  readonly start: string;
  readonly end: string;
  readonly label: string;
  readonly writtenBytes: number;
}

/** All lines alike: the label is cut first, then the offsets go, which the rulers show as well, then the label. */
function alignedLines(lines: readonly ListLine[], { columns, unicode }: ListStyle): string[] {
  const cut = unicode ? '…' : '~';
  const widest = (text: (line: ListLine) => string): number =>
    lines.reduce((width, line) => Math.max(width, columnsOf(text(line))), 0);
  const writtenOf = ({ writtenBytes }: ListLine): string => formatBytes(writtenBytes);
  const widths = {
    number: widest(({ number }) => number),
    start: widest(({ start }) => start),
    end: widest(({ end }) => end),
    label: widest(({ label }) => label),
    written: widest(writtenOf),
  };
  const least = widths.number + 2 + widths.written + ' written'.length;
  const rangeColumns = 2 + widths.start + 3 + widths.end;
  const minLabelColumns = Math.min(widths.label, MIN_LABEL_COLUMNS) + 2;
  const hasRange = columns >= least + rangeColumns + minLabelColumns;
  const labelColumns = Math.min(widths.label, columns - least - 2 - (hasRange ? rangeColumns : 0));
  const hasLabel = labelColumns > 0 && labelColumns + 2 >= minLabelColumns;
  return lines.map((line) =>
    [
      line.number.padStart(widths.number),
      ...(hasRange ? [`${line.start.padStart(widths.start)} - ${line.end.padStart(widths.end)}`] : []),
      ...(hasLabel ? [padded(line.label, labelColumns, cut)] : []),
      `${writtenOf(line).padStart(widths.written)} written`,
    ]
      .join('  ')
      .slice(0, hasLabel ? undefined : columns),
  );
}

function padded(text: string, columns: number, cut: string): string {
  let fitting = text;
  if (columnsOf(text) > columns) {
    const characters = [...text];
    while (columnsOf(characters.join('')) > columns - 1) characters.pop();
    fitting = characters.join('') + cut;
  }
  return fitting + ' '.repeat(columns - columnsOf(fitting));
}

/**
 * Names come from inside of the disk: what would move the cursor, change colours or turn the writing around is shown
 * by its number, and where the terminal has only ASCII all else too.
 */
function printable(text: string, unicode: boolean): string {
  return text.normalize('NFC').replace(unicode ? /[\p{C}\p{Zl}\p{Zp}]/gu : /[^ -~]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
  });
}

/** Columns in the terminal, rather too many than too few: two for whatever may be wide (Unicode Annex 11). */
function columnsOf(text: string): number {
  let columns = 0;
  for (const character of text)
    columns += /[\u1100-\u115f\u{2e80}-\u{10ffff}]|\p{Emoji_Presentation}/u.test(character) ? 2 : 1;
  return columns;
}
