/** An overlay knows its base: wherever that lies now it is found to be the same, and one that has changed is refused. */
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, must, mustCowfs, scratch, sha256, statusOf } from '../harness.ts';
import { loopDevice, needs, needsRoot } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { infoOf, type KeptDisk, keptDisk, killed, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import { expectContent, filled, patched, put } from './sessions-support.ts';

/** Larger than what is sampled at its start and end together. */
const LARGE = 8 * MIB;

/** A kept disk that was written to and unmounted. */
async function written(baseBytes = 1_000_003): Promise<KeptDisk & { readonly content: Buffer }> {
  const kept = keptDisk([], baseBytes);
  put(kept.disk, 5000, filled(1, 50_000));
  await unmounted(kept);
  return { ...kept, content: patched(kept.original, [5000, filled(1, 50_000)]) };
}

/** Tries to mount: refused for that reason, and the overlay file stays as it is. */
function expectOther({ base, mountpoint, overlay }: KeptDisk, ...says: readonly (string | RegExp)[]): void {
  const before = readFileSync(overlay);
  expectRefusal(cowfs(['mount', base, mountpoint, '--overlay', overlay]), 3, base, overlay, '--force', ...says);
  const ran = cowfs(['run', base, '--overlay', overlay, '--', 'true']);
  expect(ran.stderr).toContain('--force');
  expect(ran.status).toBe(125);
  expect(readFileSync(overlay).equals(before)).toBe(true);
}

/** Mounts with --force: one warning that says why; without it after a clean end. */
async function expectForced(kept: KeptDisk, content: Buffer, warning: string | RegExp): Promise<void> {
  const { status, stderr } = cowfs(['mount', kept.base, kept.mountpoint, '--overlay', kept.overlay, '--force']);
  expect(stderr).toMatch(/^cowfs: warning: [^\n]+\n$/);
  expect(stderr).toMatch(warning);
  expect(status).toBe(0);
  expect(statusOf(kept.mountpoint).warnings.join()).toMatch(warning);
  expectContent(kept.disk, content);
  await unmounted(kept);
  expect(infoOf(kept.overlay).base.changed).toBeNull();
  const again = remounted(kept);
  expectContent(again.disk, content);
  await unmounted(again);
}

/** Sets bytes of a file, and its times to what they were. */
function change(path: string, offset: number, bytes: Buffer, keepTimes = true): void {
  const { atimeMs, mtimeMs } = statSync(path);
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
  if (keepTimes) utimesSync(path, atimeMs / 1000, mtimeMs / 1000);
}

test('a base that was moved: its new path is enough, and remembered', async () => {
  const kept = await written();
  const moved = join(kept.directory, 'moved.img');
  renameSync(kept.base, moved);
  const missing = cowfs(['mount', kept.base, kept.mountpoint, '--overlay', kept.overlay]);
  expectRefusal(missing, 2, kept.base);
  expect(infoOf(kept.overlay).base).toMatchObject({ path: kept.base, changed: expect.stringContaining(kept.base) });
  let again = remounted({ ...kept, base: moved });
  expectContent(again.disk, kept.content);
  await unmounted(again);
  expect(infoOf(kept.overlay).base).toMatchObject({ path: moved, changed: null });
  // With a sync it is remembered even if the daemon is killed.
  const third = join(kept.directory, 'third.img');
  renameSync(moved, third);
  again = remounted({ ...kept, base: third });
  put(again.disk, 0, Buffer.from('synced'));
  await killed(again);
  expect(infoOf(kept.overlay).base).toMatchObject({ path: third, changed: null });
});

test('a copy with its time (cp -p) is the same base; one with a time of its own is not', async () => {
  const kept = await written();
  const copy = join(kept.directory, 'copy.img');
  must('cp', ['-p', kept.base, copy]);
  const again = remounted({ ...kept, base: copy });
  expectContent(again.disk, kept.content);
  await unmounted(again);
  const plain = join(kept.directory, 'plain.img');
  copyFileSync(kept.base, plain);
  expectOther({ ...kept, base: plain }, 'last written to');
});

test('a base that was only touched is refused, with both times', async () => {
  const kept = await written();
  const { mtime } = statSync(kept.base);
  const later = new Date('2031-02-03T04:05:06.789Z');
  utimesSync(kept.base, later, later);
  expectOther(kept, later.toISOString(), mtime.toISOString());
  expect(infoOf(kept.overlay).base.changed).toContain(later.toISOString());
  await expectForced(kept, kept.content, /2031-02-03/);
});

test.each([
  ['the first', 0],
  ['the last', LARGE - 1],
])('a base of which %s byte has changed is refused, though its time is as before', async (_which, offset) => {
  const kept = await written(LARGE);
  const byte = Buffer.from([(kept.original[offset] ?? 0) ^ 1]);
  must('cp', ['-p', kept.base, join(kept.directory, 'stamp')]);
  change(kept.base, offset, byte);
  must('touch', ['-r', join(kept.directory, 'stamp'), kept.base]);
  expectOther(kept, 'content');
  await expectForced(kept, patched(kept.content, [offset, byte]), /content/);
});

test('a base that has changed where no sample is taken is known by its time', async () => {
  const kept = await written(LARGE);
  // Between the start and the first sample after it.
  const offset = 2 * MIB + 8 * 1024 + 1;
  const sampled = Array.from({ length: 64 }, (_, sample) => Math.floor(((LARGE / 65) * (sample + 1)) / 4096) * 4096);
  expect(sampled.some((at) => offset >= at && offset < at + 4096)).toBe(false);
  const byte = Buffer.from([(kept.original[offset] ?? 0) ^ 1]);
  change(kept.base, offset, byte, false);
  expectOther(kept, 'last written to');
  await expectForced(kept, patched(kept.content, [offset, byte]), /last written to/);
});

test('a base that has grown is refused; with --force what it has more stays zeros', async () => {
  const kept = await written();
  writeFileSync(kept.base, filled(7, 10_000), { flag: 'a' });
  expectOther(kept, '1000003', '1010003');
  await expectForced(kept, kept.content, /1010003/);
  // From its next reset on it shows.
  const again = remounted(kept);
  mustCowfs(['reset', again.disk]);
  expectContent(again.disk, readFileSync(kept.base));
  await unmounted(again);
});

test('a base that was cut is refused; with --force what it has lost reads as zeros', async () => {
  const kept = await written();
  truncateSync(kept.base, 600_001);
  expectOther(kept, '1000003', '600001');
  const content = patched(kept.content.subarray(0, 600_001), [1_000_002, Buffer.alloc(1)]);
  await expectForced(kept, content, /600001/);
  let again = remounted(kept);
  put(again.disk, 700_000, filled(2, 20));
  await killed(again);
  again = remounted(kept);
  expectContent(again.disk, patched(content, [700_000, filled(2, 20)]));
  await unmounted(again);
});

test('another file in its place, of its size and time, is refused', async () => {
  const kept = await written();
  const other = makeBase(kept.directory, 1_000_003, 'other.img');
  must('touch', ['-r', kept.base, other]);
  renameSync(other, kept.base);
  expectOther(kept, 'content');
});

test('a base that is gone altogether: exit 2, and the overlay stays', async () => {
  const kept = await written();
  rmSync(kept.base);
  const before = readFileSync(kept.overlay);
  expectRefusal(cowfs(['mount', kept.base, kept.mountpoint, '--overlay', kept.overlay, '--force']), 2, kept.base);
  expect(readFileSync(kept.overlay).equals(before)).toBe(true);
  expect(lookInto(kept.overlay).problems).toEqual([]);
});

test('a refusal leaves no mount, and the right base still fits afterwards', async () => {
  const kept = await written();
  const wrong = makeBase(kept.directory, 1_000_003, 'wrong.img');
  expectOther({ ...kept, base: wrong }, wrong);
  await expectNothingLeft(kept.mountpoint);
  const again = remounted(kept);
  expectContent(again.disk, kept.content);
  await unmounted(again);
});

test('a --force is remembered from the mount on, also when that ends by kill -9', async () => {
  const kept = await written();
  const later = new Date('2031-02-03T04:05:06.789Z');
  utimesSync(kept.base, later, later);
  let again = remounted(kept, ['--force']);
  await killed(again);
  again = remounted(kept);
  expectContent(again.disk, kept.content);
  await unmounted(again);
});

test('a device with the bytes of the file is the same base, and the other way round', async (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const kept = await written(513 * 512);
  const device = loopDevice(kept.base);
  let again = remounted({ ...kept, base: device });
  expectContent(again.disk, kept.content);
  await unmounted(again);
  expect(infoOf(kept.overlay).base).toMatchObject({ path: device, changed: null });
  again = remounted(kept);
  expectContent(again.disk, kept.content);
  await unmounted(again);
});

test('the base is read, never written: bytes and times', async () => {
  const directory = scratch();
  const base = makeBase(directory, 1_000_003);
  const past = new Date('2020-01-01T00:00:00.000Z');
  utimesSync(base, past, past);
  const [sum, { mtimeMs, ctimeMs, size }] = [await sha256(base), statSync(base)];
  const place = { directory, base, original: readFileSync(base), overlay: join(directory, 'vm.cow') };
  for (let round = 0; round < 2; round++) {
    const kept = remounted({ ...place, mountpoint: makeMountpoint(directory) });
    put(kept.disk, round * 500_000, filled(round, 100_000));
    mustCowfs(['reset', kept.disk]);
    await unmounted(kept);
  }
  const now = statSync(base);
  expect([now.mtimeMs, now.ctimeMs, now.size, await sha256(base)]).toEqual([mtimeMs, ctimeMs, size, sum]);
});
