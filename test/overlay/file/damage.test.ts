/**
 * Overlay files that were damaged, cut or mixed up: the right content or a clear error, never a wrong byte; what can be
 * mended is mended. COWFS_SEED repeats a run.
 */
import { closeSync, ftruncateSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { OK } from '../../../src/lib/errno.ts';
import { CowfsError } from '../../../src/lib/error.ts';
import { checkOverlay } from '../../../src/overlay/file/check.ts';
import { HEADER_BYTES, PAGE_BYTES, PAGE_SPAN_BYTES, pageOffset } from '../../../src/overlay/file/layout.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import { readDisk } from '../disk-fixture.ts';
import { nonZeroBytes, Random } from '../random.ts';
import { BASE_BYTES, BASE_DATA, DISK_BYTES, WINDOWS } from './disk-history.ts';
import {
  BORDER,
  bytesAt,
  change,
  FIRST,
  type Finished,
  finished,
  outcomeOf,
  problemsOf,
  put,
  repair,
  rightOr,
  statesOf,
  use,
  useFinished,
} from './finished-overlay.ts';
import { basePath, fastScratch, type KeptMount, makeSparseBase, mountKept, useBase } from './kept-disk.ts';
import { windowsOf } from './kept-life.ts';
import { writeImage } from './power-cut.ts';

vi.setConfig({ testTimeout: 120_000 });

const BLOCK = 4096;
const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

describe('both copies', () => {
  const both = (file: Finished, page: number, act: (offset: number) => void): void => {
    for (const slot of [0, 1]) act(pageOffset(page, slot));
    expect(file.pages).toContain(page);
  };

  test.each<[string, (path: string, offset: number) => void]>([
    ['of a page damaged alike', (path, offset) => put(path, offset + 1000, Buffer.from([0xee, 0xee]))],
    ['of a page damaged, each in its way', (path, offset) => put(path, offset + 300, nonZeroBytes(50, offset))],
    ['of a page zeroed', (path, offset) => put(path, offset, Buffer.alloc(PAGE_BYTES))],
  ])('%s: refused; repair says what is uncertain, and the file opens again', (_, damage) => {
    const file = useFinished();
    for (const page of file.pages) {
      writeImage(file.path, file.image);
      both(file, page, (offset) => damage(file.path, offset));
      const refused = outcomeOf(file, 'write', statesOf);
      expect(refused).toBeInstanceOf(CowfsError);
      expect((refused as CowfsError).message).toMatch(/damaged.*cowfs check/);
      expect(problemsOf(file.path).filter(({ kind }) => kind === 'damage')).not.toEqual([]);
      const guesses = repair(file.path);
      const from = page * PAGE_SPAN_BYTES;
      expect(guesses.join('; ')).toContain(`${from} to ${Math.min(from + PAGE_SPAN_BYTES, DISK_BYTES)}`);
      expect(problemsOf(file.path)).toEqual([]);
      const opened = outcomeOf(file, 'write', ({ disk }) => {
        const now = windowsOf(disk);
        // In the other pages nothing has changed; in this one what was written is there, and the rest is a guess.
        let at = 0;
        for (const { offset, length } of WINDOWS) {
          for (let block = 0; block < length; block += BLOCK, at += BLOCK) {
            if (Math.floor((offset + block) / PAGE_SPAN_BYTES) === page) continue;
            if (!now.subarray(at, at + BLOCK).equals(file.content.subarray(at, at + BLOCK))) return `${offset + block}`;
          }
        }
        return 'fine';
      });
      expect(opened).toBe('fine');
    }
  });

  test('of a page that knows of trimmed blocks only: repair does not say that nothing is uncertain', () => {
    const directory = fastScratch();
    const path = join(directory, 'vm.cow');
    makeSparseBase(basePath(directory), BASE_BYTES, BASE_DATA);
    for (const fill of [0, 0xee]) {
      const trim = ({ disk }: KeptMount): void => {
        expect([disk.write(FIRST, 1, Buffer.from([1]), 0), disk.discard(BORDER, 20 * BLOCK)]).toEqual([OK, OK]);
      };
      rmSync(path, { force: true });
      use(path, basePath(directory), trim, DISK_BYTES);
      for (const slot of [0, 1]) put(path, pageOffset(1, slot), Buffer.alloc(PAGE_BYTES, fill));
      const opened = openOverlay(path, 'overlay', 'read');
      expect(checkOverlay(opened).problems.map(({ kind }) => kind)).toContain('damage');
      closeSync(opened.fd);
      expect(repair(path).length, `both slots filled with ${fill}`).toBeGreaterThan(0);
    }
  });

  test('of the header: refused', () => {
    const file = useFinished();
    for (const damage of [nonZeroBytes(8, 1), Buffer.alloc(8)]) {
      writeImage(file.path, file.image);
      for (const slot of [0, 1]) put(file.path, slot * HEADER_BYTES + 2000, Buffer.concat([damage, Buffer.from([1])]));
      const refused = outcomeOf(file, 'write', statesOf);
      expect((refused as CowfsError).message).toMatch(/neither of its headers is whole/);
      expect((refused as CowfsError).kind).toBe('failed');
    }
  });
});

describe('ranges of garbage', () => {
  test('in header and map: the right content or an error', () => {
    const file = useFinished();
    const random = new Random(SEED + 2);
    const end = pageOffset((file.pages.at(-1) as number) + 2, 0);
    const figures = { rounds: 0, right: 0, refused: 0, mended: 0 };
    const before = outcomeOf(file, 'read', statesOf);
    for (; figures.rounds < 2000; figures.rounds++) {
      const fills: [number, Buffer][] = [];
      for (let range = random.below(3); range >= 0; range--) {
        const length = 1 + random.below(2 ** (1 + random.below(14)));
        const offset = random.below(end);
        const kind = random.below(3);
        const bytes = kind === 0 ? Buffer.alloc(length) : nonZeroBytes(length, random.below(2 ** 30));
        fills.push([offset, bytes]);
      }
      const context = `${fills.map(([offset, { length }]) => `${offset}+${length}`).join(' ')}, COWFS_SEED=${SEED}`;
      const isRepaired = figures.rounds % 10 === 0;
      const saved = isRepaired ? [] : fills.map(([offset, { length }]) => [offset, length] as const);
      change(file.path, (fd) => {
        const old = saved.map(([offset, length]) => [offset, bytesAt(fd, offset, length)] as const);
        for (const [offset, bytes] of fills) writeSync(fd, bytes, 0, bytes.length, offset);
        const found = outcomeOf(file, 'read', statesOf);
        if (found instanceof CowfsError) figures.refused += 1;
        else {
          if (found !== before) expect(found, context).toBe(before);
          figures.right += 1;
        }
        if (!(found instanceof CowfsError) || /cowfs check/.test(found.message)) {
          const kinds = problemsOf(file.path).map(({ kind }) => kind);
          expect(kinds.includes('damage'), context).toBe(found instanceof CowfsError);
        }
        for (const [offset, bytes] of old.reverse()) writeSync(fd, bytes, 0, bytes.length, offset);
      });
      if (!isRepaired) continue;
      const found = outcomeOf(file, 'write', rightOr(file.content));
      if (found instanceof CowfsError && !/cowfs check/.test(found.message)) writeImage(file.path, file.image);
      else {
        expect(found instanceof CowfsError ? 'right' : found, context).toBe('right');
        const guesses = repair(file.path);
        expect(problemsOf(file.path), context).toEqual([]);
        const opened = outcomeOf(file, 'write', rightOr(file.content));
        if (opened !== 'right') expect([opened, guesses.length > 0], context).toEqual(['wrong bytes', true]);
        figures.mended += 1;
        writeImage(file.path, file.image);
      }
    }
    console.log(
      `COWFS_SEED=${SEED}: ${figures.rounds} times garbage in header and map: ${figures.right} right, ${figures.refused} refused, ${figures.mended} mended`,
    );
  });

  test('anywhere: no other exception, no endless loop', () => {
    const file = useFinished();
    const random = new Random(SEED + 3);
    const counts = new Map<string, number>();
    for (let round = 0; round < 300; round++) {
      if (round % 10 === 0) writeImage(file.path, file.image);
      const length = 1 + random.below(2 ** 18);
      const offset =
        random.below(3) === 0 ? random.below(60_000) : file.header.dataOffset - 1000 + random.below(2 ** 18);
      put(file.path, offset, nonZeroBytes(length, random.below(2 ** 30)));
      const found = outcomeOf(file, 'write', ({ disk }) => `${windowsOf(disk).length} bytes`);
      const name = found instanceof CowfsError ? found.kind : found;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    console.log(`COWFS_SEED=${SEED}: garbage anywhere: ${[...counts].map((each) => each.join(' ')).join(', ')}`);
  });
});

describe('a file that is too short', () => {
  test('within header and map, at every 4096 bytes', () => {
    const file = useFinished();
    const { dataOffset } = file.header;
    let cuts = 0;
    change(file.path, (fd) => {
      for (let size = dataOffset; size >= 0; size -= 4096) {
        ftruncateSync(fd, size);
        // Between pages that were never written nothing changes.
        if (size > 10 * 2 ** 20 && size % (16 * 4096) !== 0) continue;
        const found = outcomeOf(file, 'read', statesOf);
        if (!(found instanceof CowfsError)) expect(found, `cut to ${size}`).toBe('refused');
        cuts += 1;
      }
    });
    console.log(`${cuts} cuts of header and map`);
  });

  test('within the data, at any byte', () => {
    const file = useFinished();
    const { sizeBytes } = file.image;
    const random = new Random(SEED + 4);
    const sizes = [1, 2, 511, 512, 777, 4095, 4096, 4097].map((less) => sizeBytes - less);
    for (let cut = 0; cut < 300; cut++) sizes.push(sizeBytes - random.below(2 ** (1 + random.below(27))));
    sizes.sort((a, b) => b - a);
    const figures = { right: 0, refused: 0 };
    change(file.path, (fd) => {
      for (const size of sizes) {
        ftruncateSync(fd, size);
        const found = outcomeOf(file, 'read', rightOr(file.content));
        if (found instanceof CowfsError) {
          figures.refused += 1;
          expect(found.message).toMatch(/bytes are missing at its end/);
          expect(problemsOf(file.path).map(({ kind }) => kind)).toContain('damage');
        } else {
          figures.right += 1;
          expect(found, `cut to ${size} of ${sizeBytes}, COWFS_SEED=${SEED}`).toBe('right');
        }
      }
    });
    const guesses = repair(file.path);
    expect(guesses.join('; ')).toMatch(/bytes of data are lost/);
    expect(problemsOf(file.path)).toEqual([]);
    expect(outcomeOf(file, 'write', ({ disk }) => `${disk.sizeBytes} bytes`)).toBe(`${DISK_BYTES} bytes`);
    console.log(
      `COWFS_SEED=${SEED}: ${sizes.length} cuts of the data: ${figures.right} right, ${figures.refused} refused`,
    );
  });

  test.each<[string, Buffer]>([
    ['an empty file', Buffer.alloc(0)],
    ['one byte', Buffer.from('C')],
    ['zeros', Buffer.alloc(2 ** 20)],
    ['text', Buffer.from('Once upon a time there was a disk.\n'.repeat(1000))],
    ['an image of qcow2', Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(70_000)])],
    ['garbage', nonZeroBytes(200_000, 5)],
    ['a header of another program', Buffer.concat([Buffer.from('COWD'), nonZeroBytes(70_000, 5)])],
  ])('%s is no overlay', (_, bytes) => {
    const directory = fastScratch();
    makeSparseBase(basePath(directory), BASE_BYTES, BASE_DATA);
    const path = join(directory, 'vm.cow');
    writeFileSync(path, bytes);
    let thrown: unknown;
    try {
      mountKept(path, basePath(directory)).close();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(CowfsError);
    expect((thrown as CowfsError).kind).toBe('usage');
    expect((thrown as CowfsError).message).toMatch(/is no overlay of cowfs; give one/);
    // And it stays as it is.
    const fd = openSync(path, 'r');
    expect(
      bytesAt(fd, 0, bytes.length + 1)
        .subarray(0, bytes.length)
        .equals(bytes),
    ).toBe(true);
    closeSync(fd);
  });
});

describe('pages from elsewhere', () => {
  /** Both slots of these pages, as they are now. */
  function copyPages(path: string, pages: readonly number[]): [number, Buffer][] {
    const fd = openSync(path, 'r');
    try {
      return pages.map((page) => [page, bytesAt(fd, pageOffset(page, 0), 2 * PAGE_BYTES)]);
    } finally {
      closeSync(fd);
    }
  }

  const paste = (path: string, copies: readonly [number, Buffer][]): void => {
    for (const [page, bytes] of copies) put(path, pageOffset(page, 0), bytes);
  };

  test('of another overlay on the same base', () => {
    const file = useFinished();
    const other = useFinished();
    for (const page of file.pages) {
      writeImage(file.path, file.image);
      paste(file.path, copyPages(other.path, [page]));
      expect(outcomeOf(file, 'write', statesOf)).toBeInstanceOf(CowfsError);
      // One slot only: the other has it.
      writeImage(file.path, file.image);
      const [[, bytes]] = copyPages(other.path, [page]) as [[number, Buffer]];
      put(file.path, pageOffset(page, 0), bytes.subarray(0, PAGE_BYTES));
      expect(outcomeOf(file, 'write', rightOr(file.content))).toBe('right');
    }
  });

  test('of another place in the same overlay', () => {
    const file = useFinished();
    const [[, bytes]] = copyPages(file.path, [0]) as [[number, Buffer]];
    put(file.path, pageOffset(1, 0), bytes);
    expect(outcomeOf(file, 'write', statesOf)).toBeInstanceOf(CowfsError);
  });

  test('of an older generation of the same overlay: noticed; repair does not say that all is well', () => {
    const file = useFinished();
    const old = copyPages(file.path, file.pages);
    use(file.path, file.basePath, ({ disk }) => {
      for (const { offset } of WINDOWS) disk.write(offset + BLOCK, 2 * BLOCK, nonZeroBytes(2 * BLOCK, 9), 0);
    });
    const now = finished(file.path, file.basePath, file.base);
    for (const [page, bytes] of old) {
      writeImage(now.path, now.image);
      paste(now.path, [[page, bytes]]);
      expect(outcomeOf(now, 'write', statesOf), `page ${page}`).toBeInstanceOf(CowfsError);
      expect(problemsOf(now.path).map(({ kind }) => kind)).toContain('damage');
      const guesses = repair(now.path);
      expect(guesses.join('; '), `page ${page}`).toContain(`bytes ${page * PAGE_SPAN_BYTES} to`);
      // What was written lately is not thrown away.
      const bytesNow = outcomeOf(now, 'write', ({ disk }) => {
        const window = WINDOWS.find(({ offset }) => Math.floor((offset + BLOCK) / PAGE_SPAN_BYTES) === page);
        return window === undefined
          ? 'there'
          : readDisk(disk, window.offset + BLOCK, 2 * BLOCK).equals(nonZeroBytes(2 * BLOCK, 9))
            ? 'there'
            : 'gone';
      });
      expect(bytesNow, `page ${page}`).toBe('there');
    }
    // All of them, and with the older header all is as it was.
    writeImage(now.path, now.image);
    paste(now.path, old);
    expect(outcomeOf(now, 'write', statesOf)).toBeInstanceOf(CowfsError);
  });

  test('of an older generation of two pages that have changed alike', () => {
    const directory = fastScratch();
    const path = join(directory, 'vm.cow');
    makeSparseBase(basePath(directory), BASE_BYTES, BASE_DATA);
    const base = useBase(basePath(directory));
    const pages = [0, 2];
    const writeBoth = (disk: KeptMount['disk'], block: number, seed: number): void => {
      for (const page of pages) disk.write(page * PAGE_SPAN_BYTES + block * BLOCK, BLOCK, nonZeroBytes(BLOCK, seed), 0);
    };
    use(path, basePath(directory), ({ disk }) => writeBoth(disk, 0, 1), DISK_BYTES);
    const old = copyPages(path, pages);
    use(path, basePath(directory), ({ disk }) => writeBoth(disk, 1, 2));
    const now = finished(path, basePath(directory), base);
    paste(path, old);
    const found = outcomeOf(now, 'write', rightOr(now.content));
    expect(found instanceof CowfsError ? 'refused' : found).toBe('refused');
  });
});
