/**
 * What the property tests of sessions do in a mount: the vocabulary of session-executor.mjs and the commands, and random
 * sequences of it. A step means the same wherever it is left out of a sequence or put on its own, so that a failing
 * sequence can be cut down: it names its disks, and opens what is not open.
 */
import fc from 'fast-check';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE } from '../../src/sys/libc.ts';
import { PUNCH_HOLE, rangesOf, ZERO_KEEP_SIZE } from './operation.ts';

/** Offsets and lengths in bytes; `seed` picks the bytes that are written. */
export interface Step {
  readonly op: string;
  /** The process that does it; -1 for each of them in turn. */
  readonly p: number;
  /** Which of its open files it uses; `name` is opened where it is none. */
  readonly slot?: number;
  /** From the mountpoint. */
  readonly name: string;
  readonly to?: string;
  readonly kind?: string;
  readonly off?: number;
  readonly len?: number;
  readonly mode?: number;
  readonly seed?: number;
  readonly snap?: string;
  readonly force?: boolean;
  /** Whether a command goes through the command line, not straight to the daemon. */
  readonly cli?: boolean;
}

/** What came of it; all of it has to be as with plain files. */
export interface StepOutcome {
  readonly errno?: string;
  /** The kind of the error with which a command refused. */
  readonly refusal?: string;
  readonly n?: number | null;
  readonly hash?: string;
  readonly size?: number;
  readonly names?: readonly string[];
  readonly contents?: readonly string[];
  readonly own?: readonly string[];
}

/** What the daemon is asked for, not the kernel. */
export const COMMANDS = ['fork', 'snapshot', 'deleteSnapshot', 'rollback', 'reset', 'snapshots'];

const SLOTS = 2;
const KINDS = ['cached', 'cached', 'direct', 'direct', 'readonly', 'append'];

/** Where the steps of a sequence may go. */
export interface Scope {
  readonly processes: readonly number[];
  /** Disks that it makes, changes and removes. */
  readonly names: readonly string[];
  readonly directories: readonly string[];
  /** Disks that others use, too: they are only read, and forked. */
  readonly shared: readonly string[];
  readonly snapshots: readonly string[];
  /** The directory that `check` looks at; empty for all. */
  readonly under: string;
}

/**
 * Sequences for disks of about so many bytes. The commands want the disk closed more often than chance would have it, so
 * many come with a step that closes it, and all processes look at all disks in the end.
 */
export function sequencesOf(scope: Scope, diskBytes: number, steps: number): fc.Arbitrary<Step[]> {
  const { off, len, near, atMost } = rangesOf(diskBytes);
  const p = fc.constantFrom(...scope.processes);
  const name = fc.constantFrom(...scope.names);
  const source = fc.constantFrom(...scope.names, ...scope.shared, ...scope.shared);
  const place = { p, slot: fc.nat(SLOTS - 1), name };
  const snap = fc.constantFrom(...scope.snapshots);
  const seed = fc.nat(1_000_000);
  const cli = fc.nat(11).map((n) => n === 0);
  const everybody = scope.processes.length > 1 ? -1 : (scope.processes[0] as number);
  type Rest = Partial<Record<keyof Step, fc.Arbitrary<unknown>>>;
  const record = (op: string, rest: Rest): fc.Arbitrary<Step> =>
    fc.record({ op: fc.constant(op), ...rest }) as unknown as fc.Arbitrary<Step>;
  const one = (op: string, weight: number, rest: Rest): fc.WeightedArbitrary<Step[]> => ({
    weight,
    arbitrary: record(op, rest).map((step) => [step]),
  });
  /** On a disk that everybody has let go of before, mostly. */
  const onClosed = (op: string, weight: number, rest: Rest): fc.WeightedArbitrary<Step[]> => ({
    weight,
    arbitrary: fc
      .tuple(record(op, rest), fc.nat(3))
      .map(([step, chance]) => (chance === 0 ? [step] : [{ op: 'letGo', p: everybody, name: step.name }, step])),
  });
  const size = fc.oneof({ weight: 4, arbitrary: near(fc.constant(diskBytes)) }, { weight: 2, arbitrary: off });
  const modes = fc.constantFrom(0, PUNCH_HOLE, PUNCH_HOLE, PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, ZERO_KEEP_SIZE);
  /** Steps on one disk, from which a layer of it is kept and given up. */
  const keeping: fc.WeightedArbitrary<Step[]> = {
    weight: 8,
    arbitrary: fc.record({ ...place, snap, to: name, chance: fc.nat(3) }).chain(({ chance, snap, to, ...on }) => {
      const fixed = Object.fromEntries(Object.entries(on).map(([key, value]) => [key, fc.constant(value)]));
      const change = fc.oneof(
        { weight: 2, arbitrary: record('write', { ...fixed, off, len, seed }) },
        { weight: 2, arbitrary: record('truncate', { ...fixed, off: size }) },
        { weight: 1, arbitrary: record('fallocate', { ...fixed, off, len, mode: modes }) },
      );
      // A layer with nothing in it but another size is a case of its own.
      const cut = record('truncate', { ...fixed, off: fc.oneof(size, off) });
      const changes = fc.oneof(
        { weight: 3, arbitrary: fc.array(change, { minLength: 1, maxLength: 4 }) },
        { weight: 1, arbitrary: fc.array(cut, { minLength: 2, maxLength: 3 }) },
      );
      const disk = { p: on.p, name: on.name };
      const keep: Step = chance < 3 ? { op: 'snapshot', ...disk, snap } : { op: 'fork', ...disk, to };
      const ends: Step[][] = [
        [{ op: 'deleteSnapshot', ...disk, snap }],
        [{ op: 'deleteSnapshot', ...disk, snap }],
        [
          { op: 'letGo', p: everybody, name: disk.name },
          { op: 'rollback', ...disk, snap },
        ],
        [{ op: 'unlink', p: disk.p, name: to }],
      ];
      const open: Step = { op: 'open', ...on, kind: 'create' };
      return fc
        .tuple(changes, changes)
        .map(([before, after]) => [open, ...before, keep, ...after, ...(ends[chance] as Step[])]);
    }),
  };
  const directorySteps = (): fc.WeightedArbitrary<Step[]>[] => {
    const directory = fc.constantFrom(...scope.directories);
    return [
      one('mkdir', 2, { p, name: directory }),
      one('rmdir', 1, { p, name: directory }),
      one('rename', 1, { p, name: directory, to: directory }),
    ];
  };
  const step = fc.oneof(
    one('open', 12, { ...place, kind: fc.constantFrom(...KINDS, 'truncate') }),
    one('open', 8, { ...place, kind: fc.constantFrom('create', 'create', 'create', 'createEmpty') }),
    one('close', 5, place),
    one('closeAll', 1, { p, name }),
    one('write', 30, { ...place, off, len, seed }),
    one('read', 12, { ...place, off, len }),
    one('truncate', 6, { ...place, off: size }),
    one('fallocate', 12, { ...place, off, len, mode: fc.oneof(modes, fc.constant(FALLOC_FL_KEEP_SIZE)) }),
    one('sync', 3, place),
    one('map', 5, { p, name, off, len }),
    one('mapWrite', 8, { p, name, off, len: atMost(30_000), seed }),
    one('mapRead', 4, { p, name, off, len: atMost(30_000) }),
    one('mapSync', 1, { p, name }),
    one('stat', 2, place),
    one('copy', 3, { p, name: source, to: name }),
    one('cp', 2, { p, name: source, to: name }),
    one('rename', 5, { p, name, to: name }),
    one('renameNoReplace', 1, { p, name, to: name }),
    one('exchange', 2, { p, name, to: name }),
    one('unlink', 5, { p, name }),
    ...(scope.directories.length === 0 ? [] : directorySteps()),
    one('fork', 10, { p, name: source, to: name, cli }),
    one('snapshot', 8, { p, name: source, snap, cli }),
    one('deleteSnapshot', 4, { p, name: source, snap, cli }),
    one('snapshots', 2, { p, name }),
    onClosed('rollback', 8, { p, name, snap, cli }),
    onClosed('reset', 4, { p, name, cli }),
    one('reset', 2, { p, name, force: fc.constant(true), cli }),
    keeping,
    one('check', 12, { p, name: fc.constant(scope.under), kind: fc.constantFrom('readonly', 'direct') }),
  );
  const looks = scope.processes.map(
    (each): Step => ({ op: 'check', p: each, name: scope.under, kind: each % 2 === 0 ? 'readonly' : 'direct' }),
  );
  return fc
    .array(step, { minLength: steps, maxLength: steps, size: 'max' })
    .map((lists) => [...lists.flat(), ...looks]);
}
