/**
 * Random operations on a mounted disk and on a plain copy of its base, spread over three processes with cached and
 * O_DIRECT handles and mappings, in one order: every answer, every size and in the end every byte has to be the
 * plain file's. COWFS_SEED repeats a run; COWFS_PROPERTY_LIVES multiplies its length.
 */
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CacheMode } from '../../src/fs/options.ts';
import { CACHE_MODES, type TransportName } from '../../src/transport/transport.ts';
import { scratch, sha256 } from '../harness.ts';
import { formatted, needsRoot } from '../integration/machine-support.ts';
import { BASES, writeBase } from './base.ts';
import { carriedOf, DIRECT } from './carried.ts';
import { Comparison, type Crew, type Difference, type Fixture, makeCrew, stopCrew, withMount } from './comparison.ts';
import { type Operation, PROCESSES, PROLOGUE, sequences } from './operation.ts';
import { reduceList } from './reduce.ts';

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/**
 * Mounts a test, fewer of clones, whose bytes are the file system's business; and sequences a mount: later ones find what
 * earlier ones left.
 */
const LIVES = 3 * Number(process.env['COWFS_PROPERTY_LIVES'] ?? 1);
const LIVES_OF_CLONES = Math.ceil(LIVES / 3);
const SEQUENCES = 40;

interface Subject {
  readonly transport: TransportName;
  readonly cacheMode: CacheMode;
  /** Operations that the transport does not carry. */
  readonly without: readonly string[];
  /** What it is but a disk whose writes go to a sparse file: kept in an overlay file, or a clone of the base. */
  readonly as?: 'kept' | 'clone';
}

const SUBJECTS: readonly Subject[] = [
  ...CACHE_MODES.kernel.map((cacheMode) => ({ transport: 'kernel', cacheMode, without: [] }) as const),
  { transport: 'fuse-native', cacheMode: 'writethrough', without: ['fallocate'] },
  { transport: 'fuse-native', cacheMode: 'none', without: ['fallocate', 'map'] },
  // The map of a small overlay file has room for a disk of 1 TiB; `far` goes beyond.
  { transport: 'kernel', cacheMode: 'writeback', without: ['far'], as: 'kept' },
  { transport: 'kernel', cacheMode: 'none', without: ['far'], as: 'kept' },
  { transport: 'fuse-native', cacheMode: 'writethrough', without: ['fallocate', 'far'], as: 'kept' },
  // Served by the kernel itself, and by the daemon.
  { transport: 'kernel', cacheMode: 'writeback', without: [DIRECT], as: 'clone' },
  { transport: 'kernel', cacheMode: 'none', without: [], as: 'clone' },
];
const REDUCE_TIMEOUT_MS = 40_000;
/** Of operations in a failure's message; the seed has the others. */
const MOST_LINES = 80;

/** Runs one life; the difference's index counts its operations from the first one on. */
async function live(
  fixture: Fixture,
  crew: Crew,
  life: readonly (readonly Operation[])[],
  without: readonly string[],
): Promise<Difference | undefined> {
  return withMount(fixture, crew, async (pair) => {
    const comparison = new Comparison(crew, pair, fixture.cacheMode);
    const opened = await comparison.run(carriedOf(PROLOGUE, without));
    if (opened !== undefined) throw new Error(`opening: ${opened.message}`);
    let before = 0;
    for (const sequence of life) {
      const difference = await comparison.run(sequence);
      if (difference !== undefined) return { ...difference, index: before + difference.index };
      before += sequence.length;
    }
    return undefined;
  });
}

/** What a person needs to look into it: the fewest operations that still show it. */
async function describeFailure(
  fixture: Fixture,
  ops: readonly Operation[],
  seen: Difference,
  without: readonly string[],
): Promise<string> {
  const failing = ops.slice(0, seen.index + 1);
  let last = seen.message;
  const fewest = await reduceList(
    failing,
    async (candidate) => {
      // Of its own: a process may have died of the difference.
      const crew = makeCrew();
      const difference = await live(fixture, crew, [candidate], without).finally(() => stopCrew(crew));
      last = difference?.message ?? last;
      return difference !== undefined;
    },
    REDUCE_TIMEOUT_MS,
  );
  const lines = fewest.slice(-MOST_LINES).map((op) => `  ${JSON.stringify(op)}`);
  return [
    `seed ${SEED}, --cache ${fixture.cacheMode}, ${fixture.options.join(' ')}, base ${fixture.diskBytes} bytes: ${seen.message}`,
    `cut down to ${fewest.length} of ${failing.length} operations (last: ${last}):`,
    ...lines,
  ].join('\n');
}

describe.each(SUBJECTS)('--transport $transport --cache $cacheMode $as', (subject) => {
  const { transport, cacheMode, without, as } = subject;

  test.for(BASES.map((kind) => [kind.name, kind] as const))(
    'base of %s',
    { timeout: 300_000 },
    async ([, kind], context) => {
      if (as === 'clone') needsRoot(context);
      const lives = as === 'clone' ? LIVES_OF_CLONES : LIVES;
      const seed = SEED + SUBJECTS.indexOf(subject) * BASES.length + BASES.indexOf(kind);
      const directory = scratch();
      // Not where the plain file is: that shares blocks in copy_file_range(2), as far as they are whole.
      const sharing = as === 'clone' ? formatted(directory, 'xfs', context) : undefined;
      const diskBytes = kind.diskBytes ?? kind.bytes;
      const fixture: Fixture = {
        directory,
        store: sharing,
        base: writeBase(sharing ?? directory, kind),
        cacheMode,
        overlay: as === 'kept' ? join(directory, 'kept.cow') : undefined,
        options: [
          ...['--transport', transport, '--store-strategy', as === 'clone' ? 'reflink' : 'sparse'],
          ...(kind.diskBytes === undefined ? [] : ['--size', String(kind.diskBytes)]),
        ],
        diskBytes,
      };
      const before = await sha256(fixture.base);
      const crew = makeCrew();
      let operations = 0;
      let difference: Difference | undefined;
      const carried = sequences(diskBytes).map((ops) => carriedOf(ops, without));
      const life = fc.array(carried, { minLength: SEQUENCES, maxLength: SEQUENCES, size: 'max' });
      const property = fc.asyncProperty(life, async (life) => {
        operations += life.flat().length;
        difference = await live(fixture, crew, life, without);
        return difference === undefined;
      });
      const details = await fc.check(property, { seed, numRuns: lives, endOnFailure: true });
      if (difference !== undefined && details.counterexample !== null) {
        expect.fail(await describeFailure(fixture, details.counterexample[0].flat(), difference, without));
      }
      if (details.failed) throw details.errorInstance ?? new Error(fc.defaultReportMessage(details) ?? 'failed');
      expect(await sha256(fixture.base)).toBe(before);
      console.log(
        `property: --transport ${transport} --cache ${cacheMode}${as === undefined ? '' : ` (${as})`}, ${kind.name}: ${lives * SEQUENCES} sequences, ` +
          `${operations} operations, ${PROCESSES} processes, ${lives} mounts, seed ${SEED}`,
      );
    },
  );
});
