/**
 * Power cuts at every moment of the life of a kept disk, and at moments of what follows each: the next mount always finds
 * what was synced, and of what came after it something that was once there. COWFS_SEED repeats a run,
 * COWFS_CRASH_LIVES multiplies its length.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { OK } from '../../../src/lib/errno.ts';
import { repairOverlay } from '../../../src/overlay/file/check.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import type * as libc from '../../../src/sys/libc.ts';
import { nonZeroBytes, Random } from '../random.ts';
import { BASE_BYTES, BASE_DATA, DISK_BYTES, DiskHistory } from './disk-history.ts';
import { type FileEvent, tap } from './file-tap.ts';
import { basePath, fastScratch, makeSparseBase, mountKept, useBase } from './kept-disk.ts';
import { checkCrashed, KeptLife, recover } from './kept-life.ts';
import { type FileImage, imageOf, UnsyncedFile, writeImage } from './power-cut.ts';

vi.mock('node:fs', async (original) => (await import('./file-tap.ts')).tappedFs(await original()));
vi.mock('../../../src/sys/libc.ts', async (original) =>
  (await import('./file-tap.ts')).tappedLibc(await original<typeof libc>()),
);

const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const LIVES = Number(process.env['COWFS_CRASH_LIVES'] ?? 1);

vi.setConfig({ testTimeout: 120_000 * LIVES });

/** Where the bases and the files of one test are. */
function usePlace() {
  const directory = fastScratch();
  makeSparseBase(basePath(directory), BASE_BYTES, BASE_DATA);
  return {
    base: useBase(basePath(directory)),
    basePath: basePath(directory),
    overlay: join(directory, 'vm.cow'),
    crashed: join(directory, 'crashed.cow'),
  };
}

function attempt<T>(context: () => string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw new Error(`COWFS_SEED=${SEED}: ${(error as Error).message}\n${context()}`, { cause: error });
  }
}

test('after a power cut at any moment the next mount finds what was synced', () => {
  const place = usePlace();
  const random = new Random(SEED);
  const figures = { points: 0, cuts: 0, recovered: 0 };
  let pending: { readonly point: number; readonly kind: string; readonly image: FileImage }[] = [];
  let at = '';
  const onEvent = ({ file }: KeptLife): void => {
    figures.points += 1;
    for (const [kind, image] of file.cuts(random, 3)) pending.push({ point: figures.points, kind, image });
  };
  const onOperation = ({ history, events }: KeptLife): void => {
    const cuts = pending;
    pending = [];
    for (const { point, kind, image } of cuts) {
      at = `cut "${kind}" ${events - point} calls before the end`;
      writeImage(place.crashed, image);
      const complaint = checkCrashed(place.crashed);
      if (complaint !== undefined) throw new Error(`check: ${complaint}`);
      const isTwice = random.below(4) === 0;
      const { content, sizeBytes } = recover(place.crashed, place.base, isTwice);
      const contradiction = history.contradicts(content, sizeBytes);
      if (contradiction !== undefined) throw new Error(contradiction);
      figures.cuts += 1;
      if (isTwice) figures.recovered += 1;
    }
  };
  const life = new KeptLife({ random, path: place.overlay, basePath: place.basePath, onEvent, onOperation });
  try {
    attempt(
      () => `${at} of ${life.log.join(' ')}`,
      () => {
        for (let step = 0; step < 320 * LIVES; step++) life.step();
        life.compare();
      },
    );
  } finally {
    life.close();
  }
  console.log(
    `COWFS_SEED=${SEED}: ${figures.points} points, ${figures.cuts} cuts, ${figures.recovered} synced and opened again`,
  );
  expect(figures.points).toBeGreaterThan(100);
});

/** One life up to a power cut at a random moment. */
function liveAndCrash(
  random: Random,
  place: ReturnType<typeof usePlace>,
  image: FileImage | undefined,
  history: DiskHistory,
  canPunch: boolean,
) {
  const cutAt = 1 + random.below(random.below(4) === 0 ? 60 : 12);
  const most = 3 + random.below(30);
  let cut: readonly [string, FileImage] | undefined;
  const powerCut = new Error('power cut');
  const onEvent = (life: KeptLife): void => {
    if (life.events === cutAt) cut = life.file.cut(random);
  };
  const onOperation = (): void => {
    if (cut !== undefined) throw powerCut;
  };
  const { overlay: path, basePath } = place;
  const life = new KeptLife({ random, path, basePath, image, history, onEvent, onOperation, canPunch });
  try {
    onOperation();
    for (let step = 0; step < most; step++) {
      // Often what matters comes soon.
      if (random.below(3) === 0) life.sync();
      else life.step();
    }
  } catch (error) {
    if (error !== powerCut) throw error;
  } finally {
    life.close();
  }
  return { cut: cut ?? life.file.cut(random), history: life.history, log: ['mount', ...life.log] };
}

test('power cut after power cut: no sync that did not come to its end comes to one later', () => {
  const place = usePlace();
  const random = new Random(SEED + 1);
  const figures = { chains: 0, crashes: 0 };
  const chains = 70 * LIVES;
  for (; figures.chains < chains; figures.chains++) {
    const logs: string[] = [];
    attempt(
      () => logs.map((line, index) => `${index + 1}: ${line}`).join('\n'),
      () => {
        let image: FileImage | undefined;
        let history = new DiskHistory(DISK_BYTES);
        // Some file systems cannot make holes (FAT, NFS before 4.2).
        const canPunch = figures.chains % 4 !== 0;
        for (let crash = 0; crash < 8; crash++) {
          const lived = liveAndCrash(random, place, image, history, canPunch);
          const [kind, left] = lived.cut;
          logs.push(`${lived.log.join(' ')}; cut "${kind}"`);
          history = lived.history;
          figures.crashes += 1;
          image = left;
          writeImage(place.crashed, image);
          const complaint = checkCrashed(place.crashed);
          if (complaint !== undefined) throw new Error(`check: ${complaint}`);
          const { content, sizeBytes } = recover(place.crashed, place.base, crash === 7);
          const contradiction = history.contradicts(content, sizeBytes);
          if (contradiction !== undefined) throw new Error(contradiction);
          history.adopt(content, sizeBytes);
        }
      },
    );
  }
  console.log(`COWFS_SEED=${SEED}: ${figures.chains} chains of power cuts, ${figures.crashes} in all`);
});

test('a power cut while damage is mended', () => {
  const place = usePlace();
  const random = new Random(SEED + 2);
  const figures = { damaged: 0, cuts: 0 };
  const watch = (image: FileImage, act: () => void): FileImage[] => {
    const file = new UnsyncedFile(image);
    const images: FileImage[] = [];
    const after = (event: FileEvent): void => {
      file.apply(event);
      for (const [, each] of file.cuts(random, 3)) images.push(each);
    };
    writeImage(place.overlay, image);
    tap.current = { path: place.overlay, fd: -1, after };
    try {
      act();
    } finally {
      tap.current = undefined;
    }
    return images;
  };
  const repair = (): void => {
    const opened = openOverlay(place.overlay, 'overlay', 'write');
    expect(repairOverlay(opened)).toEqual([]);
    closeSync(opened.fd);
  };
  const mount = (): void => {
    const mounted = mountKept(place.overlay, place.basePath);
    expect(mounted.sessions.kept.finish()).toBe(OK);
    mounted.close();
  };
  for (let round = 0; round < 4; round++) {
    const life = new KeptLife({
      random,
      path: place.overlay,
      basePath: place.basePath,
      onEvent: () => {},
      onOperation: () => {},
    });
    for (let step = 0; step < 10; step++) life.step();
    life.finish();
    life.close();
    const fd = openSync(place.overlay, 'r');
    const clean = imageOf(fd, fstatSync(fd).size);
    closeSync(fd);
    const { content, sizeBytes } = recover(place.overlay, place.base, false);
    // All pages of header and map, one at a time.
    for (const [page, bytes] of clean.pages) {
      if (page * 4096 >= 100 * 2 ** 20) continue;
      const pages = new Map(clean.pages);
      const torn = Buffer.from(bytes);
      torn.set(nonZeroBytes(512, random.below(1000)), random.below(8) * 512);
      pages.set(page, torn);
      figures.damaged += 1;
      const left = watch({ ...clean, pages }, random.below(2) === 0 ? repair : mount);
      for (const image of left) {
        attempt(
          () => `page ${page} of the file was damaged`,
          () => {
            writeImage(place.crashed, image);
            const found = recover(place.crashed, place.base, random.below(8) === 0);
            expect(found.sizeBytes).toBe(sizeBytes);
            if (!found.content.equals(content)) throw new Error('another content');
          },
        );
        figures.cuts += 1;
      }
    }
  }
  console.log(`COWFS_SEED=${SEED}: ${figures.damaged} damaged files mended, ${figures.cuts} cuts`);
});
