/** Commits that the machine does not let be: no room, no permission, a base that cannot be written. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, type TestContext, test } from 'vitest';
import { faultyBase, type Plan } from '../fault/faulty-base.ts';
import {
  COWFS,
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { expectNames, hashOf, names, Picture, redoLogOf, untouched } from './commit-support.ts';
import { freeBytes, NOBODY, needs, needsRoot, ordinaryUser, skipUnless, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { BLOCK, lookInto, MIB, randomOf, SEED } from './overlay-support.ts';
import { expectContent, filled, patched, put } from './sessions-support.ts';

console.log(`commit-full: COWFS_SEED=${SEED}`);

beforeEach(needsRoot);

const QUIET = { status: 0, stdout: '', stderr: '' };
/** Of the small file systems. */
const ROOM = 64 * MIB;
const WRITTEN = 12 * MIB;

/** A file system of its own, small. */
function smallPlace(type: string, directory: string, context: TestContext): string {
  if (type === 'tmpfs') return tmpfs(directory, String(ROOM), 'small');
  needs(context, `mkfs.${type}`, 'losetup');
  const image = join(directory, 'fs.img');
  writeFileSync(image, '');
  truncateSync(image, ROOM);
  must(`mkfs.${type}`, ['-F', '-q', '-m', '0', image]);
  const place = makeMountpoint(directory, 'small');
  must('mount', ['-o', 'loop', image, place]);
  rmSync(join(place, 'lost+found'), { recursive: true });
  return place;
}

/** Takes room until so much is left; `unfill` gives it back. */
function fill(place: string, leaveBytes: number): void {
  must('sync', ['-f', place]);
  // What the file system itself needs for a file comes on top: so in pieces, ever smaller ones.
  let number = 0;
  for (let left = freeBytes(place) - leaveBytes; left >= BLOCK; left = Math.floor(left / 2)) {
    while (freeBytes(place) - leaveBytes >= left) {
      if (run('fallocate', ['-l', String(left), join(place, `filler-${number++}`)]).status !== 0) break;
    }
  }
}

function unfill(place: string): void {
  for (const name of names(place)) if (name.startsWith('filler')) rmSync(join(place, name));
}

interface Kept {
  readonly base: string;
  readonly overlay: string;
  readonly mountpoint: string;
  readonly picture: Picture;
}

/** A base of data and holes, and an overlay on it that has been written to in both. */
function keptIn(directory: string, base: string, overlay: string): Kept {
  const mountpoint = makeMountpoint(directory);
  const fd = filled(1, 4 * MIB);
  writeFileSync(base, fd);
  truncateSync(base, 24 * MIB);
  const picture = new Picture(readFileSync(base), randomOf(SEED));
  const { disk } = mountDisk(base, mountpoint, ['--overlay', overlay, '--store', directory]);
  put(disk, 2 * MIB, filled(2, WRITTEN));
  filled(2, WRITTEN).copy(picture.content, 2 * MIB);
  mustCowfs(['unmount', mountpoint]);
  return { base, overlay, mountpoint, picture };
}

/** The overlay, without --force, shows what was written; nothing is told. */
function expectShown({ base, overlay, picture }: Kept): void {
  const ran = cowfs(['run', base, '--overlay', overlay, '--', 'sha256sum', '{}']);
  expect({ status: ran.status, stderr: ran.stderr }).toEqual({ status: 0, stderr: '' });
  expect(ran.stdout.split(' ')[0]).toBe(picture.hash);
}

function expectCommitted(kept: Kept): void {
  expect(cowfs(['commit', kept.overlay])).toEqual(QUIET);
  expect(hashOf(kept.base)).toBe(kept.picture.hash);
  expect(lookInto(kept.overlay).writtenBytes).toBe(0);
  expectShown(kept);
}

const TYPES = ['tmpfs', 'ext4'];
const LACKS = [
  { what: 'the log', leave: 2 * MIB },
  { what: 'the log to its end', leave: WRITTEN - MIB },
  { what: 'the log and the holes that become data', leave: WRITTEN + 4 * MIB },
];

test.for(TYPES.flatMap((type) => LACKS.map((lack) => ({ type, ...lack }))))(
  '$type without room for $what: an overlay',
  ({ type, leave }, context) => {
    const directory = scratch();
    const place = smallPlace(type, directory, context);
    const kept = keptIn(directory, join(place, 'base.img'), join(directory, 'vm.cow'));
    fill(place, leave);
    const before = { base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(place) };
    expectRefusal(cowfs(['commit', kept.overlay]), 4, 'base.img', 'room');
    expect({ base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(place) }).toEqual(before);
    expectShown(kept);
    unfill(place);
    expectCommitted(kept);
    expectNames(place, 'base.img');
  },
);

test.for(TYPES.flatMap((type) => LACKS.map((lack) => ({ type, ...lack }))))(
  '$type without room for $what: a mounted disk',
  ({ type, leave }, context) => {
    const directory = scratch();
    const place = smallPlace(type, directory, context);
    const base = join(place, 'base.img');
    writeFileSync(base, filled(1, 4 * MIB));
    truncateSync(base, 24 * MIB);
    const original = readFileSync(base);
    const { disk, mountpoint } = mountDisk(base, makeMountpoint(directory), ['--store', directory]);
    put(disk, 2 * MIB, filled(2, WRITTEN));
    const expected = patched(original, [2 * MIB, filled(2, WRITTEN)]);
    fill(place, leave);
    const before = { base: untouched(base), names: names(place) };
    expectRefusal(cowfs(['commit', mountpoint]), 4, 'base.img', 'room');
    expect({ base: untouched(base), names: names(place) }).toEqual(before);
    expect(statusOf(mountpoint)).toMatchObject({ baseChanged: null, warnings: [] });
    expectContent(disk, expected);
    put(disk, 0, Buffer.from('on it goes'));
    unfill(place);
    expect(cowfs(['commit', mountpoint])).toEqual(QUIET);
    expectContent(base, patched(expected, [0, Buffer.from('on it goes')]));
    expectNames(place, 'base.img');
  },
);

test.for(TYPES)('%s without room for a base that grows', (type, context) => {
  const directory = scratch();
  const place = smallPlace(type, directory, context);
  const kept = keptIn(directory, join(place, 'base.img'), join(directory, 'vm.cow'));
  const { disk } = mountDisk(kept.base, kept.mountpoint, ['--overlay', kept.overlay]);
  kept.picture.truncate(disk, 32 * MIB);
  put(disk, 28 * MIB, filled(3, 4 * MIB));
  filled(3, 4 * MIB).copy(kept.picture.content, 28 * MIB);
  mustCowfs(['unmount', kept.mountpoint]);
  fill(place, WRITTEN + 6 * MIB);
  const before = untouched(kept.base);
  expectRefusal(cowfs(['commit', kept.overlay]), 4, 'base.img', 'room');
  expect(untouched(kept.base)).toEqual(before);
  expectShown(kept);
  unfill(place);
  expectCommitted(kept);
});

test.for(TYPES)('an overlay on a full %s: it is emptied all the same, or once there is room', (type, context) => {
  const directory = scratch();
  const place = smallPlace(type, directory, context);
  const kept = keptIn(directory, join(directory, 'base.img'), join(place, 'vm.cow'));
  fill(place, 0);
  const { status, stderr } = cowfs(['commit', kept.overlay]);
  if (status !== 0) {
    expect(stderr).toMatch(/^cowfs: [^\n]*vm\.cow[^\n]*\n$/);
    expect(existsSync(redoLogOf(kept.base))).toBe(true);
    unfill(place);
    expect(cowfs(['mount', kept.base, kept.mountpoint]).stderr).toMatch(/finished now\n$/);
    mustCowfs(['unmount', kept.mountpoint]);
  }
  expect(hashOf(kept.base)).toBe(kept.picture.hash);
  expect(existsSync(redoLogOf(kept.base))).toBe(false);
  unfill(place);
  expectShown(kept);
  expect(lookInto(kept.overlay).writtenBytes).toBe(0);
});

test('a file size limit (ulimit -f)', (context) => {
  needs(context, 'prlimit');
  const directory = scratch();
  const kept = keptIn(directory, join(directory, 'base.img'), join(directory, 'vm.cow'));
  const before = { base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(directory) };
  // Less than: a header, the map, the data, the base.
  for (const limit of [4096, MIB, 140 * MIB, 145 * MIB]) {
    const limited = run('prlimit', [`--fsize=${limit}`, COWFS, 'commit', kept.overlay]);
    expect(limited.stderr).toMatch(/^cowfs: [^\n]*EFBIG[^\n]*\n$/);
    expect([1, 4]).toContain(limited.status);
    expect({ base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(directory) }).toEqual(before);
  }
  expectShown(kept);
  expectCommitted(kept);
});

/** A place whose files are shown read-only elsewhere. */
function readOnlyBind(from: string, to: string): void {
  must('mount', ['--bind', from, to]);
  must('mount', ['-o', 'remount,bind,ro', to]);
}

test.for(['the base', 'its directory'])('%s on a read-only mount', (what) => {
  const directory = scratch();
  const place = makeMountpoint(directory, 'place');
  const kept = keptIn(directory, join(place, 'base.img'), join(directory, 'vm.cow'));
  readOnlyBind(what === 'the base' ? kept.base : place, what === 'the base' ? kept.base : place);
  const before = { base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(place) };
  expectRefusal(cowfs(['commit', kept.overlay]), 2, kept.base, 'EROFS');
  expect({ base: untouched(kept.base), overlay: hashOf(kept.overlay), names: names(place) }).toEqual(before);
  const { disk, mountpoint } = mountDisk(kept.base, kept.mountpoint);
  put(disk, 0, Buffer.from('x'));
  expectRefusal(cowfs(['commit', mountpoint]), 2, kept.base, 'EROFS');
  expect(cowfs(['commit', mountpoint, '--to', join(directory, 'new.img')])).toEqual(QUIET);
  mustCowfs(['unmount', mountpoint]);
  expectShown(kept);
});

const FORBIDDEN: Readonly<Record<string, (base: string, place: string) => void>> = {
  'the base': (base) => {
    chownSync(base, 0, 0);
    chmodSync(base, 0o644);
  },
  'its directory': (_base, place) => {
    chownSync(place, 0, 0);
    chmodSync(place, 0o755);
  },
};

test.for(Object.keys(FORBIDDEN))('an ordinary user without the right to write to %s', async (what, context) => {
  needs(context, 'fusermount3', 'runuser');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  skipUnless(context, cowfs(['--version'], as).status === 0, `the user nobody cannot read ${COWFS}`);
  const place = join(directory, 'place');
  mkdirSync(place);
  const base = makeBase(place, MIB);
  for (const path of [place, base]) chownSync(path, NOBODY, NOBODY);
  FORBIDDEN[what]?.(base, place);
  const original = readFileSync(base);
  const { disk } = mountDisk(base, mountpoint, [], as);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=5000', 'count=3', 'seek=3', 'conv=notrunc', 'status=none'], as);
  const expected = patched(original, [15_000, Buffer.alloc(15_000)]);
  const before = { base: untouched(base), names: names(place) };
  expectRefusal(cowfs(['commit', mountpoint], as), 2, place, 'EACCES');
  expect({ base: untouched(base), names: names(place) }).toEqual(before);
  must('cmp', [disk, '-'], { ...as, input: expected });
  const to = join(directory, 'new.img');
  expect(cowfs(['commit', mountpoint, '--to', to], as)).toEqual(QUIET);
  expectContent(to, expected);
  mustCowfs(['unmount', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
});

test('an ordinary user commits what is his', async (context) => {
  needs(context, 'fusermount3', 'runuser');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  skipUnless(context, cowfs(['--version'], as).status === 0, `the user nobody cannot read ${COWFS}`);
  const base = makeBase(directory, MIB);
  chownSync(base, NOBODY, NOBODY);
  const original = readFileSync(base);
  const { disk } = mountDisk(base, mountpoint, [], as);
  must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=5000', 'count=3', 'seek=3', 'conv=notrunc', 'status=none'], as);
  expect(cowfs(['commit', mountpoint], as)).toEqual(QUIET);
  expectContent(base, patched(original, [15_000, Buffer.alloc(15_000)]));
  expect(statSync(base)).toMatchObject({ uid: NOBODY, gid: NOBODY });
  mustCowfs(['unmount', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
});

/** A base that fails as told, in an ordinary directory, so that a log can be made beside it. */
async function faultyPlace(bytes: number): Promise<{ directory: string; base: string; setPlan(plan: Plan): void }> {
  const { directory, path, setPlan } = await faultyBase(bytes);
  const base = join(makeMountpoint(directory, 'place'), 'base.img');
  writeFileSync(base, '');
  must('mount', ['--bind', path, base]);
  return { directory, base, setPlan };
}

const FAULTS: Readonly<Record<string, Plan>> = {
  'that has a bad block': { write: 'EIO', writeFrom: 2 * MIB },
  'that takes no write': { write: 'EIO' },
  'that runs full': { write: 'ENOSPC', writeFrom: MIB },
  'that cannot be synced': { sync: 'EIO' },
  'that cannot be made larger': { truncate: 'EIO' },
};

test.for(Object.keys(FAULTS))(
  'a base %s, an overlay: the log stays, and the commit is finished once that is mended',
  async (fault) => {
    const { directory, base, setPlan } = await faultyPlace(5 * MIB + 77);
    const overlay = join(directory, 'vm.cow');
    const mountpoint = makeMountpoint(directory);
    const picture = new Picture(readFileSync(base), randomOf(SEED));
    const { disk } = mountDisk(base, mountpoint, ['--overlay', overlay]);
    picture.write(disk, 3 * MIB);
    picture.truncate(disk, 6 * MIB);
    picture.write(disk, MIB);
    picture.trim(disk, 5);
    mustCowfs(['unmount', mountpoint]);
    setPlan(FAULTS[fault] ?? {});
    const failed = cowfs(['commit', overlay]);
    expect(failed.stderr).toMatch(/^cowfs: [^\n]*half written[^\n]*\n$/);
    expect(failed.stderr).toContain(base);
    expect(failed).toMatchObject({ status: 1, stdout: '' });
    expect(existsSync(redoLogOf(base))).toBe(true);
    // Nobody gets to see it half written.
    for (const args of [
      ['mount', base, mountpoint],
      ['diff', overlay],
      ['export', overlay, join(directory, 'x.img')],
    ]) {
      const { status, stderr } = cowfs(args);
      expect(stderr).toMatch(/^cowfs: [^\n]*half written[^\n]*\n$/);
      expect(status).toBe(1);
    }
    expect(existsSync(redoLogOf(base))).toBe(true);
    setPlan({});
    const ran = cowfs(['run', base, '--overlay', overlay, '--', 'sha256sum', '{}']);
    expect(ran.stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
    expect(ran.stdout.split(' ')[0]).toBe(picture.hash);
    expect(hashOf(base)).toBe(picture.hash);
    expect(lookInto(overlay).writtenBytes).toBe(0);
    expectNames(join(directory, 'place'), 'base.img');
  },
);

test.for(Object.keys(FAULTS))(
  'a base %s, a mounted disk: it goes on, and another commit finishes it',
  async (fault) => {
    const { directory, base, setPlan } = await faultyPlace(5 * MIB + 77);
    const mountpoint = makeMountpoint(directory);
    const picture = new Picture(readFileSync(base), randomOf(SEED));
    const { disk } = mountDisk(base, mountpoint);
    picture.write(disk, 3 * MIB);
    picture.truncate(disk, 6 * MIB);
    picture.write(disk, MIB);
    setPlan(FAULTS[fault] ?? {});
    const failed = cowfs(['commit', mountpoint]);
    expect(failed.stderr).toMatch(/^cowfs: [^\n]*half written[^\n]*\n$/);
    expect(failed).toMatchObject({ status: 1, stdout: '' });
    expect(hashOf(disk)).toBe(picture.hash);
    picture.write(disk, MIB);
    expect(hashOf(disk)).toBe(picture.hash);
    expect(cowfs(['reset', disk, '--force']).status).toBe(3);
    expect(cowfs(['commit', mountpoint]).status).toBe(1);
    expect(hashOf(disk)).toBe(picture.hash);
    setPlan({});
    expect(cowfs(['commit', mountpoint])).toEqual(QUIET);
    expect(hashOf(base)).toBe(picture.hash);
    expect(hashOf(disk)).toBe(picture.hash);
    expectNames(join(directory, 'place'), 'base.img');
  },
);

test('a base that cannot be written to, and a daemon that ends: the next mount finishes it once that is mended', async () => {
  const { directory, base, setPlan } = await faultyPlace(5 * MIB + 77);
  const mountpoint = makeMountpoint(directory);
  const picture = new Picture(readFileSync(base), randomOf(SEED));
  const { disk } = mountDisk(base, mountpoint);
  const { pid } = statusOf(mountpoint);
  picture.write(disk, 3 * MIB);
  setPlan({ write: 'EIO', writeFrom: MIB });
  expect(cowfs(['commit', mountpoint]).status).toBe(1);
  const committed = picture.hash;
  process.kill(pid, 'SIGKILL');
  await poll('the mount is gone', () => !existsSync(disk));
  setPlan({});
  expect(cowfs(['mount', base, mountpoint]).stderr).toMatch(/^cowfs: [^\n]*finished now\n$/);
  expect(hashOf(disk)).toBe(committed);
  expect(hashOf(base)).toBe(committed);
  mustCowfs(['unmount', mountpoint]);
});
