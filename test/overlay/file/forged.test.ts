/**
 * Overlay files whose checksums are right, from who knows where: no crash, no endless loop, no memory without bounds.
 * COWFS_SEED repeats a run.
 */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { CowfsError } from '../../../src/lib/error.ts';
import { Arena } from '../../../src/overlay/arena.ts';
import { KEPT, KeptMemory } from '../../../src/overlay/file/kept-memory.ts';
import {
  encodeHeader,
  HEADER_BYTES,
  type Header,
  MapPage,
  PAGE_BYTES,
  pageOffset,
} from '../../../src/overlay/file/layout.ts';
import { readMap, specOf } from '../../../src/overlay/file/load.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import { BlockMap } from '../../../src/overlay/map.ts';
import { LAYER } from '../../../src/overlay/shared.ts';
import { Random } from '../random.ts';
import { BASE_BYTES, DISK_BYTES } from './disk-history.ts';
import { change, type Finished, outcomeOf, problemsOf, repair, useFinished } from './finished-overlay.ts';
import type { KeptMount } from './kept-disk.ts';
import { windowsOf } from './kept-life.ts';

vi.setConfig({ testTimeout: 120_000 });

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

describe('maps whose checksums are right, from who knows where', () => {
  /** Writes pages with these states and headers that vouch for them. */
  function forge(
    file: Finished,
    pages: readonly number[],
    fill: (words: Int32Array, page: number) => void,
    changes: Partial<Header> = {},
  ): void {
    const { header } = file;
    const vouch = (fd: number, digest: number): void => {
      const bytes = encodeHeader({ ...header, digest, pagesInForce: pages.length, ...changes });
      for (const slot of [0, 1]) writeSync(fd, bytes, 0, HEADER_BYTES, slot * HEADER_BYTES);
    };
    change(file.path, (fd) => {
      ftruncateSync(fd, 0);
      for (const index of pages) {
        const page = new MapPage();
        fill(page.words, index);
        page.seal(header.id, index, header.generation);
        for (const slot of [0, 1]) writeSync(fd, page.bytes, 0, PAGE_BYTES, pageOffset(index, slot));
      }
      vouch(fd, 0);
      vouch(fd, digestOf(file.path));
    });
  }

  /** As the reader of maps finds it. */
  function digestOf(path: string): number {
    const opened = openOverlay(path, 'overlay', 'look');
    const memory = new KeptMemory(specOf(opened).memory, opened.header.mapPages);
    const control = new Int32Array(new SharedArrayBuffer(LAYER.WORDS * 4));
    readMap(opened, memory, new BlockMap(new Arena(Arena.create()), control));
    closeSync(opened.fd);
    return memory.words[KEPT.DIGEST] as number;
  }

  /** Opens, looks, checks, mends and opens again; names of what came of it. */
  function goThrough(file: Finished): string[] {
    const look = ({ disk, sessions }: KeptMount): string => {
      const bytes = windowsOf(disk);
      expect(sessions.memoryBytes).toBeLessThan(64 * 2 ** 20);
      expect(disk.seekData(0) >= 0 && disk.seekHole(0) >= 0).toBe(true);
      return `${bytes.length} bytes`;
    };
    const first = outcomeOf(file, 'write', look);
    let second: string | CowfsError = 'no header';
    if (!(first instanceof CowfsError) || !/header/.test(first.message)) {
      problemsOf(file.path);
      try {
        repair(file.path);
        second = outcomeOf(file, 'write', look);
      } catch (error) {
        // Where the file cannot be as large as the forged header wants it.
        if (!(error instanceof CowfsError)) throw error;
        second = error;
      }
    }
    return [first, second].map((each) => (each instanceof CowfsError ? each.kind : each));
  }

  test('random states in pages anywhere, also past the end of the disk', () => {
    const file = useFinished();
    const random = new Random(SEED + 5);
    const counts = new Map<string, number>();
    for (let round = 0; round < 150; round++) {
      const pages = [...new Set(Array.from({ length: 1 + random.below(6) }, () => random.below(8)))];
      if (random.below(3) === 0) pages.push(random.below(1000) + 10, 17_476);
      const mode = random.below(4);
      const clean = random.below(2) === 0;
      forge(
        file,
        pages,
        (words) => {
          for (let word = 0; word < words.length; word++) {
            words[word] = [random.below(2 ** 32), 0x55555555, -1, 0xaaaaaaaa][mode] as number;
          }
        },
        { clean },
      );
      if (random.below(2) === 0) change(file.path, (fd) => ftruncateSync(fd, file.header.dataOffset + DISK_BYTES));
      const name = goThrough(file).join(', then ');
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    console.log(`COWFS_SEED=${SEED}: forged maps: ${[...counts].map((each) => each.join(': ')).join('; ')}`);
  });

  test('a map for the largest disk, with its last page', () => {
    const file = useFinished();
    const mapPages = 71_582_789;
    const dataOffset = Math.ceil(pageOffset(mapPages, 0) / 2 ** 20) * 2 ** 20;
    const far = { ...file, header: { ...file.header, mapPages, dataOffset } };
    // Trimmed, and garbage behind the end of the largest disk.
    forge(far, [mapPages - 1], (words) => words.fill(0xaaaaaaaa | 0), { mapPages, dataOffset });
    const started = Date.now();
    const found = outcomeOf(far, 'read', ({ disk }) => {
      disk.layer.map.runAt(0, 100_000);
      return `${disk.layer.map.runState} at the start`;
    });
    expect(found).toBe('0 at the start');
    expect(goThrough(far)).toHaveLength(2);
    expect(Date.now() - started).toBeLessThan(10_000);
  });

  test('numbers in headers that contradict the map', () => {
    const file = useFinished();
    const random = new Random(SEED + 6);
    const counts = new Map<string, number>();
    for (let round = 0; round < 150; round++) {
      const diskBytes = random.below(4) === 0 ? 0 : random.below(2 ** (1 + random.below(39)));
      const changes: Partial<Header> = {
        diskBytes,
        backingLimit: random.below(Math.min(diskBytes, BASE_BYTES) + 1),
        clean: random.below(2) === 0,
        dataOffset: file.header.dataOffset + random.below(3) * 2 ** (12 + random.below(38)),
      };
      const fill = (words: Int32Array): void => {
        for (let word = 0; word < 10; word++) words[random.below(960)] = random.below(2 ** 32);
      };
      forge(file, [0, 1, 3], fill, changes);
      const name = goThrough(file)
        .map((each) => each.replace(/^\d+ bytes$/, 'opened'))
        .join(', then ');
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    console.log(`COWFS_SEED=${SEED}: forged headers: ${[...counts].map((each) => each.join(': ')).join('; ')}`);
  });
});
