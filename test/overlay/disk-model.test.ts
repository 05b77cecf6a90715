/**
 * Disks against a plain buffer and a plain array of states: any sequence of operations gives the bytes, sizes, counts
 * and errors of the model. Base and store are real files.
 */
import { rmSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { ENOSPC, ENXIO, OK } from '../../src/lib/errno.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import { scratch } from '../harness.ts';
import { type DiskFixture, difference, openDisk, readDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

// Seconds on an idle machine; the others on a busy one wait their turn.
vi.setConfig({ testTimeout: 60_000 });

const BLOCK = 4096;
/** Room for growth past every base here. */
const MOST = 200_000;
const blockOf = (byte: number): number => Math.floor(byte / BLOCK);

type State = 'base' | 'store' | 'zero' | 'reserved';

/** What a disk should do, one block at a time. */
class Model {
  readonly bytes: Buffer;
  size: number;
  baseLimit: number;
  readonly states: State[] = new Array<State>(blockOf(MOST) + 2).fill('base');
  readonly #quota: number;

  constructor(content: Buffer, quotaBlocks: number) {
    this.bytes = Buffer.alloc(MOST + 2 * BLOCK);
    content.copy(this.bytes);
    this.size = content.length;
    this.baseLimit = content.length;
    this.#quota = quotaBlocks;
  }

  count(...wanted: State[]): number {
    return this.states.filter((state) => wanted.includes(state)).length;
  }

  /** Bytes written from the start, up to the first block that finds no room. */
  write(offset: number, data: Buffer): number {
    let done = 0;
    while (done < data.length) {
      const block = blockOf(offset + done);
      if (!this.#take(block)) break;
      const length = Math.min(data.length - done, (block + 1) * BLOCK - offset - done);
      data.copy(this.bytes, offset + done, done, done + length);
      done += length;
    }
    if (done > 0) this.size = Math.max(this.size, offset + done);
    return done;
  }

  discard(offset: number, length: number): void {
    const end = offset + length >= this.size ? Math.ceil((offset + length) / BLOCK) * BLOCK : offset + length;
    for (let block = blockOf(offset); block * BLOCK < end; block++) {
      const from = Math.max(offset, block * BLOCK);
      const to = Math.min(end, (block + 1) * BLOCK);
      if (to - from === BLOCK) this.states[block] = 'zero';
      else if (from < this.baseLimit && this.#showsBase(block)) this.states[block] = 'store';
      this.bytes.fill(0, from, to);
    }
  }

  allocate(offset: number, length: number, keepSize: boolean): boolean {
    const blocks = Array.from(
      { length: blockOf(offset + length - 1) - blockOf(offset) + 1 },
      (_, index) => blockOf(offset) + index,
    );
    const vacant = blocks.filter((block) => this.#isVacant(block));
    if (this.count('store', 'reserved') + vacant.length > this.#quota) return false;
    for (const block of vacant) {
      this.states[block] = this.states[block] === 'base' && block * BLOCK < this.baseLimit ? 'reserved' : 'store';
    }
    if (!keepSize) this.size = Math.max(this.size, offset + length);
    return true;
  }

  truncate(size: number): void {
    if (size < this.size) {
      this.bytes.fill(0, size);
      for (let block = Math.ceil(size / BLOCK); block < this.states.length; block++) {
        // A zero block may stay one: both read as zeros past the limit of the base.
        this.states[block] = 'base';
      }
      this.baseLimit = Math.min(this.baseLimit, size);
    }
    this.size = size;
  }

  #showsBase(block: number): boolean {
    return this.states[block] === 'base' || this.states[block] === 'reserved';
  }

  #isVacant(block: number): boolean {
    return this.states[block] === 'base' || this.states[block] === 'zero';
  }

  #take(block: number): boolean {
    if (this.#isVacant(block) && this.count('store', 'reserved') >= this.#quota) return false;
    this.states[block] = 'store';
    return true;
  }
}

const offsets = fc.oneof(
  fc.integer({ min: 0, max: 150_000 }),
  // At, before and behind the borders of blocks, and within the first and the last few bytes.
  fc
    .tuple(fc.integer({ min: 0, max: 36 }), fc.integer({ min: -2, max: 2 }))
    .map(([block, by]) => Math.max(0, block * BLOCK + by)),
);
const lengths = fc.oneof(
  fc.integer({ min: 1, max: 40_000 }),
  fc.integer({ min: 1, max: 9 }),
  fc.constantFrom(BLOCK, 2 * BLOCK, BLOCK - 1, BLOCK + 1),
);
const operations = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      offset: offsets,
      length: lengths,
      seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), offset: offsets, length: lengths }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('discard' as const), offset: offsets, length: lengths }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('allocate' as const),
      offset: offsets,
      length: lengths,
      keepSize: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('truncate' as const), size: offsets }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('seek' as const), offset: offsets }) },
);
type Operation = typeof operations extends fc.Arbitrary<infer Value> ? Value : never;

function step(disk: Disk, model: Model, operation: Operation): void {
  switch (operation.kind) {
    case 'write': {
      const { offset, length, seed } = operation;
      const data = nonZeroBytes(length + 7, seed);
      const errno = disk.write(offset, length, data, 7);
      const fits = model.write(offset, data.subarray(7));
      expect([errno, disk.transferred]).toEqual([fits === length ? OK : ENOSPC, fits]);
      return;
    }
    case 'read': {
      const { offset, length } = operation;
      const into = Buffer.alloc(length + 9, 0xee);
      expect(disk.read(offset, length, into, 5)).toBe(OK);
      const expected = Math.max(0, Math.min(length, model.size - offset));
      expect(disk.transferred).toBe(expected);
      expect(difference(into.subarray(5, 5 + expected), model.bytes.subarray(offset, offset + expected))).toBe(
        undefined,
      );
      // Nothing beside the bytes that were asked for.
      expect(into.subarray(0, 5).equals(Buffer.alloc(5, 0xee))).toBe(true);
      expect(into.subarray(5 + length).equals(Buffer.alloc(4, 0xee))).toBe(true);
      return;
    }
    case 'discard':
      expect(disk.discard(operation.offset, operation.length)).toBe(OK);
      model.discard(operation.offset, operation.length);
      return;
    case 'allocate': {
      const { offset, length, keepSize } = operation;
      const errno = disk.allocate(offset, length, keepSize);
      expect(errno).toBe(model.allocate(offset, length, keepSize) ? OK : ENOSPC);
      return;
    }
    case 'truncate':
      // To the size that it has: what lies past the end goes, which has a test of its own.
      if (operation.size === model.size) return;
      expect(disk.truncate(operation.size)).toBe(OK);
      model.truncate(operation.size);
      return;
    case 'seek':
      checkSeek(disk, model, operation.offset);
  }
}

/** What a hole says it is must be zeros; data and holes alternate and reach exactly to the end. */
function checkSeek(disk: Disk, model: Model, offset: number): void {
  if (offset >= model.size) {
    expect([disk.seekData(offset), disk.seekHole(offset)]).toEqual([ENXIO, ENXIO]);
    return;
  }
  let position = offset;
  while (position < model.size) {
    const errno = disk.seekData(position);
    const data = errno === ENXIO ? model.size : disk.found;
    expect([OK, ENXIO]).toContain(errno);
    expect(data).toBeGreaterThanOrEqual(position);
    expect(data).toBeLessThanOrEqual(model.size);
    const hole = model.bytes.subarray(position, data);
    expect(hole.every((byte) => byte === 0)).toBe(true);
    if (data > position) {
      expect(disk.seekHole(position)).toBe(OK);
      expect(disk.found).toBe(position);
    }
    if (data === model.size) return;
    expect(disk.seekHole(data)).toBe(OK);
    expect(disk.found).toBeGreaterThan(data);
    expect(disk.found).toBeLessThanOrEqual(model.size);
    position = disk.found;
  }
}

function checkWhole(disk: Disk, model: Model): void {
  expect(disk.sizeBytes).toBe(model.size);
  expect(disk.account.writtenBytes).toBe(BLOCK * model.count('store'));
  expect(disk.account.occupiedBytes).toBe(BLOCK * model.count('store', 'reserved'));
  expect(difference(readDisk(disk), model.bytes.subarray(0, model.size))).toBe(undefined);
}

/** Runs the steps on two views of one disk in turn, as two workers would. */
function play(fixture: DiskFixture, model: Model, steps: readonly Operation[]): void {
  const views = [fixture.disk, fixture.second()] as const;
  steps.forEach((operation, index) => {
    step(views[index % 2] as Disk, model, operation);
    expect(views[(index + 1) % 2]?.sizeBytes).toBe(model.size);
  });
  checkWhole(fixture.disk, model);
  checkSeek(fixture.disk, model, 0);
}

/** Everything goes back to the host. */
function checkGivesBack(fixture: DiskFixture, whole: 'discard' | 'truncate'): void {
  const { disk, store } = fixture;
  if (whole === 'discard') expect(disk.discard(0, 2 ** 52)).toBe(OK);
  else expect(disk.truncate(0)).toBe(OK);
  expect([disk.account.writtenBytes, disk.account.occupiedBytes]).toEqual([0, 0]);
  expect(readDisk(disk).every((byte) => byte === 0)).toBe(true);
  expect(disk.seekData(0)).toBe(ENXIO);
  // A file system may keep a block of its own for the list of extents.
  expect(store.usedBytes).toBeLessThanOrEqual(BLOCK);
}

test.each([
  { baseBytes: 130_000, holes: [3, 4, 5, 20, 31] },
  { baseBytes: 65_519, holes: [0, 15] },
  { baseBytes: 4097, holes: [] },
  { baseBytes: 1, holes: [] },
])('any sequence over a base of $baseBytes bytes', ({ baseBytes, holes }) => {
  const directory = scratch();
  const content = nonZeroBytes(baseBytes, baseBytes);
  for (const block of holes) content.subarray(block * BLOCK, (block + 1) * BLOCK).fill(0);
  fc.assert(
    fc.property(
      fc.array(operations, { minLength: 1, maxLength: 40, size: 'max' }),
      fc.constantFrom('discard' as const, 'truncate' as const),
      (steps, whole) => {
        const fixture = openDisk({ directory, content, holes });
        try {
          play(fixture, new Model(content, Number.POSITIVE_INFINITY), steps);
          checkGivesBack(fixture, whole);
        } finally {
          fixture.close();
          rmSync(fixture.basePath);
        }
      },
    ),
    { numRuns: 120 },
  );
});

test('any sequence of writes, allocations and cuts within and beyond a quota', () => {
  const directory = scratch();
  const content = nonZeroBytes(130_000, 1);
  const steps = fc.array(
    // A partial discard may need room, and finds none: that has tests of its own.
    operations.map((operation) =>
      operation.kind === 'discard'
        ? {
            ...operation,
            offset: blockOf(operation.offset) * BLOCK,
            length: Math.ceil(operation.length / BLOCK) * BLOCK,
          }
        : operation,
    ),
    { minLength: 1, maxLength: 40, size: 'max' },
  );
  fc.assert(
    fc.property(steps, fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 4095 }), (list, blocks, rest) => {
      const fixture = openDisk({ directory, content, maxStoreBytes: blocks * BLOCK + rest });
      try {
        play(fixture, new Model(content, blocks), list);
      } finally {
        fixture.close();
        rmSync(fixture.basePath);
      }
    }),
    { numRuns: 150 },
  );
});
