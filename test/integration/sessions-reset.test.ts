/** `cowfs reset`: back to the base under whatever was there, refused while open. */
import { closeSync, mkdirSync, openSync, statSync, truncateSync, unlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { cowfs, must, mustCowfs, poll } from '../harness.ts';
import { expectRefusal } from './nothing-left-support.ts';
import {
  ALL_MODES,
  diskStatus,
  expectContent,
  filled,
  make,
  mountSessions,
  opened,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  unchanging,
  untilOnly,
  untilStores,
} from './sessions-support.ts';

const BASE_BYTES = 300_001;

const CHANGES = [
  { what: 'written', change: (path: string) => put(path, 3000, filled(1, 200_000)) },
  { what: 'shrunk', change: (path: string) => truncateSync(path, 5000) },
  { what: 'emptied and regrown', change: (path: string) => [0, 400_000].map((size) => truncateSync(path, size)) },
  { what: 'grown', change: (path: string) => put(path, 350_000, filled(2, 300_000)) },
  {
    what: 'a shorter copy',
    change: (path: string) => must('dd', ['if=/dev/zero', `of=${path}`, 'bs=1k', 'count=9', 'status=none']),
  },
];

test.for(ALL_MODES)(
  '$name: a disk that was written, shrunk or grown is the base again, byte and size',
  async (mode, context) => {
    const { mountpoint, disk, original, pid } = mountSessions(mode, context);
    for (const { what, change } of CHANGES) {
      change(disk);
      expectNot(disk, original);
      const before = statSync(disk);
      mustCowfs(['reset', disk]);
      expectContent(disk, original);
      expect(statSync(disk), what).toMatchObject({ size: BASE_BYTES, ino: before.ino, mode: before.mode });
      await untilOnly(mountpoint, ['disk.raw'], 0);
      await untilStores(pid, 0);
      put(disk, 299_990, filled(3, 50));
      expectContent(disk, patched(original, [299_990, filled(3, 50)]));
    }
    mustCowfs(['reset', disk]);
    expect(diskStatus(mountpoint, 'disk.raw')).toMatchObject({
      size: BASE_BYTES,
      writtenBytes: 0,
      storeBytes: 0,
      layers: 1,
    });
  },
);

/** Looks at the whole disk, so that all of it is cached. */
function expectNot(path: string, content: Buffer): void {
  expect(() => expectContent(path, content)).toThrow();
}

test.for(TRANSPORT_MODES)(
  '$name: it is refused while the disk is open, names it, and changes nothing',
  async (mode, context) => {
    const { mountpoint, disk, original } = mountSessions(mode, context);
    put(disk, 0, filled(1, 10_000));
    const fd = opened(disk, 'r');
    const before = await unchanging(mountpoint);
    expectRefusal(cowfs(['reset', disk]), 3, disk, 'open', '--force');
    expect(await unchanging(mountpoint)).toEqual(before);
    expectContent(disk, patched(original, [0, filled(1, 10_000)]));
    closeSync(fd);
    mustCowfs(['reset', disk]);
    expectContent(disk, original);
  },
);

test.for(TRANSPORT_MODES)(
  '$name: of a directory or the mountpoint, every disk below; what is open stays and is counted',
  async (mode, context) => {
    const { mountpoint, original, at } = mountSessions(mode, context);
    mkdirSync(at('job'));
    const names = ['disk.raw', 'a.raw', 'job/b.raw', 'job/c.raw'];
    const write = (): void => {
      for (const [index, name] of names.entries()) {
        make(at(name));
        put(at(name), 4000 * index, filled(index, 9000));
      }
    };
    const expectAll = (changed: readonly string[]): void => {
      for (const [index, name] of names.entries()) {
        expectContent(
          at(name),
          changed.includes(name) ? patched(original, [4000 * index, filled(index, 9000)]) : original,
        );
      }
    };
    write();
    mustCowfs(['reset', at('job')]);
    expectAll(['disk.raw', 'a.raw']);
    write();
    const fd = openSync(at('job/c.raw'), 'r');
    const second = openSync(at('a.raw'), 'r');
    expectRefusal(cowfs(['reset', mountpoint]), 3, at('a.raw'), '--force', /1 other/);
    expectAll(['a.raw', 'job/c.raw']);
    mustCowfs(['reset', '--force', mountpoint]);
    expectAll([]);
    closeSync(fd);
    closeSync(second);
    write();
    mustCowfs(['reset', `${mountpoint}/`]);
    expectAll([]);
    for (const name of names) unlinkSync(at(name));
    await poll('nothing is left', async () => (await statusNow(mountpoint)).disks.length === 0);
    mustCowfs(['reset', mountpoint]);
  },
);
