/** Exports and diffs of an ordinary user: root runs these as nobody, anybody else as himself. */
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import {
  COWFS,
  cowfs,
  isRoot,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  run,
  scratch,
} from '../harness.ts';
import { blocksOf, diffOf, exported, FORMAT_NAMES, infoOf, MIB, strangersIn } from './export-support.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { NOBODY, needs, needsRoot, type Ordinary, ordinaryUser, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';

const TRANSPORTS = ['kernel', 'fuse-native'] as const;

beforeEach((context) => {
  needs(context, 'fusermount3', 'runuser', 'qemu-img', 'cmp');
  skipUnless(
    context,
    (statSync('/dev/fuse').mode & 0o006) === 0o006,
    '/dev/fuse is not for all (chmod 0666 /dev/fuse)',
  );
  if (!isRoot()) return;
  const { status } = cowfs(['--version'], { user: 'nobody' });
  skipUnless(context, status === 0, `the user nobody cannot read ${COWFS}`);
});

function mounted(options: readonly string[]): Ordinary & { disk: string; base: string } {
  const user = ordinaryUser();
  const base = makeBase(user.directory, 1_000_001);
  return { ...user, base, disk: mountDisk(base, user.mountpoint, options, user.as).disk };
}

describe.each(TRANSPORTS)('%s', (transport) => {
  beforeEach((context) => {
    if (transport === 'fuse-native') needsFuseNative(context);
  });

  test('all formats and diff of one’s own disk', async () => {
    const { as, base, directory, disk, mountpoint, runtime } = mounted(['--transport', transport]);
    must('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=4096', 'count=3', 'seek=5', 'conv=notrunc', 'status=none'], as);
    for (const format of FORMAT_NAMES) {
      const image = exported(disk, join(directory, format), format, [], as);
      if (isRoot()) expect(statSync(image).uid).toBe(NOBODY);
      if (format === 'raw') must('cmp', [image, disk], as);
      else {
        must('qemu-img', ['check', '-q', image], as);
        must('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', disk, image], as);
      }
    }
    expect(infoOf(join(directory, 'backed'))['backing-filename']).toBe(base);
    expect(blocksOf(diffOf(mountpoint, [], as).ranges)).toEqual([5, 6, 7]);
    expect(mustCowfs(['diff', mountpoint, '--map'], as)).toContain('written');
    mustCowfs(['unmount', mountpoint], as);
    await expectNothingLeft(mountpoint, runtime);
    expect(strangersIn(directory, 'base.img', 'mnt', 'xdg', ...FORMAT_NAMES)).toEqual([]);
  });

  test('a kept disk, mounted and not', () => {
    const user = ordinaryUser();
    const base = makeBase(user.directory, 1_000_001);
    const overlay = join(user.directory, 'vm.cow');
    const { disk } = mountDisk(base, user.mountpoint, ['--transport', transport, '--overlay', overlay], user.as);
    must('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=4096', 'count=3', 'conv=notrunc,fsync', 'status=none'], user.as);
    const live = exported(disk, join(user.directory, 'live'), 'raw', [], user.as);
    must('cmp', [live, disk], user.as);
    mustCowfs(['unmount', user.mountpoint], user.as);
    const file = exported(overlay, join(user.directory, 'file'), 'raw', [], user.as);
    must('cmp', [live, file]);
    expect(blocksOf(diffOf(overlay, [], user.as).ranges)).toEqual([0, 1, 2]);
  });
});

test('a base of root’s that all may read', (context) => {
  needsRoot(context);
  const user = ordinaryUser();
  const place = scratch();
  const base = makeBase(place, MIB);
  chmodSync(base, 0o444);
  const { disk } = mountDisk(base, user.mountpoint, [], user.as);
  const image = exported(disk, join(user.directory, 'x'), 'raw', [], user.as);
  expect(readFileSync(image).equals(readFileSync(base))).toBe(true);
});

test('the mode of an image is what the umask leaves', () => {
  const { as, directory, disk } = mounted([]);
  const path = join(directory, 'x');
  must('sh', ['-c', 'umask 077; exec "$0" "$@"', COWFS, 'export', disk, path], as);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('another user’s disk: one line, no file, for root and for others', (context) => {
  needsRoot(context);
  const { directory, disk, mountpoint } = mounted([]);
  const target = makeMountpoint(directory, 'target');
  for (const source of [disk, mountpoint]) {
    const asRoot = cowfs(['export', source, join(target, 'x')]);
    expect(asRoot.stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(asRoot.status).toBeGreaterThan(0);
    const diff = cowfs(['diff', source]);
    expect(diff.stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(diff.status).toBeGreaterThan(0);
  }
  const base = makeBase(scratch(), MIB);
  const own = mountDisk(base, makeMountpoint(scratch()));
  const stranger = ordinaryUser();
  for (const source of [own.disk, own.mountpoint]) {
    const result = cowfs(['export', source, join(stranger.directory, 'x')], stranger.as);
    expect(result.stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(result.status).toBeGreaterThan(0);
  }
  expect(strangersIn(target)).toEqual([]);
});

test('an overlay of another user’s', (context) => {
  needsRoot(context);
  const user = ordinaryUser();
  const place = scratch();
  const overlay = join(place, 'vm.cow');
  const base = makeBase(place, MIB);
  mustCowfs(['run', base, '--overlay', overlay, '--', 'true']);
  expectRefusal(cowfs(['export', overlay, join(user.directory, 'x')], user.as), 2, overlay, 'EACCES');
  writeFileSync(join(user.directory, 'y'), '');
  expect(run('ls', [user.directory]).stdout).not.toContain('x\n');
});
