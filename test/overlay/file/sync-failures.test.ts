/**
 * Calls that fail while a kept disk is served: what was lost is said for good, what was only refused is done again.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { EIO, ENOSPC, EOPNOTSUPP, type Errno, OK } from '../../../src/lib/errno.ts';
import { MAP_OFFSET, PAGE_SPAN_BYTES } from '../../../src/overlay/file/layout.ts';
import type * as libc from '../../../src/sys/libc.ts';
import { difference, readDisk } from '../disk-fixture.ts';
import { nonZeroBytes } from '../random.ts';
import { type FileEvent, tap } from './file-tap.ts';
import { basePath, fastScratch, type KeptMount, mountKept } from './kept-disk.ts';

vi.mock('node:fs', async (original) => (await import('./file-tap.ts')).tappedFs(await original()));
vi.mock('../../../src/sys/libc.ts', async (original) =>
  (await import('./file-tap.ts')).tappedLibc(await original<typeof libc>()),
);

const BLOCK = 4096;
const DISK = 3 * PAGE_SPAN_BYTES;
const content = nonZeroBytes(20 * BLOCK - 100, 1);
/** One in each page of the map. */
const PLACES = [BLOCK, PAGE_SPAN_BYTES + 5 * BLOCK, 2 * PAGE_SPAN_BYTES + 7];

let events: FileEvent[] = [];
/** Which of the next calls fail, and how. */
let failing: (event: FileEvent) => Errno | undefined = () => undefined;

beforeEach(() => {
  events = [];
  failing = () => undefined;
});

function usePlace(): { mount: () => KeptMount } {
  const directory = fastScratch();
  writeFileSync(basePath(directory), content);
  const path = join(directory, 'vm.cow');
  const after = (event: FileEvent): number => events.push(event);
  tap.current = { path, fd: -1, before: (event) => failing(event), after };
  onTestFinished(() => {
    tap.current = undefined;
  });
  return {
    mount: () => {
      const mount = mountKept(path, basePath(directory), DISK);
      if (tap.current !== undefined) tap.current.fd = mount.spec.fd;
      return mount;
    },
  };
}

/** Calls of a kind fail from the `first` on, `times` times. */
function fail(is: (event: FileEvent) => boolean, errno: Errno, first = 1, times = 1): void {
  let seen = 0;
  failing = (event) => {
    if (!is(event)) return undefined;
    seen += 1;
    return seen >= first && seen < first + times ? errno : undefined;
  };
}

const isSync = ({ kind }: FileEvent): boolean => kind === 'sync';
const isHeader = (event: FileEvent): boolean => event.kind === 'write' && event.offset < MAP_OFFSET;
const isPage = (event: FileEvent): boolean =>
  event.kind === 'write' && event.offset >= MAP_OFFSET && event.offset < 100 * 2 ** 20;

function write({ disk }: KeptMount, seed: number, places = PLACES): void {
  for (const place of places) expect(disk.write(place, 3 * BLOCK, nonZeroBytes(3 * BLOCK, seed + place), 0)).toBe(OK);
}

/** Whether what `write` wrote is there. */
function has({ disk }: KeptMount, seed: number, places = PLACES): boolean {
  return places.every((place) => readDisk(disk, place, 3 * BLOCK).equals(nonZeroBytes(3 * BLOCK, seed + place)));
}

describe('fdatasync fails once', () => {
  test.each([
    ['for the data', 1],
    ['for the header', 2],
  ])('%s: every sync says so from then on, and nothing more is published', (_, which) => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    expect(first.sessions.kept.sync()).toBe(OK);
    expect(first.disk.write(BLOCK * 10, 10, nonZeroBytes(10, 5), 0)).toBe(OK);
    fail(isSync, EIO, which);
    expect(first.sessions.kept.sync()).toBe(EIO);
    events = [];
    expect(first.sessions.kept.sync()).toBe(EIO);
    expect(first.disk.write(BLOCK * 12, 10, nonZeroBytes(10, 6), 0)).toBe(OK);
    expect([first.sessions.kept.sync(), first.sessions.kept.finish()]).toEqual([EIO, EIO]);
    expect(first.disk.truncate(BLOCK)).toBe(EIO);
    expect(first.sessions.reset(first.session, DISK)).toBe(EIO);
    expect(events.filter((event) => isHeader(event) || isPage(event))).toEqual([]);
    first.close();
    // What was synced before is there.
    const second = mount();
    expect(has(second, 1)).toBe(true);
    expect(second.sessions.kept.sync()).toBe(OK);
    second.close();
  });

  test('interrupted ones are made again', () => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    fail(isSync, 4, 1, 3);
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    expect(has(mount(), 1)).toBe(true);
  });
});

describe('no space', () => {
  test.each([1, 2, 3])('for page %d of a sync: the next one writes all of it', (which) => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    fail(isPage, ENOSPC, which);
    expect(first.sessions.kept.sync()).toBe(ENOSPC);
    expect(events.filter(isHeader)).toEqual([]);
    expect(has(first, 1)).toBe(true);
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    const second = mount();
    expect(has(second, 1)).toBe(true);
    expect(second.disk.account.writtenBytes).toBe(10 * BLOCK);
    second.close();
  });

  test.each([1, 2, 3])('for page %d again and again, with changes between', (which) => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    expect(first.sessions.kept.sync()).toBe(OK);
    for (let round = 2; round < 8; round++) {
      expect(first.disk.discard(PLACES[round % 3] as number, 3 * BLOCK)).toBe(OK);
      fail(isPage, ENOSPC, 1 + (which % (1 + (round % 2))));
      first.sessions.kept.sync();
      write(first, round, [PLACES[(round + 1) % 3] as number]);
      failing = () => undefined;
      if (round % 3 === 0) expect(first.sessions.kept.sync()).toBe(OK);
    }
    const seen = PLACES.map((place) => readDisk(first.disk, place, 3 * BLOCK));
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    const second = mount();
    for (const [index, place] of PLACES.entries()) {
      expect(difference(readDisk(second.disk, place, 3 * BLOCK), seen[index] as Buffer)).toBe(undefined);
    }
    second.close();
  });

  test('and then a crash: what was synced before is there, and what comes next stays', () => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    expect(first.sessions.kept.sync()).toBe(OK);
    expect(first.disk.discard(0, DISK)).toBe(OK);
    fail(isPage, ENOSPC, 3);
    expect(first.sessions.kept.sync()).toBe(ENOSPC);
    first.close();
    const second = mount();
    expect(readDisk(second.disk, 0, BLOCK).equals(content.subarray(0, BLOCK))).toBe(true);
    write(second, 2, [PLACES[2] as number]);
    expect(second.sessions.kept.sync()).toBe(OK);
    second.close();
    const third = mount();
    expect(has(third, 2, [PLACES[2] as number])).toBe(true);
    expect(readDisk(third.disk, 0, BLOCK).equals(content.subarray(0, BLOCK))).toBe(true);
    third.close();
  });

  test('for a header: a sync that says OK later has done it', () => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    fail(isHeader, ENOSPC);
    expect(first.sessions.kept.sync()).not.toBe(OK);
    const again = first.sessions.kept.sync();
    first.close();
    const second = mount();
    expect(has(second, 1)).toBe(again === OK);
    second.close();
  });

  test('for data: the writer hears of it, and the block stays', () => {
    const { mount } = usePlace();
    const first = mount();
    fail(({ kind }) => kind === 'write', ENOSPC);
    expect(first.disk.write(0, BLOCK, nonZeroBytes(BLOCK, 2), 0)).toBe(ENOSPC);
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    const second = mount();
    expect(difference(readDisk(second.disk, 0, content.length), content)).toBe(undefined);
    second.close();
  });

  test.each([BLOCK + 904, 8 * BLOCK])('for a cut to %d: nothing has changed, or nothing of it comes back', (size) => {
    const { mount } = usePlace();
    const first = mount();
    const data = nonZeroBytes(10 * BLOCK, 2);
    expect(first.disk.write(0, data.length, data, 0)).toBe(OK);
    expect(first.sessions.kept.sync()).toBe(OK);
    fail(isPage, ENOSPC);
    expect([OK, ENOSPC]).toContain(first.disk.truncate(size));
    const isCut = first.disk.sizeBytes !== DISK;
    const expected = Buffer.from(data);
    if (isCut) expected.fill(0, size);
    expect(first.disk.truncate(DISK)).toBe(OK);
    expect(difference(readDisk(first.disk, 0, data.length), expected)).toBe(undefined);
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    const second = mount();
    expect(difference(readDisk(second.disk, 0, data.length), expected)).toBe(undefined);
    second.close();
  });

  test('for emptying: the disk is one or the other, then and after the next sync', () => {
    const { mount } = usePlace();
    const first = mount();
    write(first, 1);
    expect(first.sessions.kept.sync()).toBe(OK);
    fail(isPage, ENOSPC, 2);
    expect(first.sessions.reset(first.session, DISK)).toBe(ENOSPC);
    const isOld = has(first, 1);
    if (!isOld) expect(difference(readDisk(first.disk, 0, content.length), content)).toBe(undefined);
    expect(first.sessions.kept.sync()).toBe(OK);
    first.close();
    const second = mount();
    expect(has(second, 1)).toBe(isOld);
    if (!isOld) expect(difference(readDisk(second.disk, 0, content.length), content)).toBe(undefined);
    second.close();
  });
});

test('a file system that cannot punch holes: what is trimmed is zeros, also when it is opened again', () => {
  const { mount } = usePlace();
  const first = mount();
  failing = ({ kind }) => (kind === 'punch' ? EOPNOTSUPP : undefined);
  write(first, 1);
  expect(first.sessions.kept.sync()).toBe(OK);
  expect(first.disk.discard(0, 3 * BLOCK + 5)).toBe(OK);
  expect(first.sessions.kept.sync()).toBe(OK);
  expect(first.disk.discard(PLACES[1] as number, 3 * BLOCK)).toBe(OK);
  first.close();
  // The trim that was not synced left its data where it was.
  const second = mount();
  const places = PLACES.slice(1);
  expect(has(second, 1, places)).toBe(true);
  expect(readDisk(second.disk, 0, 3 * BLOCK + 5).every((byte) => byte === 0)).toBe(true);
  expect(second.sessions.reset(second.session, DISK)).toBe(OK);
  expect(second.sessions.kept.finish()).toBe(OK);
  second.close();
  const third = mount();
  expect(difference(readDisk(third.disk, 0, content.length), content)).toBe(undefined);
  third.close();
});
