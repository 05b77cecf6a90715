/** `cowfs diff --map` as it comes out of a pipe and of terminals of all kinds; the picture itself is test/cli/disk-map. */
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { makeMountpoint, mountDisk, must, mustCowfs, scratch } from '../harness.ts';
import { BLOCK, MIB, plainEnv, terminalOutput } from './export-support.ts';
import { needs } from './machine-support.ts';
import { keptDisk } from './overlay-support.ts';
import { filled, mountSessions, put, WRITEBACK } from './sessions-support.ts';

beforeEach((context) => needs(context, 'script', 'stty'));

// biome-ignore lint/suspicious/noControlCharactersInRegex: it is what they begin with
const ESCAPES = /\x1b\[[\d;?]*[A-Za-z]/g;

/** A disk of 64 MiB, a megabyte in the middle written. */
function writtenDisk(): string {
  const { disk } = mountSessions(WRITEBACK, undefined, [], 64 * MIB);
  put(disk, 32 * MIB, filled(1, MIB));
  return disk;
}

function piped(disk: string, env: NodeJS.ProcessEnv): string {
  return mustCowfs(['diff', disk, '--map'], { env: plainEnv(env) });
}

test('in a pipe there are no colours, and only the characters of the language', () => {
  const disk = writtenDisk();
  for (const env of [{ LANG: 'C' }, { LANG: 'POSIX' }, {}, { LC_ALL: 'C', LANG: 'en_US.UTF-8' }]) {
    const picture = piped(disk, env);
    expect(picture).toMatch(/^[\n -~]+$/);
    expect(picture).toContain('@');
  }
  for (const env of [
    { LANG: 'C.UTF-8' },
    { LANG: 'de_DE.utf8' },
    { LC_ALL: 'en_US.UTF-8', LANG: 'C' },
    { LC_CTYPE: 'C.UTF-8' },
  ]) {
    const picture = piped(disk, env);
    expect(picture).toContain('█');
    expect(picture).not.toMatch(ESCAPES);
    expect(picture).not.toContain('\x1b');
  }
  const lines = piped(disk, { LANG: 'C' }).split('\n');
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
  expect(lines.at(-2)).toBe('1.0 MiB of 64.0 MiB written');
});

const WINDOWS = [
  [80, 24],
  [40, 12],
  [132, 50],
  [20, 8],
  [211, 60],
] as const;

test.each(WINDOWS)('a terminal of %d columns and %d rows has colours, and the picture fits', (columns, rows) => {
  const output = terminalOutput(['diff', writtenDisk(), '--map'], { columns, rows });
  expect(output.match(ESCAPES)?.[0]).toMatch(/^.\[38;5;\d+;48;5;\d+m$/);
  const lines = output.replaceAll('\r', '').replaceAll(ESCAPES, '').split('\n');
  expect(Math.max(...lines.map((line) => [...line].length))).toBeLessThanOrEqual(columns);
  // The last is the prompt's. In a low window four rows of cells, the legend and the total are all the same there.
  expect(lines.length).toBeLessThanOrEqual(Math.max(rows, 16));
  expect(output).toContain('█');
  expect(output.match(ESCAPES)?.filter((each) => !each.endsWith('m'))).toEqual([]);
  expect(output.replaceAll(ESCAPES, '')).not.toContain('\x1b');
});

test.each([
  [{ TERM: 'dumb' }, false],
  [{ NO_COLOR: '1' }, false],
  [{ TERM: 'xterm-256color' }, true],
  [{ TERM: 'linux' }, true],
  [{ COLORTERM: 'truecolor' }, true],
])('a terminal with %o', (env, hasColours) => {
  const output = terminalOutput(['diff', writtenDisk(), '--map'], { columns: 80, rows: 24, env });
  expect(output.includes('\x1b[')).toBe(hasColours);
  if ('COLORTERM' in env) expect(output).toContain('\x1b[38;2;');
  expect(output).toContain('1.0 MiB of 64.0 MiB written');
});

test('a terminal with LANG=C has colours and ASCII', () => {
  const output = terminalOutput(['diff', writtenDisk(), '--map'], { columns: 80, rows: 24, env: { LANG: 'C' } });
  expect(output.replaceAll(ESCAPES, '')).toMatch(/^[\r\n -~]+$/);
  expect(output).toContain('\x1b[');
});

test.each([
  ['dos', 'label: dos\nstart=2048,size=40960,type=83\nstart=43008,size=20480,type=82\n', ['Linux', 'swap']],
  [
    'gpt',
    'label: gpt\nstart=2048,size=40960,name="root fs"\nstart=43008,size=20480,name="böse\\u{7}"\n',
    ['root fs', 'b'],
  ],
])('partitions of a %s table are marked and counted', (_, script, names) => {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, 64 * MIB);
  must('sfdisk', ['--quiet', base], { input: script });
  const { disk } = mountDisk(base, makeMountpoint(directory));
  put(disk, 2 * MIB, filled(1, 3 * MIB));
  const picture = piped(disk, { LANG: 'C' });
  expect(picture).toMatch(/^[\n -~]+$/);
  expect(picture).toContain('[1');
  expect(picture).toContain('2');
  for (const name of names) expect(picture).toContain(name);
  expect(picture).toMatch(/\n1 +1\.0 MiB - 21\.0 MiB .* 3\.0 MiB written\n/);
  expect(picture).toMatch(/\n2 +21\.0 MiB - 31\.0 MiB .* 0 B written\n/);
  expect(piped(disk, { LANG: 'C.UTF-8' })).toContain('└1');
});

test('partitions that were made on the disk, not on the base, are marked', (context) => {
  needs(context, 'sfdisk');
  const { disk } = mountSessions(WRITEBACK, undefined, [], 64 * MIB);
  expect(piped(disk, { LANG: 'C' })).not.toContain('[1');
  must('sfdisk', ['--quiet', '--no-reread', disk], { input: 'label: dos\nstart=2048,type=83\n' });
  expect(piped(disk, { LANG: 'C' })).toContain('[1');
});

test('an untouched disk, an empty one, a tiny one, a huge one', () => {
  const { disk } = mountSessions(WRITEBACK, undefined, [], 64 * MIB);
  expect(piped(disk, { LANG: 'C' })).toContain('\n0 B of 64.0 MiB written\n');
  truncateSync(disk, 0);
  expect(piped(disk, { LANG: 'C' })).toContain('0 B of 0 B written\n');
  truncateSync(disk, 1);
  put(disk, 0, Buffer.from('x'));
  expect(piped(disk, { LANG: 'C' })).toContain('1 B of 1 B written\n');
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, filled(1, BLOCK));
  const huge = mountDisk(base, makeMountpoint(directory), ['--size', '8T']).disk;
  put(huge, 7 * 2 ** 40, filled(1, BLOCK));
  expect(piped(huge, { LANG: 'C' })).toContain('\n4.0 KiB of 8.0 TiB written\n');
});

test('a kept disk while it is mounted', () => {
  const kept = keptDisk([], 4 * MIB);
  put(kept.disk, 0, filled(1, MIB));
  expect(piped(kept.disk, { LANG: 'C' })).toContain('1.0 MiB of 4.0 MiB written');
});
