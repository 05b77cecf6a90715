/**
 * What the property tests do to a file: the vocabulary of executor.mjs, and random sequences of it for the sequential
 * test. An operation means the same wherever it is left out of a sequence or put on its own, so that a failing
 * sequence can be cut down.
 */
import fc from 'fast-check';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '../../src/sys/libc.ts';

const PAGE = 4096;

export const PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
export const ZERO_KEEP_SIZE = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

export type HandleKind = 'cached' | 'direct' | 'readonly' | 'append' | 'truncate';

/** Offsets and lengths in bytes; `seed` picks the bytes that are written. */
export interface Operation {
  readonly op: string;
  /** The process that does it, and which of its open files it uses. */
  readonly p: number;
  readonly slot: number;
  readonly kind?: HandleKind;
  readonly off?: number;
  readonly len?: number;
  readonly to?: number;
  readonly mode?: number;
  readonly seconds?: number;
  readonly seed?: number;
}

/** As executor.mjs answers; all of it has to be as on a plain file. */
export interface Outcome {
  readonly errno?: string;
  readonly n?: number;
  readonly hash?: string;
  readonly size?: number;
  readonly mode?: string;
  readonly mtimeMs?: number;
  readonly extents?: string;
}

export const PROCESSES = 3;
const SLOTS = 2;

/** Fallocate modes of a disk, and two that are refused. */
const FALLOCATE_MODES = [
  0,
  FALLOC_FL_KEEP_SIZE,
  PUNCH_HOLE,
  PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  ZERO_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];
const MODES = [0o600, 0o644, 0o660, 0o755];

/** What every process has at first: a cached file, and one past the cache. */
const OPENED = Array.from({ length: PROCESSES }, (_, p): Operation[] => [
  { op: 'open', p, slot: 0, kind: 'cached' },
  { op: 'open', p, slot: 1, kind: 'direct' },
]).flat();

export const PROLOGUE: readonly Operation[] = [...OPENED, { op: 'chmod', p: 0, slot: 0, mode: 0o644 }];

/** The end of every sequence: the whole file, through the kernel's cache and past it. */
const EPILOGUE: readonly Operation[] = [
  { op: 'content', p: 0, slot: 0, kind: 'readonly' },
  { op: 'content', p: 1, slot: 0, kind: 'direct' },
];

/** Holes while nobody has the file open for writing: only then does the kernel hide nothing from the daemon. */
function settled(offsets: readonly number[]): Operation[] {
  return [
    ...OPENED.filter(({ slot }) => slot === 0).map(({ p }): Operation => ({ op: 'close', p, slot: 0 })),
    { op: 'open', p: 0, slot: 0, kind: 'readonly' },
    ...offsets.map((off): Operation => ({ op: 'extents', p: 0, slot: 0, off, seed: off })),
    ...OPENED,
  ];
}

export interface Ranges {
  /** A bit beyond the end of the disk. */
  readonly reach: number;
  readonly off: fc.Arbitrary<number>;
  readonly len: fc.Arbitrary<number>;
  near(place: fc.Arbitrary<number>): fc.Arbitrary<number>;
  atMost(bytes: number): fc.Arbitrary<number>;
}

/** Offsets and lengths that matter on a disk of about so many bytes. */
export function rangesOf(diskBytes: number): Ranges {
  // Beyond the end, too; the smallest disks grow by some blocks.
  const reach = diskBytes + Math.max(3 * PAGE, Math.floor(diskBytes / 8));
  const edge = fc.integer({ min: -9, max: 9 });
  const near = (place: fc.Arbitrary<number>): fc.Arbitrary<number> =>
    fc.tuple(place, edge).map(([at, by]) => Math.max(0, at + by));
  const blockStart = fc.nat(Math.ceil(reach / PAGE)).map((block) => block * PAGE);
  const off = fc.oneof(
    { weight: 4, arbitrary: fc.nat(reach) },
    { weight: 4, arbitrary: near(blockStart) },
    { weight: 2, arbitrary: blockStart },
    { weight: 2, arbitrary: near(fc.constant(diskBytes)) },
  );
  const atMost = (bytes: number): fc.Arbitrary<number> => fc.integer({ min: 1, max: Math.min(bytes, 2 * reach) });
  const len = fc.oneof(
    { weight: 4, arbitrary: atMost(600) },
    { weight: 3, arbitrary: near(fc.constantFrom(PAGE, 2 * PAGE, 3 * PAGE)) },
    { weight: 3, arbitrary: atMost(20_000) },
    { weight: 2, arbitrary: atMost(200_000) },
    ...(diskBytes > 2 ** 20 ? [{ weight: 1, arbitrary: fc.integer({ min: 2 ** 20 - 99, max: 2 ** 20 + 5000 }) }] : []),
  );
  return { reach, off, len, near, atMost };
}

/** A sequence of 10 to 30 operations for a disk of about so many bytes, and a look at what came out. */
export function sequences(diskBytes: number): fc.Arbitrary<Operation[]> {
  const { off, len, near, atMost } = rangesOf(diskBytes);
  const seed = fc.nat(1_000_000);
  const p = fc.nat(PROCESSES - 1);
  const slot = fc.nat(SLOTS - 1);
  const operation = <T extends Partial<Record<keyof Operation, fc.Arbitrary<unknown>>>>(
    op: string,
    weight: number,
    rest: T,
  ): fc.WeightedArbitrary<Operation> => ({
    weight,
    arbitrary: fc.record({ op: fc.constant(op), p, slot, ...rest }) as unknown as fc.Arbitrary<Operation>,
  });
  const operations = fc.array(
    fc.oneof(
      operation('write', 24, { off, len, seed }),
      operation('read', 16, { off, len }),
      operation('fallocate', 12, { off, len, mode: fc.constantFrom(...FALLOCATE_MODES) }),
      // Mostly near the end: what is cut off of the base never comes back.
      operation('truncate', 5, {
        off: fc.oneof({ weight: 4, arbitrary: near(fc.constant(diskBytes)) }, { weight: 1, arbitrary: off }),
      }),
      operation('append', 3, { len: atMost(9000), seed }),
      operation('extents', 5, { off: fc.oneof(fc.constant(0), off), seed }),
      operation('copyRange', 2, { off, to: off, len }),
      operation('sync', 3, { seed }),
      operation('map', 4, { off, len }),
      operation('mapWrite', 6, { off, len, seed }),
      operation('mapRead', 5, { off, len }),
      operation('mapSync', 1, {}),
      operation('unmap', 1, {}),
      operation('mapPrivate', 2, { off, len: atMost(20_000), seed }),
      operation('open', 7, {
        kind: fc.oneof(
          { weight: 20, arbitrary: fc.constantFrom<HandleKind>('cached', 'direct', 'direct', 'readonly', 'append') },
          { weight: 1, arbitrary: fc.constant<HandleKind>('truncate') },
        ),
      }),
      operation('chmod', 1, { mode: fc.constantFrom(...MODES) }),
      operation('utimes', 2, { seconds: fc.nat(1_000_000_000) }),
      operation('stat', 4, {}),
      operation('far', 1, { off: fc.integer({ min: PAGE, max: 9 * PAGE }), seed }),
    ),
    { minLength: 10, maxLength: 30, size: 'max' },
  );
  return fc
    .tuple(operations, fc.boolean(), fc.tuple(off, off))
    .map(([ops, settles, offsets]) => [...ops, ...(settles ? settled([0, ...offsets]) : []), ...EPILOGUE]);
}
