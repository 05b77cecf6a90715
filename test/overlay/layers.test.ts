/**
 * Layers on layers against plain arrays: what each of them shows, and where it has data and holes, while those above it
 * are written, trimmed, cut and grown.
 */
import { ftruncateSync, rmSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { EIO, ENXIO, OK } from '../../src/lib/errno.ts';
import type { Disk } from '../../src/overlay/disk.ts';
import type { Layer } from '../../src/overlay/layer.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import { scratch } from '../harness.ts';
import { difference, openDisk, readDisk, useDisk } from './disk-fixture.ts';
import { nonZeroBytes } from './random.ts';

vi.setConfig({ testTimeout: 60_000 });

const BLOCK = 4096;
/** Past every size here. */
const MOST = 24 * BLOCK;

/** What a layer shows, byte by byte. */
class Model {
  readonly states: ('below' | 'store' | 'zero')[] = new Array<'below'>(MOST / BLOCK).fill('below');
  readonly bytes: Buffer;
  size: number;
  readonly #below: { readonly bytes: Buffer; readonly data: Uint8Array };
  #limit: number;

  constructor(below: { readonly bytes: Buffer; readonly data: Uint8Array; readonly size: number }) {
    this.#below = { bytes: below.bytes, data: below.data };
    this.bytes = Buffer.from(below.bytes);
    this.size = below.size;
    this.#limit = below.size;
  }

  static base(content: Buffer, holes: readonly number[]): { bytes: Buffer; data: Uint8Array; size: number } {
    const bytes = Buffer.alloc(MOST);
    content.copy(bytes);
    const data = new Uint8Array(MOST).fill(1, 0, content.length);
    for (const block of holes) data.fill(0, block * BLOCK, (block + 1) * BLOCK);
    return { bytes, data, size: content.length };
  }

  /** 1 where it has data; a written block is data as a whole. */
  get data(): Uint8Array {
    const data = new Uint8Array(MOST);
    this.states.forEach((state, block) => {
      const [from, to] = [block * BLOCK, (block + 1) * BLOCK];
      if (state === 'store') data.fill(1, from, to);
      else if (state === 'below' && from < this.#limit) {
        data.set(this.#below.data.subarray(from, Math.min(to, this.#limit)), from);
      }
    });
    return data;
  }

  write(offset: number, bytes: Buffer): void {
    bytes.copy(this.bytes, offset);
    this.states.fill('store', Math.floor(offset / BLOCK), Math.ceil((offset + bytes.length) / BLOCK));
    this.size = Math.max(this.size, offset + bytes.length);
  }

  /** Whole blocks. */
  discard(first: number, count: number): void {
    this.bytes.fill(0, first * BLOCK, (first + count) * BLOCK);
    this.states.fill('zero', first, first + count);
  }

  truncate(size: number): void {
    if (size < this.size) {
      this.bytes.fill(0, size);
      this.states.fill('below', Math.ceil(size / BLOCK));
      this.#limit = Math.min(this.#limit, size);
    }
    this.size = size;
  }
}

const places = fc.oneof(
  fc.integer({ min: 0, max: 20 * BLOCK }),
  fc
    .tuple(fc.integer({ min: 0, max: 19 }), fc.integer({ min: -1, max: 1 }))
    .map(([block, by]) => Math.max(0, block * BLOCK + by)),
);
const operation = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      offset: places,
      length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 * BLOCK })),
      seed: fc.nat(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('discard' as const),
      first: fc.nat({ max: 15 }),
      count: fc.integer({ min: 1, max: 6 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('truncate' as const), size: places }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer Value> ? Value : never;

function apply(disk: Disk, model: Model, step: Operation): void {
  if (step.kind === 'write') {
    const bytes = nonZeroBytes(step.length, step.seed);
    expect(disk.write(step.offset, step.length, bytes, 0)).toBe(OK);
    model.write(step.offset, bytes);
  } else if (step.kind === 'discard') {
    expect(disk.discard(step.first * BLOCK, step.count * BLOCK)).toBe(OK);
    model.discard(step.first, step.count);
  } else if (step.size !== model.size) {
    expect(disk.truncate(step.size)).toBe(OK);
    model.truncate(step.size);
  }
}

/** The layer is what the model says, from anywhere on. */
function check(layer: Layer, model: Model): void {
  const { size, data } = model;
  expect(layer.extent.sizeBytes).toBe(size);
  const bytes = Buffer.alloc(size, 0xaa);
  expect(layer.read(0, size, bytes, 0)).toBe(OK);
  expect(difference(bytes, model.bytes.subarray(0, size))).toBe(undefined);
  const find = (value: number, from: number): number => {
    const at = data.subarray(0, size).indexOf(value, from);
    return at < 0 ? size : at;
  };
  for (let block = 0; block * BLOCK < size; block++) {
    for (const at of [block * BLOCK, block * BLOCK + 1, block * BLOCK + 4095]) {
      if (at >= size) continue;
      expect([at, layer.nextData(at, size), layer.nextHole(at, size)]).toEqual([at, find(1, at), find(0, at)]);
      const length = Math.min(5000, size - at);
      expect(layer.read(at, length, bytes, 0)).toBe(OK);
      expect(difference(bytes.subarray(0, length), model.bytes.subarray(at, at + length))).toBe(undefined);
    }
  }
}

test.each([
  { baseBytes: 12 * BLOCK - 77, holes: [2, 3, 7] },
  { baseBytes: 5 * BLOCK, holes: [] },
  { baseBytes: 1, holes: [] },
])('one to four layers over a base of $baseBytes bytes', ({ baseBytes, holes }) => {
  const directory = scratch();
  const content = nonZeroBytes(baseBytes, baseBytes);
  for (const block of holes) content.fill(0, block * BLOCK, (block + 1) * BLOCK);
  const layers = fc.array(fc.array(operation, { minLength: 1, maxLength: 12, size: 'max' }), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(layers, (written) => {
      const fixture = openDisk({ directory, content, holes });
      const { sessions, session } = fixture;
      const snapshots: { at: number; model: Model }[] = [];
      try {
        let model = new Model(Model.base(content, holes));
        written.forEach((steps, index) => {
          if (index > 0) {
            snapshots.push({ at: sessions.snapshot(session), model });
            model = new Model(model);
          }
          // What lies under it has changed: a view from before is none of it.
          const disk = sessions.open(session);
          for (const step of steps) apply(disk, model, step);
          check(disk.layer, model);
        });
        for (const { at, model: frozen } of snapshots) check(sessions.layers.open(at), frozen);
      } finally {
        for (const { at } of snapshots) closeStores(sessions.layers.release(at));
        fixture.close();
        rmSync(fixture.basePath);
      }
    }),
    { numRuns: 60 },
  );
});

describe('a layer on one of another size', () => {
  test('of a frozen layer that was larger, nothing past the cut comes back', () => {
    const { sessions, session } = useDisk({ directory: scratch(), content: nonZeroBytes(8 * BLOCK, 1) });
    const data = nonZeroBytes(8 * BLOCK, 2);
    sessions.open(session).write(0, data.length, data, 0);
    const frozen = sessions.snapshot(session);
    const disk = sessions.open(session);
    disk.truncate(3 * BLOCK + 5);
    disk.truncate(8 * BLOCK);
    const expected = Buffer.from(data).fill(0, 3 * BLOCK + 5);
    expect(difference(readDisk(disk), expected)).toBe(undefined);
    expect([disk.seekHole(0), disk.found]).toEqual([OK, 3 * BLOCK + 5]);
    expect(disk.seekData(4 * BLOCK)).toBe(ENXIO);
    // A partial write there copies up zeros.
    disk.write(5 * BLOCK + 9, 1, Buffer.from([7]), 0);
    expected[5 * BLOCK + 9] = 7;
    expect(difference(readDisk(disk), expected)).toBe(undefined);
    closeStores(sessions.layers.release(frozen));
  });

  test('of a frozen layer that was smaller, the rest is zeros and a hole', () => {
    const { sessions, session } = useDisk({ directory: scratch(), content: nonZeroBytes(8 * BLOCK, 1) });
    sessions.open(session).truncate(2 * BLOCK + 1);
    const frozen = sessions.snapshot(session);
    const disk = sessions.open(session);
    disk.truncate(8 * BLOCK);
    expect(readDisk(disk, 2 * BLOCK + 1).every((byte) => byte === 0)).toBe(true);
    expect([disk.seekHole(0), disk.found]).toEqual([OK, 2 * BLOCK + 1]);
    closeStores(sessions.layers.release(frozen));
  });
});

test('a base that fails fails through all layers, and those that cover it do not ask', () => {
  const { sessions, session, baseFd } = useDisk({ directory: scratch(), content: nonZeroBytes(8 * BLOCK, 1) });
  const data = nonZeroBytes(BLOCK, 2);
  const held: number[] = [];
  for (const block of [1, 2, 3]) {
    sessions.open(session).write(block * BLOCK, BLOCK, data, 0);
    held.push(sessions.snapshot(session));
  }
  const disk = sessions.open(session);
  ftruncateSync(baseFd, 0);
  expect(difference(readDisk(disk, BLOCK, 3 * BLOCK), Buffer.concat([data, data, data]))).toBe(undefined);
  expect(disk.read(4 * BLOCK, 1, data, 0)).toBe(EIO);
  expect(disk.write(4 * BLOCK + 1, 1, data, 0)).toBe(EIO);
  for (const layer of held) closeStores(sessions.layers.release(layer));
});
