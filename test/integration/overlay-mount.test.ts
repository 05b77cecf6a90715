/** `--overlay`: what is written is there at the next mount, the base is as it was, whatever lies where. */
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, type TestContext, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch, sha256, statusOf } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { loopDevice, needs, needsRoot, tmpfs } from './machine-support.ts';
import { BLOCK, keptDisk, killed, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import { ALL_MODES, expectContent, filled, type Mode, patched, put } from './sessions-support.ts';

function optionsOf({ transport, cache }: Mode, context: TestContext): string[] {
  if (transport === 'fuse-native') needsFuseNative(context);
  return ['--transport', transport, '--cache', cache];
}

/** What a file takes. */
function storeBytes(path: string): number {
  return statSync(path).blocks * 512;
}

test.for(ALL_MODES)('$name: what was written is there at the next mount, the base as before', async (mode, context) => {
  const options = optionsOf(mode, context);
  let kept = keptDisk(options);
  const { base, directory, original, overlay } = kept;
  const [before, times] = [await sha256(base), statSync(base)];
  put(kept.disk, 5000, filled(1, 100_000));
  put(kept.disk, 999_990, filled(2, 13));
  await unmounted(kept);
  let expected = patched(original, [5000, filled(1, 100_000)], [999_990, filled(2, 13)]);
  kept = remounted(kept, options);
  expectContent(kept.disk, expected);
  put(kept.disk, 2_000_001, filled(3, 70_000));
  await unmounted(kept);
  expected = patched(expected, [2_000_001, filled(3, 70_000)]);
  kept = remounted(kept, options);
  expectContent(kept.disk, expected);
  truncateSync(kept.disk, 700_001);
  await unmounted(kept);
  expect(lookInto(overlay).header.diskBytes).toBe(700_001);
  kept = remounted(kept, options);
  truncateSync(kept.disk, 1_500_000);
  await unmounted(kept);
  kept = remounted(kept, options);
  expectContent(kept.disk, patched(expected.subarray(0, 700_001), [1_499_999, Buffer.alloc(1)]));
  await unmounted(kept);
  expect(readdirSync(directory).sort()).toEqual(['base.img', 'mnt', 'vm.cow']);
  const now = statSync(base);
  expect([now.mtimeMs, now.ctimeMs, await sha256(base)]).toEqual([times.mtimeMs, times.ctimeMs, before]);
});

test('a program that only closes, without fsync, finds it all the same', async () => {
  let kept = keptDisk();
  const fd = openSync(kept.disk, 'r+');
  writeFileSync(fd, filled(4, 300_000));
  closeSync(fd);
  await unmounted(kept);
  kept = remounted(kept);
  expectContent(kept.disk, patched(kept.original, [0, filled(4, 300_000)]));
});

test('a disk that is cut in the middle of a written block and grown again is whole', async () => {
  let kept = keptDisk();
  put(kept.disk, 0, filled(1, 1_000_000));
  truncateSync(kept.disk, 500_001);
  truncateSync(kept.disk, 2_000_000);
  const expected = patched(filled(1, 1_000_000).subarray(0, 500_001), [1_999_999, Buffer.alloc(1)]);
  for (let round = 0; round < 2; round++) {
    await unmounted(kept);
    kept = remounted(kept);
    expectContent(kept.disk, expected);
  }
});

test('so is one of an odd size that is grown after a crash', async () => {
  let kept = keptDisk();
  put(kept.disk, 999_000, filled(1, 1_003));
  await killed(kept);
  kept = remounted(kept);
  truncateSync(kept.disk, 1_002_000);
  await unmounted(kept);
  kept = remounted(kept, ['--size', '3M']);
  await unmounted(kept);
  kept = remounted(kept);
  expectContent(kept.disk, patched(kept.original, [999_000, filled(1, 1_003)], [3 * MIB - 1, Buffer.alloc(1)]));
});

test('punched holes, zeroed ranges and space set aside stay, and holes take no room', async () => {
  let kept = keptDisk([], 4 * MIB);
  put(kept.disk, 0, filled(1, 3 * MIB));
  const full = storeBytes(kept.overlay);
  must('fallocate', ['-p', '-o', String(64 * 1024), '-l', String(2 * MIB), kept.disk]);
  must('fallocate', ['-p', '-o', String(3 * MIB + 100), '-l', '5000', kept.disk]);
  must('fallocate', ['-l', String(8 * MIB), kept.disk]);
  const expected = Buffer.concat([patched(kept.original, [0, filled(1, 3 * MIB)]), Buffer.alloc(4 * MIB)]);
  expected.fill(0, 64 * 1024, 64 * 1024 + 2 * MIB).fill(0, 3 * MIB + 100, 3 * MIB + 5100);
  const { writtenBytes } = statusOf(kept.mountpoint).disks[0] ?? {};
  for (let round = 0; round < 2; round++) {
    await unmounted(kept);
    kept = remounted(kept);
    expectContent(kept.disk, expected);
    expect(statusOf(kept.mountpoint).disks[0]).toMatchObject({ size: 8 * MIB, writtenBytes });
  }
  must('fallocate', ['-p', '-o', '0', '-l', String(8 * MIB), kept.disk]);
  await unmounted(kept);
  expect(lookInto(kept.overlay).writtenBytes).toBe(0);
  expect(storeBytes(kept.overlay)).toBeLessThan(full / 10);
  kept = remounted(kept);
  expectContent(kept.disk, Buffer.alloc(8 * MIB));
});

test('space set aside is there after the next mount, and charged', async () => {
  let kept = keptDisk([], 4 * MIB);
  must('fallocate', ['-n', '-o', '0', '-l', String(2 * MIB), kept.disk]);
  expect(statusOf(kept.mountpoint).store.occupiedBytes).toBe(2 * MIB);
  await unmounted(kept);
  expect(storeBytes(kept.overlay)).toBeGreaterThanOrEqual(2 * MIB);
  kept = remounted(kept);
  expect(statusOf(kept.mountpoint).store.occupiedBytes).toBe(2 * MIB);
  expectContent(kept.disk, kept.original);
});

test('the size is kept: --size counts when the overlay is new, grows it later, and never shrinks it', async () => {
  let kept = keptDisk(['--size', '3M']);
  expect(statSync(kept.disk).size).toBe(3 * MIB);
  await unmounted(kept);
  kept = remounted(kept);
  expect(statSync(kept.disk).size).toBe(3 * MIB);
  await unmounted(kept);
  kept = remounted(kept, ['--size', '5M']);
  expect(statSync(kept.disk).size).toBe(5 * MIB);
  put(kept.disk, 5 * MIB - 3, Buffer.from('end'));
  await unmounted(kept);
  kept = remounted(kept, ['--size', '2M']);
  const expected = patched(kept.original, [5 * MIB - 3, Buffer.from('end')]);
  expectContent(kept.disk, expected);
  await unmounted(kept);
  kept = remounted(kept);
  truncateSync(kept.disk, 4097);
  await unmounted(kept);
  kept = remounted(kept);
  expectContent(kept.disk, expected.subarray(0, 4097));
});

test.each([1, 511, 4095, 4097, 130_000, 61 * MIB + 7])('a base of %i bytes', async (bytes) => {
  let kept = keptDisk([], bytes);
  put(kept.disk, bytes - 1, Buffer.from('!'));
  put(kept.disk, bytes + 5000, Buffer.from('beyond'));
  const expected = patched(kept.original, [bytes - 1, Buffer.from('!')], [bytes + 5000, Buffer.from('beyond')]);
  for (let round = 0; round < 2; round++) {
    await unmounted(kept);
    kept = remounted(kept);
    expectContent(kept.disk, expected);
  }
});

test('a block device as base: its node’s times do not matter', async (context) => {
  needsRoot(context);
  needs(context, 'losetup');
  const directory = scratch();
  const image = makeBase(directory, 513 * 512);
  const before = await sha256(image);
  const base = loopDevice(image);
  const original = readFileSync(image);
  let kept = remounted({
    directory,
    base,
    original,
    mountpoint: makeMountpoint(directory),
    overlay: join(directory, 'vm.cow'),
  });
  put(kept.disk, 700, filled(1, 9000));
  await unmounted(kept);
  must('touch', [base]);
  kept = remounted(kept);
  expectContent(kept.disk, patched(original, [700, filled(1, 9000)]));
  await unmounted(kept);
  expect(lookInto(kept.overlay).header.base).toMatchObject({ path: base, kind: 'block device', sizeBytes: 513 * 512 });
  expect(await sha256(image)).toBe(before);
});

test('a base given by a symlink is known by what it leads to; so is an overlay', async () => {
  let kept = keptDisk();
  await unmounted(kept);
  const link = join(kept.directory, 'link.img');
  symlinkSync(kept.base, link);
  const overlayLink = join(kept.directory, 'link.cow');
  symlinkSync(kept.overlay, overlayLink);
  kept = remounted({ ...kept, base: link, overlay: overlayLink });
  put(kept.disk, 10, Buffer.from('linked'));
  await unmounted(kept);
  expect(lookInto(overlayLink).header.base.path).toBe(join(kept.directory, 'base.img'));
  kept = remounted({ ...kept, base: join(kept.directory, 'base.img'), overlay: join(kept.directory, 'vm.cow') });
  expectContent(kept.disk, patched(kept.original, [10, Buffer.from('linked')]));
});

test.for(['tmpfs', 'ext4', 'xfs', 'btrfs'])('an overlay on another file system: %s', async (type, context) => {
  needsRoot(context);
  const directory = scratch();
  const place = type === 'tmpfs' ? tmpfs(directory, '64M') : formatted(directory, type, context);
  const base = makeBase(directory, 3 * MIB);
  const original = readFileSync(base);
  const mountpoint = makeMountpoint(directory);
  let kept = remounted({ directory, base, original, mountpoint, overlay: join(place, 'vm.cow') });
  put(kept.disk, 4095, filled(1, MIB));
  must('fallocate', ['-p', '-o', '8192', '-l', '65536', kept.disk]);
  const expected = patched(original, [4095, filled(1, MIB)]).fill(0, 8192, 8192 + 65536);
  await killed(kept);
  kept = remounted(kept);
  expectContent(kept.disk, expected);
  await unmounted(kept);
  expect(readdirSync(place).filter((name) => name !== 'lost+found')).toEqual(['vm.cow']);
});

/** A file system of that type in a file, mounted until the test ends. */
function formatted(directory: string, type: string, context: TestContext): string {
  needs(context, `mkfs.${type}`, 'losetup');
  const image = join(directory, 'fs.img');
  writeFileSync(image, '');
  truncateSync(image, 400 * MIB);
  must(`mkfs.${type}`, [type === 'ext4' ? '-F' : '-f', '-q', image]);
  const place = makeMountpoint(directory, 'fs');
  must('mount', ['-o', 'loop', image, place]);
  return place;
}

test('a new overlay is its owner’s alone, takes little, and has its name at once', () => {
  const kept = keptDisk([], 8 * MIB);
  const { mode, blocks } = statSync(kept.overlay);
  expect(mode & 0o777).toBe(0o600);
  expect(blocks * 512).toBeLessThan(128 * 1024);
  expect(statusOf(kept.mountpoint).disks[0]?.overlay).toBe(kept.overlay);
  expect(mustCowfs(['status', kept.mountpoint])).toContain(kept.overlay);
});

test('cowfs run --overlay keeps what the command wrote', async () => {
  const directory = scratch();
  const base = makeBase(directory, 100_001);
  const overlay = join(directory, 'vm.cow');
  const before = await sha256(base);
  const script = (text: string): string[] => ['run', base, '--overlay', overlay, '--', 'sh', '-c', text, '{}'];
  mustCowfs(script('printf first | dd of="$0" conv=notrunc status=none'));
  expect(lookInto(overlay)).toMatchObject({ problems: [], writtenBytes: BLOCK, header: { clean: true } });
  const second = cowfs(
    script('head -c 5 "$0"; printf second | dd of="$0" seek=50000 bs=1 conv=notrunc status=none; exit 7'),
  );
  expect(second).toMatchObject({ status: 7, stdout: 'first', stderr: '' });
  expect(mustCowfs(script('tail -c +50001 "$0" | head -c 6'))).toBe('second');
  expect(lookInto(overlay)).toMatchObject({ problems: [], header: { clean: true } });
  expect(readdirSync(directory).sort()).toEqual(['base.img', 'vm.cow']);
  expect(await sha256(base)).toBe(before);
});

test('a base whose overlay is mounted may serve other mounts, kept or not', async () => {
  const kept = keptDisk();
  const { base, directory, original } = kept;
  const second = { ...kept, mountpoint: makeMountpoint(directory, 'second'), overlay: join(directory, 'second.cow') };
  const other = remounted(second);
  const plain = mountDisk(base, makeMountpoint(directory, 'plain'));
  put(kept.disk, 0, Buffer.from('one'));
  put(other.disk, 0, Buffer.from('two'));
  expectContent(plain.disk, original);
  expectContent(kept.disk, patched(original, [0, Buffer.from('one')]));
  expectContent(other.disk, patched(original, [0, Buffer.from('two')]));
  await unmounted(kept);
  await unmounted(other);
});

test('the overlay file may be renamed while it is mounted', async () => {
  let kept = keptDisk();
  put(kept.disk, 0, Buffer.from('before'));
  const moved = join(kept.directory, 'moved.cow');
  renameSync(kept.overlay, moved);
  put(kept.disk, 10, Buffer.from('after'));
  mustCowfs(['unmount', kept.mountpoint]);
  kept = remounted({ ...kept, overlay: moved });
  expectContent(kept.disk, patched(kept.original, [0, Buffer.from('before')], [10, Buffer.from('after')]));
});
