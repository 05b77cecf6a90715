/** `cowfs export` and `cowfs diff` of overlay files: closed well or not, on bases that have moved or changed, in use. */
import {
  appendFileSync,
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { cowfs, makeBase, must, mustCowfs, scratch, sha256 } from '../harness.ts';
import {
  BLOCK,
  blocksOf,
  contentOf,
  differingBlocks,
  diffOf,
  exported,
  FORMAT_NAMES,
  infoOf,
  MIB,
  strangersIn,
} from './export-support.ts';
import { needs } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { type KeptDisk, keptDisk, killed, remounted, unmounted } from './overlay-support.ts';
import { filled, patched, put } from './sessions-support.ts';

beforeEach((context) => needs(context, 'qemu-img', 'cmp'));

/** All formats, and the differences, are what the disk is. */
function expectAll({ base, directory, original, overlay }: KeptDisk, content: Buffer, ...options: string[]): void {
  for (const format of FORMAT_NAMES) {
    const image = exported(overlay, join(directory, format), format, ['--force', ...options]);
    const found = contentOf(image, format, directory);
    expect(found.subarray(0, content.length).equals(content)).toBe(true);
    expect(found.subarray(content.length).every((byte) => byte === 0)).toBe(true);
  }
  const diff = diffOf(overlay, options);
  expect(diff).toMatchObject({ disk: overlay, size: content.length, baseSize: original.length });
  if (options.length === 0) expect(diff.base).toBe(base);
  expect(blocksOf(diff.ranges)).toEqual(differingBlocks(content, original));
  expect(mustCowfs(['diff', overlay, ...options])).toContain('OFFSET');
  expect(mustCowfs(['diff', overlay, '--map', ...options])).toContain('written');
}

/** Writes, trims and sizes, all durable; what the disk then is. */
function change({ disk, original }: KeptDisk): Buffer {
  put(disk, 1000, filled(1, 200_000));
  must('fallocate', ['-p', '-o', '400000', '-l', '100000', disk]);
  truncateSync(disk, 900_001);
  truncateSync(disk, 1_300_000);
  put(disk, 1_200_001, filled(2, 3000));
  return patched(
    original.subarray(0, 900_001),
    [1000, filled(1, 200_000)],
    [400_000, Buffer.alloc(100_000)],
    [1_200_001, filled(2, 3000)],
    [1_299_999, Buffer.alloc(1)],
  );
}

test('one that was closed well', async () => {
  const kept = keptDisk();
  const content = change(kept);
  await unmounted(kept);
  const sums = [await sha256(kept.overlay), await sha256(kept.base)];
  expectAll(kept, content);
  expect([await sha256(kept.overlay), await sha256(kept.base)]).toEqual(sums);
  expect(infoOf(join(kept.directory, 'backed'))['backing-filename']).toBe(kept.base);
  // Nothing has it in use any more.
  const again = remounted(kept);
  expect(readFileSync(again.disk).equals(content)).toBe(true);
});

test('one whose daemon was killed has what was synced, and export does not change it', async () => {
  const kept = keptDisk();
  const content = change(kept);
  await killed(kept);
  const sum = await sha256(kept.overlay);
  expectAll(kept, content);
  expect(await sha256(kept.overlay)).toBe(sum);
  const again = remounted(kept);
  expect(readFileSync(again.disk).equals(content)).toBe(true);
});

test('one whose daemon was killed while much was written: what a mount then shows', async () => {
  const kept = keptDisk([], 8 * MIB);
  for (let round = 0; round < 40; round++) {
    put(kept.disk, (round * 177_777) % (7 * MIB), filled(round, 30_000));
    if (round % 7 === 0) must('fallocate', ['-p', '-o', String(round * 100_000), '-l', '70000', kept.disk]);
  }
  await killed(kept);
  for (const format of FORMAT_NAMES) exported(kept.overlay, join(kept.directory, format), format);
  const { ranges } = diffOf(kept.overlay);
  const { disk } = remounted(kept);
  const content = readFileSync(disk);
  for (const format of FORMAT_NAMES) {
    const found = contentOf(join(kept.directory, format), format, kept.directory);
    expect([format, found.equals(content)]).toEqual([format, true]);
  }
  expect(blocksOf(ranges)).toEqual(differingBlocks(content, kept.original));
});

test('a fresh one is its base', async () => {
  const kept = keptDisk();
  await unmounted(kept);
  for (const format of FORMAT_NAMES) exported(kept.overlay, join(kept.directory, format), format);
  expect(readFileSync(join(kept.directory, 'raw')).equals(kept.original)).toBe(true);
  expect(diffOf(kept.overlay).ranges).toEqual([]);
  expect(mustCowfs(['diff', kept.overlay])).toMatch(/^ +OFFSET +LENGTH +NOW\n0 B differ\n$/);
});

test('the base has moved: refused, unless --base says where to', async () => {
  const kept = keptDisk();
  const content = change(kept);
  await unmounted(kept);
  const moved = join(kept.directory, 'moved.img');
  renameSync(kept.base, moved);
  const target = join(kept.directory, 'image');
  expectRefusal(cowfs(['export', kept.overlay, target]), 2, kept.base, '--base');
  expectRefusal(cowfs(['diff', kept.overlay]), 2, kept.base, '--base');
  expect(strangersIn(kept.directory, 'mnt', 'vm.cow', 'moved.img')).toEqual([]);
  expectAll(kept, content, '--base', moved);
  expect(infoOf(join(kept.directory, 'backed'))['backing-filename']).toBe(moved);
  expect(diffOf(kept.overlay, ['--base', moved]).base).toBe(moved);
  const link = join(kept.directory, 'link.img');
  symlinkSync(moved, link);
  exported(kept.overlay, join(kept.directory, 'backed'), 'backed', ['--force', '--base', link]);
  expect(infoOf(join(kept.directory, 'backed'))['backing-filename']).toBe(moved);
});

test('another base: refused, with --force a warning', async () => {
  const kept = keptDisk();
  put(kept.disk, 0, filled(1, 2 * BLOCK));
  await unmounted(kept);
  const other = makeBase(scratch(), kept.original.length);
  const target = join(kept.directory, 'image');
  expectRefusal(cowfs(['export', kept.overlay, target, '--base', other]), 3, other, 'content', '--force');
  expectRefusal(cowfs(['diff', kept.overlay, '--base', other]), 3, other, 'content', '--force');
  expect(strangersIn(kept.directory, 'mnt', 'vm.cow', 'base.img')).toEqual([]);
  const { status, stderr } = cowfs(['export', kept.overlay, target, '--base', other, '--force']);
  expect(status).toBe(0);
  expect(stderr).toMatch(/^cowfs: warning: [^\n]+--force\n$/);
  expect(readFileSync(target).equals(patched(readFileSync(other), [0, filled(1, 2 * BLOCK)]))).toBe(true);
  expect(cowfs(['diff', kept.overlay, '--base', other, '--force', '--json'])).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/^cowfs: warning: /),
  });
});

test.each(['longer', 'shorter', 'touched'] as const)('a base that is %s now: refused', async (how) => {
  const kept = keptDisk();
  put(kept.disk, 0, filled(1, 5000));
  await unmounted(kept);
  if (how === 'longer') appendFileSync(kept.base, 'more');
  else if (how === 'shorter') truncateSync(kept.base, 900_000);
  else utimesSync(kept.base, 1, 1);
  for (const command of [
    ['export', kept.overlay, join(kept.directory, 'x')],
    ['diff', kept.overlay],
  ]) {
    expectRefusal(cowfs(command), 3, kept.base, '--force');
    expect(cowfs([...command, '--force'])).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^cowfs: warning: [^\n]+\n$/),
    });
  }
  expect(readFileSync(join(kept.directory, 'x')).subarray(0, 5000).equals(filled(1, 5000))).toBe(true);
});

test('one that is mounted: refused, with the mountpoint; diff of its disk is not', async () => {
  const kept = keptDisk();
  put(kept.disk, 5000, filled(1, 5000));
  const target = join(kept.directory, 'image');
  const links = ['soft.cow', 'hard.cow'].map((name) => join(kept.directory, name));
  symlinkSync(kept.overlay, links[0] ?? '');
  linkSync(kept.overlay, links[1] ?? '');
  for (const command of [
    ['export', kept.overlay, target],
    ['diff', kept.overlay],
    ['diff', kept.overlay, '--map'],
  ]) {
    expectRefusal(cowfs(command), 3, kept.overlay, kept.mountpoint, `cowfs unmount ${kept.mountpoint}`);
  }
  for (const link of links) {
    expectRefusal(cowfs(['export', link, target]), 3, /is (in use|mounted)/);
    expectRefusal(cowfs(['diff', link]), 3, /is (in use|mounted)/);
  }
  for (const source of [kept.disk, kept.mountpoint]) {
    expect(diffOf(source)).toMatchObject({ disk: kept.disk, base: kept.base });
    expect(blocksOf(diffOf(source).ranges)).toEqual([1, 2]);
    expect(blocksOf(diffOf(source, ['--written']).ranges)).toEqual([1, 2]);
    expect(mustCowfs(['diff', source, '--map'])).toContain('written');
  }
  expect(strangersIn(kept.directory, 'base.img', 'mnt', 'vm.cow', 'soft.cow', 'hard.cow')).toEqual([]);
  await unmounted(kept);
  expect(blocksOf(diffOf(kept.overlay).ranges)).toEqual([1, 2]);
});

test('several at once read one overlay file', async () => {
  const kept = keptDisk();
  const content = change(kept);
  await unmounted(kept);
  for (const format of FORMAT_NAMES) exported(kept.overlay, join(kept.directory, `1-${format}`), format);
  const script = FORMAT_NAMES.map((_, index) => `"$0" export "$1" "$2/at-once-${index}.raw" & pids="$pids $!"`).join(
    '\n',
  );
  must('sh', [
    '-c',
    `${script}\nfor pid in $pids; do wait "$pid" || exit 1; done`,
    join(import.meta.dirname, '../../bin/cowfs'),
    kept.overlay,
    kept.directory,
  ]);
  for (const index of FORMAT_NAMES.keys()) {
    expect(readFileSync(join(kept.directory, `at-once-${index}.raw`)).equals(content)).toBe(true);
  }
});

test('one that is damaged: one line, no file', async () => {
  const kept = keptDisk([], 4 * MIB);
  put(kept.disk, 0, filled(1, 3 * MIB));
  await unmounted(kept);
  truncateSync(kept.overlay, 200_000);
  const target = join(kept.directory, 'image');
  expectRefusal(cowfs(['export', kept.overlay, target]), 1, kept.overlay, 'damaged');
  expectRefusal(cowfs(['diff', kept.overlay]), 1, kept.overlay, 'damaged');
  truncateSync(kept.overlay, 0);
  expectRefusal(cowfs(['export', kept.overlay, target]), 2, kept.overlay);
  rmSync(kept.overlay);
  expectRefusal(cowfs(['export', kept.overlay, target]), 2, kept.overlay, 'ENOENT');
  expect(strangersIn(kept.directory, 'base.img', 'mnt')).toEqual([]);
});

test('an overlay in a block more than it needs: sizes that are no multiple of anything', async () => {
  const kept = keptDisk([], 4097);
  put(kept.disk, 4096, Buffer.from('x'));
  truncateSync(kept.disk, 3 * BLOCK + 1);
  await unmounted(kept);
  expectAll(kept, patched(kept.original, [4096, Buffer.from('x')], [3 * BLOCK, Buffer.alloc(1)]));
});
