/**
 * A writer on a disk that may die at any moment, and its memory of what has to be there afterwards. Knows nothing of
 * cowfs. Arguments: how it writes, its number, how many writers there are, where the tail of the disk begins (bytes).
 *
 * For each line `{disk, round, seed}` on standard input it writes until it gets an error, then tells what it did:
 * for every unit that it touched, whether its own writes to it were ever synced in that round, and all states that it may
 * have: the one that was synced last, and those that came after. A state is 0 for zeros, else the version that the unit
 * is filled with. The size of the disk is told in the same way, by the writer of the tail.
 */
import fs from 'node:fs';
import readline from 'node:readline';
import { aligned, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../system-calls.mjs';

/** What is never written in part, in bytes. */
const UNIT = 512;
const SLOT_UNITS = 32;
const SLOTS = 200;
const TAIL_UNITS = 2048;

const [kind = '', numberText, writersText, tailText] = process.argv.slice(2);
const [number, writers, tail] = [Number(numberText), Number(writersText), Number(tailText) / UNIT];
const direct = kind.includes('direct') ? fs.constants.O_DIRECT : 0;
const dsync = kind.includes('dsync') ? fs.constants.O_DSYNC : 0;
const buffer = aligned(SLOT_UNITS * UNIT);

let state = 0;
/** Below a limit (mulberry32). */
function random(below) {
  state = (state + 0x6d2b79f5) | 0;
  let bits = Math.imul(state ^ (state >>> 15), 1 | state);
  bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
  return Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * below);
}

/** First unit of a slot: half of them side by side with those of the other writers, the others far apart. */
function slotAt(slot) {
  const place = slot * writers + number;
  return place * SLOT_UNITS * (slot < SLOTS / 2 ? 1 : 12);
}

class Memory {
  units = new Map();
  sizes = { synced: false, states: [] };
  #since = new Set();

  attempt(unit, version) {
    const memory = this.units.get(unit) ?? { synced: false, states: [] };
    this.units.set(unit, memory);
    if (memory.states.at(-1) !== version) memory.states.push(version);
    this.#since.add(memory);
  }

  attemptSize(units) {
    this.sizes.states.push(units);
    this.#since.add(this.sizes);
  }

  /** All that was attempted came to its end before this was asked for. */
  synced() {
    for (const memory of this.#since) {
      memory.synced = true;
      memory.states.splice(0, memory.states.length - 1);
    }
    this.#since.clear();
  }

  told() {
    const units = [...this.units].map(([unit, { synced, states }]) => [unit, synced ? 1 : 0, ...states]);
    return { units, sizes: [this.sizes.synced ? 1 : 0, ...this.sizes.states] };
  }
}

function play({ disk, round, seed }) {
  state = seed ^ (number * 7919);
  const memory = new Memory();
  const counts = { writes: 0, syncs: 0 };
  let version = round * 100_000;
  let size;
  let error = '';
  const files = [];
  try {
    const file = fs.openSync(disk, fs.constants.O_RDWR | direct | dsync);
    // What one handle wrote another one makes durable, too.
    const other = fs.openSync(disk, fs.constants.O_RDWR);
    files.push(file, other);
    size = fs.fstatSync(file).size / UNIT;
    console.log('writing');
    for (;;) step(file, other);
  } catch (caught) {
    error = caught.code ?? String(caught.stack);
  }
  for (const file of files) {
    try {
      fs.closeSync(file);
    } catch {
      // The mount is gone.
    }
  }
  console.log(JSON.stringify({ kind, error, ...counts, ...memory.told() }));

  function step(file, other) {
    const dice = random(100);
    if (dice < 12 && dsync === 0) return sync(random(2) === 0 ? file : other);
    if (kind === 'punch' && dice < 35) return punch(file);
    if (kind === 'tail' && dice < 30) return truncate(file);
    write(file);
  }

  function sync(file) {
    if (random(2) === 0) fs.fsyncSync(file);
    else fs.fdatasyncSync(file);
    memory.synced();
    counts.syncs++;
  }

  function place() {
    const isTail = kind === 'tail';
    const within = random(isTail ? TAIL_UNITS - SLOT_UNITS : SLOT_UNITS);
    // Some in odd places, most as a file system writes: whole blocks.
    const start = random(3) === 0 ? within : within & ~7;
    const most = isTail ? SLOT_UNITS : SLOT_UNITS - start;
    const count = random(3) === 0 ? 1 + random(most) : Math.min(most, 8 * (1 + random(4)));
    return { first: (isTail ? tail : slotAt(random(SLOTS))) + start, count };
  }

  function write(file) {
    const { first, count } = place();
    version++;
    for (let unit = 0; unit < count; unit++) {
      memory.attempt(first + unit, version);
      for (let at = unit * UNIT; at < (unit + 1) * UNIT; at += 8) {
        buffer.writeUInt32LE(first + unit, at);
        buffer.writeUInt32LE(version, at + 4);
      }
    }
    if (first + count > size) memory.attemptSize(first + count);
    // One that meets the death of the mount may be short; the next one gets the error.
    for (let done = 0; done < count * UNIT; ) {
      done += fs.writeSync(file, buffer, done, count * UNIT - done, first * UNIT + done);
    }
    size = Math.max(size, first + count);
    counts.writes++;
    if (dsync !== 0) {
      memory.synced();
      counts.syncs++;
    }
  }

  function punch(file) {
    const { first, count } = place();
    for (let unit = 0; unit < count; unit++) memory.attempt(first + unit, 0);
    fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * UNIT, count * UNIT);
    counts.writes++;
  }

  function truncate(file) {
    const to = tail + random(TAIL_UNITS);
    // Also what was never written: the base shows there.
    for (let unit = to; unit < tail + TAIL_UNITS; unit++) memory.attempt(unit, 0);
    memory.attemptSize(to);
    fs.ftruncateSync(file, to * UNIT);
    size = to;
    counts.writes++;
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) play(JSON.parse(line));
