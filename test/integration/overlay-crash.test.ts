/**
 * kill -9 of the daemon at random moments, while many processes write to the kept disk in every way and remember, each for
 * itself, what they wrote and what was synced: at the next mount every synced byte is there, or what was written there later,
 * and `check` finds no damage. What was found then has to stay, too. COWFS_SEED repeats what is written and for how
 * long, not the moments; COWFS_CRASH_ROUNDS multiplies the rounds.
 */
import { closeSync, fstatSync, openSync, readSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import readline from 'node:readline';
import { expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, mustCowfs, scratch, start } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { expectNothingLeft } from './nothing-left-support.ts';
import { type KeptDisk, killed, lookInto, MIB, randomOf, remounted, SEED, unmounted } from './overlay-support.ts';
import { ALL_MODES, type Mode } from './sessions-support.ts';

const WRITER = join(import.meta.dirname, 'overlay-crash-writer.mjs');
const FACTOR = Number(process.env['COWFS_CRASH_ROUNDS'] ?? 1);
const ROUNDS: Readonly<Record<string, number>> = { 'kernel, writeback': 20 };
const OTHER_ROUNDS = 8;
const LONGEST_MS = 250;
const UNIT = 512;
/** Of an odd length; more than four pages of the map; the tail begins below its end. */
const BASE_BYTES = 256 * MIB + 3 * UNIT;
const TAIL = 255 * MIB + 512 * 1024;
/** How they write; libfuse 2 has no holes to punch. */
const KINDS = ['direct', 'cached', 'direct dsync', 'cached dsync', 'tail', 'punch'];

/** Of a unit: 0 for zeros, a version for what a writer wrote, or what the base has. */
type State = number | 'base';

interface Told {
  readonly kind: string;
  readonly error: string;
  readonly writes: number;
  readonly syncs: number;
  readonly units: readonly (readonly number[])[];
  readonly sizes: readonly number[];
}

class Writer {
  readonly #child;
  readonly #lines;

  constructor(kind: string, number: number, count: number) {
    const args = [WRITER, kind, String(number), String(count), String(TAIL)];
    this.#child = start(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdout } = this.#child;
    if (stdout === null) throw new Error('no pipe');
    this.#lines = readline.createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** Resolves when it is about to write. */
  async play(order: { disk: string; round: number; seed: number }): Promise<void> {
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
    expect((await this.#lines.next()).value).toBe('writing');
  }

  async told(): Promise<Told> {
    return JSON.parse((await this.#lines.next()).value) as Told;
  }
}

/** What the disk has to be, over many deaths. */
class Model {
  readonly #states = new Map<number, State>();
  #size = BASE_BYTES / UNIT;
  readonly #base: number;
  checkedUnits = 0;
  syncedUnits = 0;
  lostUnits = 0;

  constructor(base: string) {
    this.#base = openSync(base, 'r');
  }

  close(): void {
    closeSync(this.#base);
  }

  /** Compares the disk with what a writer tells; what is found is what has to be there from now on. */
  check(disk: number, { kind, units, sizes }: Told): string[] {
    const wrong: string[] = [];
    const [sizeSynced, ...laterSizes] = sizes;
    if (laterSizes.length > 0) {
      const allowed = sizeSynced === 1 ? laterSizes : [this.#size, ...laterSizes];
      const size = fstatSync(disk).size / UNIT;
      if (!allowed.includes(size)) wrong.push(`${kind}: size ${size}, not ${allowed}`);
      this.#size = size;
    }
    for (const [unit = 0, synced, ...states] of units) {
      const before = this.#states.get(unit) ?? (unit < BASE_BYTES / UNIT ? 'base' : 0);
      const allowed = synced === 1 ? states : [before, ...states];
      const found = allowed.map((state) => this.#isThere(disk, unit, state));
      const index = found.lastIndexOf(true);
      if (index < 0) wrong.push(`${kind}: unit ${unit} is ${this.#describe(disk, unit)}, not ${allowed}`);
      this.#states.set(unit, allowed[index] ?? 0);
      this.checkedUnits += 1;
      this.syncedUnits += synced ?? 0;
      if (index < allowed.length - 1) this.lostUnits += 1;
    }
    return wrong;
  }

  /** All that was ever found. */
  checkAll(disk: number): string[] {
    const size = fstatSync(disk).size / UNIT;
    const wrong = size === this.#size ? [] : [`size ${size}, not ${this.#size}`];
    for (const [unit, state] of this.#states) {
      if (!this.#isThere(disk, unit, state)) wrong.push(`unit ${unit} is ${this.#describe(disk, unit)}, not ${state}`);
    }
    return wrong;
  }

  #isThere(disk: number, unit: number, state: State): boolean {
    const expected = state === 'base' ? read(this.#base, unit) : filledUnit(unit, state);
    return read(disk, unit).equals(expected);
  }

  #describe(disk: number, unit: number): string {
    const bytes = read(disk, unit);
    if (bytes.every((byte) => byte === 0)) return 'zeros';
    if (bytes.equals(read(this.#base, unit))) return 'the base';
    const words = new Set(
      Array.from({ length: UNIT / 8 }, (_, at) => `${bytes.readUInt32LE(at * 8)}v${bytes.readUInt32LE(at * 8 + 4)}`),
    );
    return [...words].slice(0, 4).join(' ');
  }
}

/** Zeros past the end. */
function read(fd: number, unit: number): Buffer {
  const bytes = Buffer.alloc(UNIT);
  readSync(fd, bytes, 0, UNIT, unit * UNIT);
  return bytes;
}

function filledUnit(unit: number, version: number): Buffer {
  const bytes = Buffer.alloc(UNIT);
  for (let at = 0; version > 0 && at < UNIT; at += 8) {
    bytes.writeUInt32LE(unit, at);
    bytes.writeUInt32LE(version, at + 4);
  }
  return bytes;
}

/** A large base that takes little: random bytes at its start and end, holes and marks between. */
function sparseBase(directory: string): string {
  const base = makeBase(directory, 4 * MIB);
  truncateSync(base, BASE_BYTES);
  const fd = openSync(base, 'r+');
  for (let at = 8 * MIB; at < TAIL; at += 4 * MIB) writeSync(fd, Buffer.alloc(MIB, at / MIB), 0, MIB, at);
  writeSync(fd, Buffer.alloc(BASE_BYTES - TAIL, 0xee), 0, BASE_BYTES - TAIL, TAIL);
  closeSync(fd);
  return base;
}

test.for(ALL_MODES)('$name: what was synced survives kill -9', async (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  const rounds = Math.ceil((ROUNDS[mode.name] ?? OTHER_ROUNDS) * FACTOR);
  const random = randomOf(SEED);
  const directory = scratch();
  const base = sparseBase(directory);
  const before = statSync(base);
  const place = { directory, base, original: Buffer.alloc(0), mountpoint: makeMountpoint(directory) };
  const disk = { ...place, overlay: join(directory, 'vm.cow') };
  const options = ['--transport', mode.transport, '--cache', mode.cache];
  const kinds = mode.transport === 'kernel' ? KINDS : KINDS.slice(0, -1);
  const writers = kinds.map((kind, number) => new Writer(kind, number, kinds.length));
  const model = new Model(base);
  const sum = { writes: 0, syncs: 0, leftovers: 0 };
  for (let round = 1; round <= rounds; round++) {
    const kept = remounted(disk, options);
    const seed = random(2 ** 31);
    await Promise.all(writers.map((writer) => writer.play({ disk: kept.disk, round, seed })));
    await new Promise((wake) => setTimeout(wake, random(LONGEST_MS)));
    const told = await killedUnder(kept, writers);
    const { problems } = lookInto(kept.overlay);
    const what = `seed ${SEED}, round ${round}`;
    expect(
      problems.filter(({ kind }) => kind !== 'leftover'),
      what,
    ).toEqual([]);
    if (round % 8 === 0) expect(cowfs(['check', kept.overlay]), what).toMatchObject({ status: 0, stderr: '' });
    const again = remounted(disk, options);
    const fd = openSync(again.disk, 'r');
    const wrong = told.flatMap((each) => model.check(fd, each));
    closeSync(fd);
    expect(wrong.slice(0, 20), `${what}, ${wrong.length} wrong`).toEqual([]);
    for (const { writes, syncs, error, kind } of told) {
      expect(error, `${what}, ${kind}`).toMatch(/^(ENOTCONN|ECONNABORTED|EIO)$/);
      sum.writes += writes;
      sum.syncs += syncs;
    }
    sum.leftovers += problems.length;
    mustCowfs(['unmount', again.mountpoint]);
    await expectNothingLeft(again.mountpoint);
  }
  const last = remounted(disk, options);
  const fd = openSync(last.disk, 'r');
  expect(model.checkAll(fd).slice(0, 20), `seed ${SEED}`).toEqual([]);
  closeSync(fd);
  await unmounted(last);
  model.close();
  const now = statSync(base);
  expect([now.mtimeMs, now.ctimeMs]).toEqual([before.mtimeMs, before.ctimeMs]);
  console.log(figures(mode, rounds, sum, model));
  expect(sum.syncs).toBeGreaterThan(rounds);
});

/** Kills the daemon; what its writers tell when they have got their errors. */
async function killedUnder(kept: KeptDisk, writers: readonly Writer[]): Promise<Told[]> {
  const [told] = await Promise.all([Promise.all(writers.map((writer) => writer.told())), killed(kept)]);
  return told;
}

function figures(
  { name }: Mode,
  rounds: number,
  { writes, syncs, leftovers }: Readonly<Record<'writes' | 'syncs' | 'leftovers', number>>,
  { checkedUnits, syncedUnits, lostUnits }: Model,
): string {
  return (
    `${name}: ${rounds} times kill -9 (seed ${SEED}): ${writes} writes, ${syncs} syncs; of ${checkedUnits} units of ${UNIT} ` +
    `bytes looked at ${syncedUnits} had been synced, all there; of ${lostUnits} the last write was never synced and is ` +
    `gone; ${leftovers} leftovers cleared`
  );
}
