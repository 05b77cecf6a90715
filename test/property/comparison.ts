/**
 * One mount's life beside a plain copy of its base: the same operations on both, one at a time but from several
 * processes, and every answer compared.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { CacheMode } from '../../src/fs/options.ts';
import { makeMountpoint, mountDisk, mustCowfs, sha256 } from '../harness.ts';
import { Executor } from './executor.ts';
import { TimeRule } from './mtime.ts';
import { type Operation, type Outcome, PROCESSES } from './operation.ts';

/** Executors for the processes on the mount, and one that does the same to the plain file. */
export interface Crew {
  readonly processes: readonly Executor[];
  readonly oracle: Executor;
}

export function makeCrew(processes = PROCESSES): Crew {
  return { processes: Array.from({ length: processes }, () => new Executor()), oracle: new Executor() };
}

export function stopCrew({ processes, oracle }: Crew): void {
  for (const executor of [...processes, oracle]) executor.stop();
}

export interface Fixture {
  /** Scratch directory. */
  readonly directory: string;
  /** Where the store is, if not there. */
  readonly store?: string | undefined;
  readonly base: string;
  readonly cacheMode: CacheMode;
  /** More options for `cowfs mount`. */
  readonly options: readonly string[];
  /** Of the base, or what the options make of it. */
  readonly diskBytes: number;
  /** File that is to keep the disk, made anew for each mount. */
  readonly overlay?: string | undefined;
}

/** Where both files are. */
export interface Pair {
  readonly disk: string;
  readonly plain: string;
}

/** A fresh mount and a fresh copy for as long as `use` takes; the crew has let go of both by then. */
export async function withMount<T>(fixture: Fixture, crew: Crew, use: (pair: Pair) => Promise<T>): Promise<T> {
  const plain = join(fixture.directory, 'plain.img');
  copyFileSync(fixture.base, plain);
  truncateSync(plain, fixture.diskBytes);
  const { overlay } = fixture;
  if (overlay !== undefined) rmSync(overlay, { force: true });
  const { mountpoint, disk } = mountDisk(fixture.base, makeMountpoint(fixture.directory), [
    '--store',
    fixture.store ?? makeDirectory(fixture.directory, 'store'),
    '--cache',
    fixture.cacheMode,
    ...fixture.options,
    ...(overlay === undefined ? [] : ['--overlay', overlay]),
  ]);
  try {
    let result: T;
    try {
      await Promise.all([...crew.processes.map((process) => process.use(disk)), crew.oracle.use(plain, true)]);
      result = await use({ disk, plain });
    } finally {
      await Promise.allSettled(crew.processes.map((process) => process.use('')));
      mustCowfs(['unmount', ...(overlay === undefined ? ['--force'] : []), mountpoint]);
    }
    if (overlay !== undefined && result === undefined) await compareKept(overlay, plain);
    return result;
  } finally {
    rmSync(plain);
  }
}

/** What was equal while it was mounted has to be in the file afterwards. */
async function compareKept(overlay: string, plain: string): Promise<void> {
  mustCowfs(['check', overlay]);
  // A disk that was cut to nothing is nothing, too.
  const exported = `${overlay}.img`;
  mustCowfs(['export', overlay, exported, '--force']);
  const [kept, expected] = await Promise.all([sha256(exported), sha256(plain)]);
  if (kept !== expected) throw new Error(`${overlay} does not have what the disk had when it was unmounted`);
}

function makeDirectory(parent: string, name: string): string {
  const path = join(parent, name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** The first answer that was not the plain file's. */
export interface Difference {
  /** Of the operation in the list. */
  readonly index: number;
  readonly message: string;
}

/** Does the operations in this order on both files. */
export class Comparison {
  readonly #crew: Crew;
  readonly #pair: Pair;
  readonly #times: TimeRule;

  constructor(crew: Crew, pair: Pair, cacheMode: CacheMode) {
    this.#times = new TimeRule(cacheMode);
    this.#crew = crew;
    this.#pair = pair;
  }

  async run(ops: readonly Operation[]): Promise<Difference | undefined> {
    const expectation = this.#crew.oracle.run(ops);
    expectation.catch(() => undefined);
    const actual: Outcome[] = [];
    let lost: string | undefined;
    while (actual.length < ops.length && lost === undefined) {
      const batch = leadingRun(ops.slice(actual.length));
      try {
        actual.push(...(await (this.#crew.processes[batch[0]?.p ?? 0] as Executor).run(batch)));
      } catch (error) {
        lost = String(error);
      }
    }
    const expected = await expectation;
    for (const [index, op] of ops.entries()) {
      const [got, wanted] = [actual[index], expected[index] ?? {}];
      if (got === undefined) return { index, message: lost ?? 'no result' };
      const [ours, theirs] = [this.#times.normalise(op, got), this.#times.normalise(op, wanted)];
      if (!isDeepStrictEqual(ours, theirs)) {
        const where = op.op === 'content' ? `; ${firstDifference(this.#pair)}` : '';
        return { index, message: `${JSON.stringify(ours)} where a plain file gives ${JSON.stringify(theirs)}${where}` };
      }
      this.#times.follow(op, wanted);
    }
    return undefined;
  }
}

/** Operations from the start on that the same process does. */
function leadingRun(ops: readonly Operation[]): readonly Operation[] {
  const end = ops.findIndex(({ p }) => p !== ops[0]?.p);
  return end < 0 ? ops : ops.slice(0, end);
}

/** For a person: where the files part. */
export function firstDifference({ disk, plain }: Pair): string {
  const [ours, theirs] = [readFileSync(disk), readFileSync(plain)];
  const common = Math.min(ours.length, theirs.length);
  let first = 0;
  while (first < common && ours[first] === theirs[first]) first++;
  if (first === common) return `read again: sizes ${ours.length} and ${theirs.length}, equal up to there`;
  let last = common - 1;
  while (ours[last] === theirs[last]) last--;
  const show = (bytes: Buffer): string => bytes.subarray(first, first + 8).toString('hex');
  return `read again: bytes differ from ${first} to ${last} (${show(ours)} for ${show(theirs)}), sizes ${ours.length} and ${theirs.length}`;
}
