/**
 * What the tests of `export` and `diff` share: images compared with disks by other programs than cowfs, exports that are
 * caught in the middle, differences counted block by block, and commands on a terminal.
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { COWFS, must, mustCowfs, poll, type RunOptions, run, start } from '../harness.ts';
import { finish } from './machine-support.ts';
import { statusNow } from './sessions-support.ts';

export const BLOCK = 4096;
export const MIB = 2 ** 20;

/** The ways to export, by what `--format` and the rest are. */
export const FORMATS = {
  raw: ['--format', 'raw'],
  flat: ['--format', 'qcow2', '--flat'],
  backed: ['--format', 'qcow2', '--backing'],
} as const;
export type FormatName = keyof typeof FORMATS;
export const FORMAT_NAMES = Object.keys(FORMATS) as FormatName[];

/** Exports, says nothing, and leaves nothing beside the file. */
export function exported(
  source: string,
  path: string,
  format: FormatName,
  options: readonly string[] = [],
  as: RunOptions = {},
): string {
  expect(mustCowfs(['export', source, path, ...FORMATS[format], ...options], as)).toBe('');
  return path;
}

/** A file says, byte for byte, what another does. */
export function expectSame(file: string, other: string): void {
  must('cmp', [file, other]);
}

/** QEMU finds a qcow2 image in order, and the same as a disk. */
export function expectImage(image: string, disk: string): void {
  must('qemu-img', ['check', '-q', '-f', 'qcow2', image]);
  must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', disk, image]);
}

/** An image of any of the formats is what the disk is. */
export function expectExport(image: string, disk: string, format: FormatName): void {
  if (format === 'raw') expectSame(image, disk);
  else expectImage(image, disk);
}

/** Content of an image, as long as the disk is, or more up to whole sectors. */
export function contentOf(image: string, format: FormatName, directory: string): Buffer {
  if (format === 'raw') return readFileSync(image);
  const raw = join(directory, 'converted.raw');
  must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, raw]);
  return readFileSync(raw);
}

/** What of `qemu-img info` matters. */
export function infoOf(image: string): Record<string, unknown> {
  return JSON.parse(must('qemu-img', ['info', '--output=json', '-U', image])) as Record<string, unknown>;
}

export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}

/** Names in a directory, those that are meant to be there left out. */
export function strangersIn(directory: string, ...known: readonly string[]): string[] {
  return readdirSync(directory).filter((name) => !known.includes(name));
}

export function startExport(
  source: string,
  path: string,
  format: FormatName,
  options: readonly string[] = [],
): ChildProcess {
  return start(COWFS, ['export', source, path, ...FORMATS[format], ...options]);
}

/** Its end, which must be a good one. */
export async function expectDone(child: ChildProcess): Promise<void> {
  expect(await finish(child)).toEqual({ status: 0, stdout: '', stderr: '' });
}

/** Waits until no layer is left that an export has frozen, and the store has what the disks have. */
export async function untilThawed(mountpoint: string, timeoutMs = 30_000): Promise<void> {
  const wrong = async (): Promise<unknown> => {
    const { disks, store } = await statusNow(mountpoint);
    const written = disks.reduce((sum, { writtenBytes }) => sum + writtenBytes, 0);
    if (store.occupiedBytes === written && disks.every(({ layers }) => layers === 1)) return undefined;
    return { occupiedBytes: store.occupiedBytes, disks };
  };
  await poll('disks have one layer again', async () => (await wrong()) === undefined, timeoutMs).catch(async () =>
    expect(await wrong()).toBeUndefined(),
  );
}

export interface Range {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
}

export interface Diff {
  readonly disk: string;
  readonly size: number;
  readonly base: string;
  readonly baseSize: number;
  readonly ranges: readonly Range[];
}

/** What `cowfs diff --json` prints; its ranges are in order and not empty, and touch nowhere what is of their kind. */
export function diffOf(source: string, options: readonly string[] = [], as: RunOptions = {}): Diff {
  const diff = JSON.parse(mustCowfs(['diff', source, '--json', ...options], as)) as Diff;
  expect(Object.keys(diff).sort()).toEqual(['base', 'baseSize', 'disk', 'ranges', 'size']);
  let end = 0;
  let before: Range | undefined;
  for (const range of diff.ranges) {
    expect(Object.keys(range).sort()).toEqual(['kind', 'length', 'offset']);
    const { offset, length, kind } = range;
    expect(['data', 'zero']).toContain(kind);
    expect({ offset, aligned: offset % BLOCK, positive: length > 0, ascending: offset >= end }).toEqual({
      offset,
      aligned: 0,
      positive: true,
      ascending: true,
    });
    expect(offset === end && before?.kind === kind).toBe(false);
    end = offset + length;
    expect(end % BLOCK === 0 || end === diff.size, `${end}`).toBe(true);
    before = range;
  }
  return diff;
}

/** Numbers of the blocks that ranges have. */
export function blocksOf(ranges: readonly Range[]): number[] {
  return ranges.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / BLOCK) }, (_, index) => offset / BLOCK + index),
  );
}

/** Numbers of the blocks of a disk that are not what the base has there; past its end it has zeros. */
export function differingBlocks(disk: Buffer, base: Buffer): number[] {
  const blocks: number[] = [];
  const there = Buffer.alloc(BLOCK);
  for (let at = 0; at < disk.length; at += BLOCK) {
    there.fill(0);
    there.set(base.subarray(at, at + BLOCK));
    const here = disk.subarray(at, at + BLOCK);
    if (here.compare(there, 0, here.length) !== 0) blocks.push(at / BLOCK);
  }
  return blocks;
}

/** All of a disk through its mount, by plain reads. */
export function readThrough(disk: string): Buffer {
  const fd = openSync(disk, 'r');
  try {
    const bytes = Buffer.alloc(statSync(disk).size);
    for (let at = 0; at < bytes.length; ) {
      const done = readSync(fd, bytes, at, Math.min(MIB, bytes.length - at), at);
      if (done === 0) throw new Error(`${disk} ends at ${at}`);
      at += done;
    }
    return bytes;
  } finally {
    closeSync(fd);
  }
}

export interface Window {
  readonly columns: number;
  readonly rows: number;
  readonly env?: NodeJS.ProcessEnv;
}

/** The environment without what tells of terminals and languages. */
export function plainEnv(env: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const unset = ['CI', 'COLORTERM', 'FORCE_COLOR', 'LANG', 'LC_ALL', 'LC_CTYPE', 'NO_COLOR', 'TERM', 'TMUX'];
  return { ...Object.fromEntries(unset.map((name) => [name, undefined])), ...env };
}

/** The command line for script(1) that runs cowfs on a terminal of that size; the session goes nowhere but to its output. */
export function onTerminal(args: readonly string[], { columns, rows }: Window): string[] {
  const words = [COWFS, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  return ['-qec', `stty cols ${columns} rows ${rows}; exec ${words.join(' ')}`, '/dev/null'];
}

/** What cowfs writes to a terminal of that size. */
export function terminalOutput(args: readonly string[], window: Window): string {
  const { status, stdout } = run('script', onTerminal(args, window), {
    env: plainEnv({ TERM: 'xterm-256color', LANG: 'C.UTF-8', ...window.env }),
  });
  expect({ status, stdout }).toMatchObject({ status: 0 });
  return stdout;
}
