/**
 * Four processes on one mounted disk at the same time, each on bytes of its own that lie between the others', down to
 * the same 4 KiB blocks: nobody's bytes may get lost or come back. The oracle does the same on a plain copy, one
 * process after the other, which is the same thing since they share no byte. COWFS_SEED repeats the operations, not
 * the race; COWFS_PROPERTY_LIVES multiplies the length.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CacheMode } from '../../src/fs/options.ts';
import { makeBase, scratch, sha256 } from '../harness.ts';
import { type Crew, type Fixture, firstDifference, makeCrew, withMount } from './comparison.ts';
import type { Executor } from './executor.ts';
import { type Interleaving, type Round, rounds, WRITERS } from './interleaving.ts';
import type { Operation, Outcome } from './operation.ts';

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const CACHE_MODES: readonly CacheMode[] = ['writeback', 'writethrough', 'none'];
const BASE_BYTES = 2 ** 20 + 513;
/** The last of them lie past the end of the base. */
const WINDOWS = 24;
const WINDOW_BYTES = 50_001;
const LIVES = Number(process.env['COWFS_PROPERTY_LIVES'] ?? 1);
/** Most where the daemon sees every write as it is: the kernel's cache makes pages of them, one at a time. */
const MOUNTS: Record<CacheMode, number> = { writeback: LIVES, writethrough: LIVES, none: 4 * LIVES };
const APPENDS = 60;

function makeFixture(cacheMode: CacheMode): Fixture {
  const directory = scratch();
  return { directory, base: makeBase(directory, BASE_BYTES), cacheMode, options: [], diskBytes: BASE_BYTES };
}

/** What must not depend on the others: not the size, since they make the file grow. */
function own({ size: _, ...rest }: Outcome): Outcome {
  return rest;
}

/** Everybody at once on the mount, one after the other on the plain file; then the window through both kinds of handle. */
async function runRound(crew: Crew, round: Round, windowStart: number): Promise<void> {
  const expectation = crew.oracle.run(round.flat());
  const actual = await Promise.all(round.map((ops, p) => (crew.processes[p] as Executor).run(ops)));
  const expected = await expectation;
  for (const [index, op] of round.flat().entries()) {
    const [ours, theirs] = [own(actual.flat()[index] as Outcome), own(expected[index] as Outcome)];
    if (isDeepStrictEqual(ours, theirs)) continue;
    throw new Error(
      `${JSON.stringify(ours)} where a plain file gives ${JSON.stringify(theirs)}; its process did, around there:\n` +
        around(round[op.p] as Operation[], op),
    );
  }
  const whole = { p: 0, slot: 1, off: windowStart, len: WINDOW_BYTES } as const;
  for (const kind of ['direct', 'readonly'] as const) {
    const look: Operation[] = [
      { op: 'open', kind, ...whole },
      { op: 'read', ...whole },
    ];
    const [ours, theirs] = await Promise.all([(crew.processes[0] as Executor).run(look), crew.oracle.run(look)]);
    if (!isDeepStrictEqual(ours, theirs)) {
      throw new Error(`${JSON.stringify(ours)} where a plain file gives ${JSON.stringify(theirs)} (${kind})`);
    }
  }
}

/** The operations of a list, up to `op`, that touch its bytes. */
function around(ops: readonly Operation[], op: Operation): string {
  const [from, to] = [op.off ?? 0, (op.off ?? 0) + (op.len ?? 0)];
  return ops
    .slice(0, ops.indexOf(op) + 1)
    .filter(({ off = 0, len = 0 }) => off < to && off + len > from)
    .map((each) => `  ${JSON.stringify(each)}`)
    .join('\n');
}

async function interleave(cacheMode: CacheMode, name: string, how: Interleaving): Promise<void> {
  const fixture = makeFixture(cacheMode);
  const before = await sha256(fixture.base);
  const crew = makeCrew(WRITERS);
  const mounts = MOUNTS[cacheMode];
  let operations = 0;
  for (let mount = 0; mount < mounts; mount++) {
    await withMount(fixture, crew, async (pair) => {
      const order = fc.sample(fc.shuffledSubarray([...Array(WINDOWS).keys()], { minLength: WINDOWS }), {
        seed: SEED + mount,
        numRuns: 1,
      })[0] as number[];
      let reach = BASE_BYTES;
      for (const window of order) {
        const start = window * WINDOW_BYTES;
        const seed = SEED + mount * WINDOWS + window;
        const [round] = fc.sample(rounds(how, start, start + WINDOW_BYTES <= reach), { seed, numRuns: 1 }) as [Round];
        operations += round.flat().length;
        try {
          await runRound(crew, round, start);
        } catch (error) {
          throw new Error(
            `seed ${SEED}, --cache ${cacheMode}, ${name}, window from ${start}: ${String(error)}\n${firstDifference(pair)}`,
          );
        }
        reach = Math.max(reach, readFileSync(pair.plain).length);
      }
      expect(readFileSync(pair.disk).equals(readFileSync(pair.plain)), firstDifference(pair)).toBe(true);
    });
  }
  expect(await sha256(fixture.base)).toBe(before);
  console.log(
    `property: --cache ${cacheMode}, ${name}: ${mounts * WINDOWS * WRITERS} sequences at once in groups of ${WRITERS}, ` +
      `${operations} operations, ${WRITERS} processes, ${mounts} mounts, seed ${SEED}`,
  );
}

const CACHED = Array.from({ length: WRITERS }, () => ['cached'] as const);
/** Half of the processes go past the cache, in blocks of their own. */
const MIXED = [['direct'], ['cached'], ['direct', 'direct', 'cached'], ['cached', 'direct']] as const;

describe.each(CACHE_MODES)('--cache %s', (cacheMode) => {
  // Past the kernel's cache, mappings are no equals of the others: they write back whole pages, as beside O_DIRECT.
  const kinds = cacheMode === 'none' ? (['holes'] as const) : (['holes', 'mappings'] as const);

  test.each(kinds.flatMap((what) => [61, 509, 4099].map((granule) => [what, granule] as const)))(
    '%s, granules of %i bytes',
    { timeout: 120_000 },
    async (what, granule) => {
      const how = { granule, windowBytes: WINDOW_BYTES, kinds: CACHED, with: what };
      await interleave(cacheMode, `${what}, granules of ${granule} bytes`, how);
    },
  );

  test('blocks, with and without O_DIRECT', { timeout: 120_000 }, async () => {
    const how = { granule: 4096, windowBytes: WINDOW_BYTES, kinds: MIXED, with: 'holes' } as const;
    await interleave(cacheMode, 'blocks, with and without O_DIRECT', how);
  });

  test('records appended by all keep whole and in order', { timeout: 120_000 }, async () => {
    const fixture = makeFixture(cacheMode);
    const crew = makeCrew(WRITERS);
    // Long enough not to be found in another one, and none of zeros (executor.mjs, `content`).
    const lengths = fc.sample(fc.integer({ min: 16, max: 9000 }), { seed: SEED, numRuns: APPENDS * WRITERS });
    await withMount(fixture, crew, async ({ disk }) => {
      const records = await Promise.all(
        crew.processes.map((process, p) =>
          process.run(
            lengths
              .slice(p * APPENDS, (p + 1) * APPENDS)
              .map((len, i) => ({ op: 'append', p, slot: 0, len, seed: 16 * (p * APPENDS + i) + 1 })),
          ),
        ),
      );
      const bytes = readFileSync(disk);
      expect(bytes.subarray(0, BASE_BYTES).equals(readFileSync(fixture.base))).toBe(true);
      let at = BASE_BYTES;
      while (records.some((own) => own.length > 0)) {
        const next = records.find(([record]) => record !== undefined && isAt(bytes, at, record));
        expect(next, `no process's next record is at ${at} of ${bytes.length} bytes, seed ${SEED}`).toBeDefined();
        at += next?.shift()?.n ?? 0;
      }
      expect(at).toBe(bytes.length);
    });
    console.log(
      `property: --cache ${cacheMode}, appends: ${APPENDS * WRITERS} records, ${WRITERS} processes, seed ${SEED}`,
    );
  });
});

function isAt(bytes: Buffer, at: number, { n = 0, hash }: Outcome): boolean {
  const there = createHash('sha1').update(bytes.subarray(at, at + n));
  return at + n <= bytes.length && there.digest('base64').slice(0, 12) === hash;
}
