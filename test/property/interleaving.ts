/**
 * Operations for processes that work on one file at the same time, each on bytes of its own: the file is cut into
 * granules that belong to the processes in turn. So what each of them reads, and what is there in the end, does not
 * depend on who comes first, while granules that no block size divides make them meet within the same blocks.
 */
import fc from 'fast-check';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE } from '../../src/sys/libc.ts';
import { type HandleKind, type Operation, PUNCH_HOLE, ZERO_KEEP_SIZE } from './operation.ts';

export const WRITERS = 4;
const OPERATIONS = 60;

export interface Interleaving {
  /** Bytes of a granule. */
  readonly granule: number;
  /** Bytes that every process's operations stay within, and where they begin. */
  readonly windowBytes: number;
  /** What each process may open its file as. */
  readonly kinds: readonly (readonly HandleKind[])[];
  /**
   * Besides reads and writes: holes and zeroed ranges, or shared mappings in windows that lie within the file. Never
   * both: the kernel zeroes its own pages only after the daemon has made a hole (fs/fuse/file.c, fuse_file_fallocate),
   * so a page that another process dirties meanwhile through a mapping is written back with the old bytes.
   */
  readonly with: 'holes' | 'mappings';
}

/** What every process does in one window, by process. */
export type Round = readonly (readonly Operation[])[];

/** @param withinFile whether the file already reaches past the window */
export function rounds(how: Interleaving, windowStart: number, withinFile: boolean): fc.Arbitrary<Round> {
  const { granule, windowBytes, kinds } = how;
  const first = Math.ceil(windowStart / granule);
  const count = Math.floor((windowStart + windowBytes) / granule) - first;
  const mapped = how.with === 'mappings' && withinFile;
  const perProcess = kinds.map((ownKinds, p) => {
    const own = Array.from({ length: count }, (_, i) => first + i).filter((index) => index % WRITERS === p);
    const place = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...own).map((index) => ({ off: index * granule, len: granule })) },
      {
        weight: 2,
        arbitrary: fc
          .tuple(fc.constantFrom(...own), fc.nat(granule - 1), fc.nat(granule - 1))
          .map(([index, a, b]) => ({ off: index * granule + Math.min(a, b), len: Math.abs(a - b) + 1 })),
      },
    );
    const operation = (op: string, weight: number, rest: object = {}): fc.WeightedArbitrary<Operation> => ({
      weight,
      arbitrary: fc
        .record({ range: place, seed: fc.nat(1_000_000), ...rest })
        .map(({ range, ...more }) => ({ op, p, slot: 0, ...range, ...more }) as Operation),
    });
    const modes = fc.constantFrom(
      PUNCH_HOLE,
      PUNCH_HOLE,
      PUNCH_HOLE,
      ZERO_KEEP_SIZE,
      FALLOC_FL_ZERO_RANGE,
      FALLOC_FL_KEEP_SIZE,
    );
    const random = fc.array(
      fc.oneof(
        operation('write', 10),
        operation('readPadded', 5),
        ...(how.with === 'holes' ? [operation('fallocate', 5, { mode: modes })] : []),
        operation('open', 1, { kind: fc.constantFrom(...ownKinds) }),
        operation('sync', 1),
        ...(mapped ? [operation('mapWrite', 4), operation('mapRead', 2)] : []),
      ),
      { minLength: OPERATIONS, maxLength: OPERATIONS, size: 'max' },
    );
    const start: Operation[] = [{ op: 'open', p, slot: 0, kind: ownKinds[0] as HandleKind }];
    if (mapped) start.push({ op: 'map', p, slot: 0, off: windowStart, len: windowBytes });
    const end: Operation[] = [{ op: 'unmap', p, slot: 0 }];
    return random.map((operations) => [...start, ...operations, ...end]);
  });
  return fc.tuple(...perProcess);
}
