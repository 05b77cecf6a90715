/**
 * Forks and snapshots of a disk while processes write to it: each has all that write(2) took before the command, and is
 * what a power cut would have left, so no block tells of a record that is not there. What was taken stays as it was
 * while the writers go on.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CACHE_MODES } from '../../src/transport/transport.ts';
import {
  COWFS,
  exitOf,
  makeBase,
  makeMountpoint,
  mountDisk,
  mustCowfs,
  poll,
  scratch,
  sha256,
  start,
} from '../harness.ts';

const PAGE = 4096;
const SLOTS = 24;
const REGION = (1 + SLOTS) * PAGE;
/** Two of them through the page cache, one past it. */
const KINDS = ['cached', 'cached', 'direct'] as const;
const BASE_BYTES = KINDS.length * REGION + 12_345;
const FORKS = 3;
/** Records of each writer between two commands: some slots twice. */
const RECORDS = 2 * SLOTS;

class Writer {
  /** The last record that it has told of, as far as we know. */
  told = 0;
  readonly #child: ChildProcess;
  #pending = '';

  constructor(disk: string, index: number, kind: string) {
    const program = join(import.meta.dirname, 'session-writer.mjs');
    this.#child = start(process.execPath, [program, disk, String(index * REGION), String(SLOTS), kind], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#pending + text).split('\n');
      this.#pending = lines.pop() ?? '';
      this.told = Number(lines.at(-1) ?? this.told);
    });
  }

  async tellOfMore(): Promise<void> {
    const enough = this.told + RECORDS;
    await poll(`a writer has told of ${enough} records`, () => this.told >= enough || this.#hasEnded(), 60_000);
    expect(this.#hasEnded()).toBe(false);
  }

  async stop(): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.stdin?.end();
    await closed;
    expect(this.#child.exitCode).toBe(0);
  }

  #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}

/** The numbers in a block: least and greatest, since a block may be halfway written. */
function numbersAt(fd: number, offset: number): { least: number; greatest: number } {
  const block = Buffer.alloc(PAGE);
  expect(readSync(fd, block, 0, PAGE, offset)).toBe(PAGE);
  const words = new Uint32Array(block.buffer, block.byteOffset, PAGE / 4);
  return { least: Math.min(...words), greatest: Math.max(...words) };
}

/** @param told records that each writer had told of before the disk was taken */
function checkTaken(disk: string, told: readonly number[]): void {
  const fd = openSync(disk, 'r');
  try {
    for (const [index, before] of told.entries()) {
      const { least, greatest } = numbersAt(fd, index * REGION);
      expect(least, `writer ${index} had told of ${before} before`).toBeGreaterThanOrEqual(before);
      for (let record = Math.max(1, greatest - SLOTS + 1); record <= greatest; record++) {
        const found = numbersAt(fd, index * REGION + PAGE * (1 + (record % SLOTS))).least;
        expect(found, `writer ${index} tells of ${greatest}; record ${record}`).toBeGreaterThanOrEqual(record);
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** The command runs beside the writers, whose words have to be taken meanwhile. */
async function mustCowfsBeside(args: readonly string[]): Promise<void> {
  const child = start(COWFS, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  expect(await exitOf(child)).toBe(0);
}

describe.each(
  (['kernel', 'fuse-native'] as const).flatMap((transport) =>
    CACHE_MODES[transport].map((cache) => ({ transport, cache })),
  ),
)('--transport $transport --cache $cache', ({ transport, cache }) => {
  test('forks and snapshots under writers are crash-consistent, and stay', async () => {
    const directory = scratch();
    const base = makeBase(directory, BASE_BYTES);
    const before = await sha256(base);
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), [
      ...['--transport', transport, '--cache', cache],
    ]);
    const writers = KINDS.map((kind, index) => new Writer(disk, index, kind));
    const taken: { path: string; told: number[]; hash: string }[] = [];
    for (let index = 0; index < FORKS; index++) {
      await Promise.all(writers.map((writer) => writer.tellOfMore()));
      const told = writers.map((writer) => writer.told);
      const path = join(mountpoint, `fork-${index}.raw`);
      await mustCowfsBeside(['fork', disk, path]);
      checkTaken(path, told);
      taken.push({ path, told, hash: await sha256(path) });
    }
    await Promise.all(writers.map((writer) => writer.tellOfMore()));
    const told = writers.map((writer) => writer.told);
    await mustCowfsBeside(['snapshot', disk, 'running']);
    await Promise.all(writers.map((writer) => writer.tellOfMore()));
    await Promise.all(writers.map((writer) => writer.stop()));
    const last = writers.map((writer) => writer.told);
    checkTaken(disk, last);

    for (const { path, hash } of taken) expect(await sha256(path)).toBe(hash);
    // A fork of a fork, while the first writer's disk is another one by now.
    const [first] = taken;
    mustCowfs(['fork', first?.path ?? '', join(mountpoint, 'again.raw')]);
    expect(await sha256(join(mountpoint, 'again.raw'))).toBe(first?.hash);
    mustCowfs(['rollback', disk, 'running']);
    checkTaken(disk, told);
    mustCowfs(['unmount', mountpoint]);
    expect(await sha256(base)).toBe(before);
    console.log(
      `property: --transport ${transport} --cache ${cache}: ${FORKS} forks and a snapshot under ${writers.length} writers ` +
        `of ${last.join(', ')} records`,
    );
  });
});
