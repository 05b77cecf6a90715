/**
 * Random steps on the disks of one mount, made, forked, rolled back, renamed and removed while others have them open: on
 * the mount and with plain files, by several processes. First in one order of all steps; then each process at the same
 * time as the others, on disks of its own over the frozen layers of one that all fork. Every answer, every size, what is
 * called a hole, and in the end every byte has to be the plain files'; and when all is removed, nothing is left.
 * COWFS_SEED repeats the steps, COWFS_PROPERTY_LIVES multiplies their number.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, type TestContext, test } from 'vitest';
import type { CacheMode } from '../../src/fs/options.ts';
import { CACHE_MODES, type TransportName } from '../../src/transport/transport.ts';
import { scratch } from '../harness.ts';
import { formatted, needsRoot } from '../integration/machine-support.ts';
import { type BaseKind, writeBase } from './base.ts';
import { carriedOf, DIRECT } from './carried.ts';
import { reduceList } from './reduce.ts';
import { type SessionDifference, type SessionFixture, SessionMount } from './session-mount.ts';
import { type Scope, type Step, type StepOutcome, sequencesOf } from './session-step.ts';

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const LIVES = Number(process.env['COWFS_PROPERTY_LIVES'] ?? 1);
/** A mount; fewer on large disks, which are compared as often. */
const SEQUENCES = (diskBytes: number): number => (diskBytes > 2 ** 20 ? 5 : 12) * LIVES;
const STEPS = 70;
const PROCESSES = 3;
const LANES = 4;
const LANE_ROUNDS = 3 * LIVES;
const REDUCE_TIMEOUT_MS = 60_000;

const BASES: readonly BaseKind[] = [
  { name: '70001 bytes as disks of 300003', bytes: 70_001, diskBytes: 300_003 },
  { name: '2 MiB + 77 bytes with holes', bytes: 2 ** 21 + 77, sparse: true },
];

interface Subject {
  readonly transport: TransportName;
  readonly cacheMode: CacheMode;
  /** Steps that the transport does not carry. */
  readonly without: readonly string[];
  /** Whether disks are clones of the base. */
  readonly isClone?: true;
}

/**
 * libfuse keeps files that were removed while they are open under names of its own, in their directory, and does not tell
 * for what a file is made, so that cp(1) finds the base in it.
 */
const NOT_BY_FUSE_NATIVE = ['fallocate', 'exchange', 'renameNoReplace', 'stat', 'rmdir', 'cp'];
const SUBJECTS: readonly Subject[] = [
  ...CACHE_MODES.kernel.map((cacheMode) => ({ transport: 'kernel', cacheMode, without: [] }) as const),
  { transport: 'fuse-native', cacheMode: 'writethrough', without: NOT_BY_FUSE_NATIVE },
  {
    transport: 'fuse-native',
    cacheMode: 'none',
    without: [...NOT_BY_FUSE_NATIVE, 'map', 'mapRead', 'mapWrite', 'mapSync'],
  },
  // Served by the kernel itself, and by the daemon.
  { transport: 'kernel', cacheMode: 'writeback', without: [DIRECT], isClone: true },
  { transport: 'kernel', cacheMode: 'none', without: [], isClone: true },
];

const ALL: Scope = {
  processes: [...Array(PROCESSES).keys()],
  names: ['a.raw', 'b.raw', 'c.raw', 'j/a.raw', 'j/d.raw', 'k/a.raw'],
  directories: ['j', 'k'],
  shared: [],
  snapshots: ['one', 'two', 'three'],
  under: '',
};

const create = (p: number, name: string): Step => ({ op: 'open', p, slot: 0, name, kind: 'create' });

/** What is there at first: three disks in use, and a directory. */
const PROLOGUE: readonly Step[] = [
  { op: 'mkdir', p: 0, name: 'j' },
  ...['a.raw', 'b.raw', 'j/a.raw'].map((name, p) => create(p, name)),
];

function fixtureOf(subject: Subject, kind: BaseKind, processes: number, context: TestContext): SessionFixture {
  const { transport, cacheMode, isClone } = subject;
  if (isClone) needsRoot(context);
  const directory = scratch();
  const store = isClone ? formatted(directory, 'xfs', context) : undefined;
  const base = writeBase(store ?? directory, kind);
  const size = kind.diskBytes === undefined ? [] : ['--size', String(kind.diskBytes)];
  const strategy = ['--store-strategy', isClone ? 'reflink' : 'sparse'];
  const options = ['--transport', transport, '--cache', cacheMode, ...strategy, ...size];
  return {
    directory,
    store,
    base,
    diskBytes: kind.diskBytes ?? kind.bytes,
    options,
    processes,
    hidesRemoved: transport === 'fuse-native',
  };
}

/** What a person needs to look into it: the fewest steps that still show it. */
async function describeFailure(
  fixture: SessionFixture,
  steps: readonly Step[],
  seen: string,
  run: (mount: SessionMount, steps: readonly Step[]) => Promise<string | undefined>,
): Promise<string> {
  let last = seen;
  let lives = 0;
  const fewest = await reduceList(
    steps,
    async (candidate) => {
      const directory = join(fixture.directory, `again-${lives++}`);
      mkdirSync(directory);
      const message = await SessionMount.with({ ...fixture, directory }, (mount) => run(mount, candidate));
      last = message ?? last;
      return message !== undefined;
    },
    REDUCE_TIMEOUT_MS,
  );
  const lines = fewest.map((step) => `  ${JSON.stringify(step)}`);
  return [
    `seed ${SEED}, ${fixture.options.join(' ')}, disks of ${fixture.diskBytes} bytes: ${seen}`,
    `cut down to ${fewest.length} of ${steps.length} steps (last: ${last}):`,
    ...lines,
  ].join('\n');
}

/** One sequence and its end; what went wrong. */
async function live(mount: SessionMount, steps: readonly Step[]): Promise<string | undefined> {
  const difference = await mount.run(steps);
  if (difference !== undefined) return `step ${difference.index}: ${difference.message}`;
  return mount.settle(steps.length % 2 === 0).then(
    () => undefined,
    (error: unknown) => String(error),
  );
}

describe.each(SUBJECTS)('--transport $transport --cache $cacheMode, clones: $isClone', (subject) => {
  test.for(BASES.map((kind) => [kind.name, kind] as const))(
    'in one order, base of %s',
    { timeout: 300_000 },
    async ([, kind], context) => {
      const fixture = fixtureOf(subject, kind, PROCESSES, context);
      const seed = SEED + SUBJECTS.indexOf(subject) * BASES.length + BASES.indexOf(kind);
      const sequences = fc.sample(sequencesOf(ALL, fixture.diskBytes, STEPS), {
        seed,
        numRuns: SEQUENCES(fixture.diskBytes),
      });
      const carried = sequences.map((steps) => [...PROLOGUE, ...carriedOf(steps, subject.without)]);
      let failure: { steps: readonly Step[]; message: string } | undefined;
      await SessionMount.with(fixture, async (mount) => {
        for (const steps of carried) {
          const message = await live(mount, steps);
          if (message === undefined) continue;
          failure = { steps, message };
          return;
        }
      });
      if (failure !== undefined) expect.fail(await describeFailure(fixture, failure.steps, failure.message, live));
      console.log(
        `property: sessions, ${fixture.options.join(' ')}: ${carried.length} sequences, ${carried.flat().length} steps, ` +
          `${PROCESSES} processes, seed ${SEED}`,
      );
    },
  );

  test('at the same time, over one frozen parent', { timeout: 300_000 }, async (context) => {
    const kind = BASES[0] as BaseKind;
    const fixture = fixtureOf(subject, kind, LANES, context);
    const parent = 'parent.raw';
    const seed = SEED + SUBJECTS.indexOf(subject);
    let steps = 0;
    const failures: string[] = [];
    await SessionMount.with(fixture, async (mount) => {
      for (let round = 0; round < LANE_ROUNDS && failures.length === 0; round++) {
        const written = fc.sample(fc.tuple(fc.nat(fixture.diskBytes), fc.nat(99_999)), {
          seed: seed + round,
          numRuns: 8,
        });
        const difference = await mount.run([
          create(0, parent),
          ...written.map(
            ([off, each]): Step => ({ op: 'write', p: 0, slot: 0, name: parent, off, len: 30_000, seed: each }),
          ),
          { op: 'closeAll', p: 0, name: parent },
          ...[...Array(LANES).keys()].map((p): Step => ({ op: 'mkdir', p, name: `w${p}` })),
        ]);
        expect(difference).toBeUndefined();
        const lanes = [...Array(LANES).keys()].map((p) => {
          const under = `w${p}`;
          const scope: Scope = {
            processes: [p],
            names: ['a.raw', 'b.raw', 'c.raw'].map((name) => `${under}/${name}`),
            directories: [],
            shared: [parent],
            snapshots: ['one', 'two'].map((name) => `${under}-${name}`),
            under,
          };
          const [random] = fc.sample(sequencesOf(scope, fixture.diskBytes, STEPS), {
            seed: seed + round * LANES + p,
            numRuns: 1,
          }) as [Step[]];
          const fork: Step = { op: 'fork', p, name: parent, to: `${under}/a.raw` };
          return carriedOf([fork, ...random], subject.without);
        });
        const expected: StepOutcome[][] = [];
        for (const lane of lanes) expected.push(await mount.expect(lane));
        const differences = await Promise.all(
          lanes.map((lane, p): Promise<SessionDifference | undefined> => mount.follow(lane, expected[p] ?? [])),
        );
        steps += lanes.flat().length;
        for (const [p, each] of differences.entries()) {
          if (each === undefined) continue;
          const did = (lanes[p] ?? []).slice(0, each.index + 1).map((step) => `  ${JSON.stringify(step)}`);
          failures.push(`round ${round}, process ${p}: ${each.message}; it did\n${did.join('\n')}`);
        }
        if (failures.length === 0) await mount.settle(round % 2 === 0);
      }
    });
    if (failures.length > 0) expect.fail(`seed ${SEED}, ${fixture.options.join(' ')}:\n${failures.join('\n')}`);
    console.log(
      `property: sessions at the same time, ${fixture.options.join(' ')}: ${LANE_ROUNDS * LANES} sequences, ${steps} steps, ` +
        `${LANES} processes, seed ${SEED}`,
    );
  });
});
