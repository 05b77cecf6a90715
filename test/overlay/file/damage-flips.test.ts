/**
 * Every single byte of the header and the map of a clean overlay file, damaged: the other copy has it, and it is mended.
 * COWFS_SEED repeats a run.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { Arena } from '../../../src/overlay/arena.ts';
import { KeptMemory } from '../../../src/overlay/file/kept-memory.ts';
import {
  encodeHeader,
  HEADER_BYTES,
  LEAF_WORDS,
  PAGE_BYTES,
  PAGE_LEAVES,
  pageOffset,
} from '../../../src/overlay/file/layout.ts';
import { readMap } from '../../../src/overlay/file/load.ts';
import { readHeaders } from '../../../src/overlay/file/slots.ts';
import { BlockMap } from '../../../src/overlay/map.ts';
import { LAYER } from '../../../src/overlay/shared.ts';
import { nonZeroBytes, Random } from '../random.ts';
import {
  bytesAt,
  change,
  type Finished,
  outcomeOf,
  problemsOf,
  put,
  repair,
  rightOr,
  statesOf,
  use,
  useFinished,
} from './finished-overlay.ts';
import { windowsOf } from './kept-life.ts';

vi.setConfig({ testTimeout: 120_000 });

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Reads headers and map as opening does, without what takes most of the time. */
class QuickReader {
  readonly #path: string;
  readonly #fd: number;
  readonly #pages: readonly number[];
  readonly #arena = new Arena(Arena.create());
  readonly #map = new BlockMap(this.#arena, new Int32Array(new SharedArrayBuffer(LAYER.WORDS * 4)));
  readonly #memory: KeptMemory;

  constructor({ path, header, pages }: Finished) {
    this.#path = path;
    this.#fd = openSync(path, 'r');
    this.#pages = pages;
    this.#memory = new KeptMemory(KeptMemory.create(header.mapPages), header.mapPages);
  }

  /** The header in force, whether the map is whole, and the states. */
  read(): Buffer {
    const headers = readHeaders(this.#path, this.#fd);
    const { header } = headers;
    if (header === undefined) return Buffer.from('none');
    this.#arena.locked(() => this.#map.free());
    const opened = { path: this.#path, fd: this.#fd, headers, header, writable: false };
    const { isWhole } = readMap(opened, this.#memory, this.#map);
    const words = new Int32Array(this.#pages.length * PAGE_LEAVES * LEAF_WORDS);
    for (const [index, page] of this.#pages.entries()) {
      for (let leaf = 0; leaf < PAGE_LEAVES; leaf++) {
        this.#map.copyLeaf(page * PAGE_LEAVES + leaf, words, (index * PAGE_LEAVES + leaf) * LEAF_WORDS);
      }
    }
    return Buffer.concat([encodeHeader(header), Buffer.from([isWhole ? 1 : 0]), Buffer.from(words.buffer)]);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Header and map. */
function metadataOf({ path, pages, header }: Finished): Buffer {
  const fd = openSync(path, 'r');
  try {
    const last = pageOffset((pages.at(-1) as number) + 1, 0);
    return bytesAt(fd, 0, Math.min(last, header.dataOffset));
  } finally {
    closeSync(fd);
  }
}

describe('one byte of a clean file', () => {
  const slots = (pages: readonly number[]): [number, number][] => [
    [0, HEADER_BYTES],
    [HEADER_BYTES, HEADER_BYTES],
    ...pages.flatMap((page): [number, number][] => [
      [pageOffset(page, 0), PAGE_BYTES],
      [pageOffset(page, 1), PAGE_BYTES],
    ]),
  ];

  test('any of header and map: the other copy has it, and check says where', () => {
    const file = useFinished();
    expect(file.pages).toHaveLength(4);
    const states = outcomeOf(file, 'read', statesOf);
    const quick = new QuickReader(file);
    const first = quick.read();
    const random = new Random(SEED);
    const figures = { flips: 0, opened: 0, checks: 0 };
    change(file.path, (fd) => {
      const byte = Buffer.alloc(1);
      for (const [start, length] of slots(file.pages)) {
        for (let offset = start; offset < start + length; offset++) {
          readSync(fd, byte, 0, 1, offset);
          const old = byte[0] as number;
          byte[0] = old ^ (1 << random.below(8));
          writeSync(fd, byte, 0, 1, offset);
          const context = `byte ${offset}, COWFS_SEED=${SEED}`;
          if (!quick.read().equals(first)) expect('another map', context).toBe('the same map');
          if (offset % 32 === 3) {
            figures.opened += 1;
            const found = outcomeOf(file, 'read', statesOf);
            if (found !== states) expect(found, context).toBe(states);
          }
          if (offset % 128 === 5) expect(outcomeOf(file, 'read', rightOr(file.content)), context).toBe('right');
          if (offset % 32 === 1) {
            figures.checks += 1;
            const problems = problemsOf(file.path);
            if (problems.length !== 1 || problems[0]?.kind !== 'copy' || problems[0].offset !== start) {
              expect(problems, context).toEqual([{ kind: 'copy', offset: start, what: expect.any(String) }]);
            }
          }
          figures.flips += 1;
          byte[0] = old;
          writeSync(fd, byte, 0, 1, offset);
        }
      }
    });
    quick.close();
    console.log(
      `COWFS_SEED=${SEED}: ${figures.flips} flips of single bytes, ${figures.opened} opened in full, ${figures.checks} checks`,
    );
    expect(outcomeOf(file, 'read', rightOr(file.content))).toBe('right');
    expect(problemsOf(file.path)).toEqual([]);
  });

  test('is mended: the content is right, and check has nothing to say', () => {
    const file = useFinished();
    const before = metadataOf(file);
    const random = new Random(SEED);
    let repairs = 0;
    let same = 0;
    for (const [start, length] of slots(file.pages)) {
      for (let at = random.below(64); at < length; at += 1 + random.below(100)) {
        change(file.path, (fd) => {
          const byte = bytesAt(fd, start + at, 1);
          byte[0] = (byte[0] as number) ^ (1 + random.below(255));
          writeSync(fd, byte, 0, 1, start + at);
        });
        const context = `byte ${start + at}, COWFS_SEED=${SEED}`;
        expect(repair(file.path), context).toEqual([]);
        expect(problemsOf(file.path), context).toEqual([]);
        expect(outcomeOf(file, 'read', rightOr(file.content)), context).toBe('right');
        if (metadataOf(file).equals(before)) same += 1;
        repairs += 1;
      }
    }
    console.log(
      `COWFS_SEED=${SEED}: ${repairs} repairs of single bytes, after ${same} of them header and map were what they had been`,
    );
  });

  test('is mended by the next mount that ends cleanly', () => {
    const file = useFinished();
    const random = new Random(SEED + 1);
    for (const [start, length] of slots(file.pages)) {
      put(file.path, start + random.below(length - 8), nonZeroBytes(8, random.below(1000)));
      use(file.path, file.basePath, ({ disk }) => expect(windowsOf(disk).equals(file.content)).toBe(true));
      expect(problemsOf(file.path)).toEqual([]);
      expect(outcomeOf(file, 'read', rightOr(file.content))).toBe('right');
    }
  });
});
