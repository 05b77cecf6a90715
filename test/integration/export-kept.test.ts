/** `cowfs export` of a disk that is kept in an overlay file while it is mounted: of a copy, which goes again. */
import { closeSync, openSync, readFileSync, renameSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, type TestContext, test } from 'vitest';
import {
  cowfs,
  exitOf,
  makeBase,
  makeMountpoint,
  must,
  mustCowfs,
  poll,
  scratch,
  sha256,
  start,
  statusOf,
} from '../harness.ts';
import {
  BLOCK,
  blocksOf,
  contentOf,
  differingBlocks,
  diffOf,
  expectExport,
  exported,
  FORMAT_NAMES,
  MIB,
  startExport,
  strangersIn,
  untilThawed,
} from './export-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { finish, formatted, needs, needsRoot, skipUnless, tmpfs } from './machine-support.ts';
import { expectRefusal } from './nothing-left-support.ts';
import { type KeptDisk, keptDisk, killed, lookInto, remounted, unmounted } from './overlay-support.ts';
import { filled, opened, patched, put, TRANSPORT_MODES, untilStores } from './sessions-support.ts';

beforeEach((context) => needs(context, 'qemu-img', 'cmp'));

function keptOn(type: 'ext4' | 'xfs' | 'btrfs' | 'tmpfs', context: TestContext): KeptDisk {
  needsRoot(context);
  const directory = scratch();
  const place = type === 'tmpfs' ? tmpfs(directory, '400M') : formatted(directory, type, context);
  const base = makeBase(directory, 3 * MIB + 1);
  return remounted({
    directory,
    base,
    original: readFileSync(base),
    mountpoint: makeMountpoint(directory),
    overlay: join(place, 'vm.cow'),
  });
}

test.for(['ext4', 'xfs', 'btrfs', 'tmpfs'] as const)(
  'on %s: the image is the disk, and the disk goes on',
  async (type, context) => {
    const kept = keptOn(type, context);
    const { directory, disk, mountpoint, original, pid } = kept;
    put(disk, 5000, filled(1, 100_000));
    must('fallocate', ['-p', '-o', '1000000', '-l', '500000', disk]);
    truncateSync(disk, 3_500_001);
    put(disk, 3_400_001, filled(3, 10_000));
    const fd = opened(disk);
    let expected = patched(original, [5000, filled(1, 100_000)], [1_000_000, Buffer.alloc(500_000)]);
    expected = patched(expected, [3_400_001, filled(3, 10_000)], [3_500_000, Buffer.alloc(1)]);
    for (const [round, format] of FORMAT_NAMES.entries()) {
      // Not synced, and open.
      writeSync(fd, filled(round, 70_001), 0, 70_001, round * 900_000);
      expected = patched(expected, [round * 900_000, filled(round, 70_001)]);
      const image = exported(mountpoint, join(directory, format), format);
      expect(contentOf(image, format, directory).subarray(0, expected.length).equals(expected)).toBe(true);
      expectExport(image, disk, format);
    }
    expect(blocksOf(diffOf(disk).ranges)).toEqual(differingBlocks(expected, original));
    // One layer, and no copy is left in the daemon.
    await untilThawed(mountpoint);
    await untilStores(pid, 1);
    closeSync(fd);
    await unmounted(kept);
    const again = remounted(kept);
    expect(readFileSync(again.disk).equals(expected)).toBe(true);
  },
);

test.for(TRANSPORT_MODES)('as it was at one moment, $name', async (mode, context) => {
  if (mode.transport === 'fuse-native') needsFuseNative(context);
  const kept = keptDisk(['--transport', mode.transport, '--cache', mode.cache], 12 * MIB);
  const program = join(import.meta.dirname, 'export-writer.mjs');
  const writer = start(process.execPath, [program, kept.disk, '10', String(MIB)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  writer.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const number = (): number => Number([...text.matchAll(/(?:number|last) (\d+)/g)].at(-1)?.[1] ?? 0);
  for (const format of [...FORMAT_NAMES, ...FORMAT_NAMES]) {
    const before = number();
    await poll('the writer goes on', () => number() > before, 60_000);
    const atLeast = number();
    const child = startExport(kept.disk, join(kept.directory, format), format, ['--force']);
    expect(await finish(child)).toEqual({ status: 0, stdout: '', stderr: '' });
    const content = contentOf(join(kept.directory, format), format, kept.directory);
    const [a, b] = [content.readUInt32LE(0), content.readUInt32LE(MIB)];
    expect(a).toBeGreaterThanOrEqual(atLeast);
    expect([a, a - 1]).toContain(b);
    for (let slot = 0; slot < 10; slot++) {
      const at = (2 + slot) * MIB;
      const found = content.readUInt32LE(at);
      expect(content.subarray(at, at + BLOCK).equals(Buffer.alloc(BLOCK, content.subarray(at, at + 4)))).toBe(true);
      const last = a - ((a - slot + 10) % 10);
      expect(a === b && (a + 1) % 10 === slot ? [last, a + 1] : [last]).toContain(found);
    }
  }
  writer.stdin?.write('stop\n');
  expect(await exitOf(writer)).toBe(0);
  const content = readFileSync(kept.disk);
  expect(content.readUInt32LE(0)).toBe(number());
  await unmounted(kept);
  expect(readFileSync(remounted(kept).disk).equals(content)).toBe(true);
});

test('killed in the middle, or its daemon: the overlay file is sound, and nothing is beside it', async () => {
  let kept = keptDisk([], 128 * MIB);
  const bytes = filled(1, 4 * MIB);
  const fd = openSync(kept.disk, 'r+');
  for (let at = 0; at < 120 * MIB; at += bytes.length) writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
  const target = makeMountpoint(kept.directory, 'target');
  const stopped = async (): Promise<ReturnType<typeof startExport>> => {
    const child = startExport(kept.disk, join(target, 'image'), 'raw', ['--json']);
    await new Promise<void>((done) => child.stdout?.once('data', () => done()));
    child.kill('SIGSTOP');
    return child;
  };
  const first = await stopped();
  put(kept.disk, 0, filled(2, MIB));
  first.kill('SIGKILL');
  await exitOf(first);
  await untilStores(kept.pid, 1);
  const expected = readFileSync(kept.disk);
  const second = await stopped();
  await killed(kept).catch(() => {
    // The command that was stopped has the mountpoint in its command line.
  });
  second.kill('SIGCONT');
  const code = await exitOf(second);
  if (code === 0) expect(readFileSync(join(target, 'image')).equals(expected)).toBe(true);
  else expect(strangersIn(target)).toEqual([]);
  expect(lookInto(kept.overlay).problems).toEqual([]);
  kept = remounted(kept);
  expect(readFileSync(kept.disk).equals(expected)).toBe(true);
  expect(strangersIn(kept.directory, 'base.img', 'mnt', 'vm.cow', 'target')).toEqual([]);
});

test('with too much for a copy: refused in a line that names the overlay, and exported once it is unmounted', async (context) => {
  const directory = scratch();
  const base = join(directory, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, 400 * MIB);
  const kept = remounted({
    directory,
    base,
    original: Buffer.alloc(0),
    mountpoint: makeMountpoint(directory),
    overlay: join(directory, 'vm.cow'),
  });
  const fd = openSync(kept.disk, 'r+');
  const bytes = filled(1, 8 * MIB);
  for (let at = 0; at < 264 * MIB; at += bytes.length) writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
  const image = join(directory, 'image');
  const result = cowfs(['export', kept.disk, image]);
  skipUnless(context, result.status !== 0, 'this file system shares blocks');
  expectRefusal(result, 3, kept.overlay, 'unmount');
  expect(strangersIn(directory, 'base.img', 'mnt', 'vm.cow')).toEqual([]);
  expect(diffOf(kept.disk).ranges).toEqual([{ offset: 0, length: 264 * MIB, kind: 'data' }]);
  const sum = await sha256(kept.disk);
  mustCowfs(['unmount', kept.mountpoint]);
  exported(kept.overlay, image, 'raw');
  expect(await sha256(image)).toBe(sum);
});

test.for(['ext4', 'xfs', 'btrfs'] as const)(
  'renamed while it is mounted, with another file in its place, on %s',
  (type, context) => {
    const kept = keptOn(type, context);
    put(kept.disk, 0, filled(1, 2 * MIB));
    renameSync(kept.overlay, `${kept.overlay}.moved`);
    writeFileSync(kept.overlay, Buffer.alloc(4 * MIB, 7));
    expectExport(exported(kept.disk, join(kept.directory, 'raw'), 'raw'), kept.disk, 'raw');
    expect(statusOf(kept.mountpoint).disks[0]?.layers).toBe(1);
  },
);

test('beside temporary disks of one mount', async () => {
  const kept = keptDisk([], 2 * MIB);
  put(kept.disk, 0, filled(1, 10_000));
  const other = join(kept.mountpoint, 'other.raw');
  writeFileSync(other, filled(2, 300_000));
  expectRefusal(cowfs(['export', kept.mountpoint, join(kept.directory, 'x')]), 2, '2 disks');
  for (const disk of [kept.disk, other]) {
    for (const format of FORMAT_NAMES) {
      expectExport(exported(disk, join(kept.directory, format), format, ['--force']), disk, format);
    }
  }
  await untilThawed(kept.mountpoint);
});
