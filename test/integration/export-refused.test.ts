/** Exports that cannot be: one line that says why, an exit code, no half file, and what was there stays as it was. */
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  COWFS,
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  run,
  scratch,
  sha256,
} from '../harness.ts';
import { expectSame, exported, FORMAT_NAMES, FORMATS, MIB, strangersIn, untilThawed } from './export-support.ts';
import { needs, needsRoot, ordinaryUser, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { keptDisk, unmounted } from './overlay-support.ts';
import { filled, put } from './sessions-support.ts';

interface Live {
  readonly directory: string;
  readonly base: string;
  readonly disk: string;
  readonly mountpoint: string;
}

function live(bytes = 16 * MIB): Live {
  const directory = scratch();
  const base = makeBase(directory, bytes);
  const mount = mountDisk(base, makeMountpoint(directory));
  put(mount.disk, 4096, filled(1, 3 * MIB));
  return { ...mount, directory, base };
}

describe.each(FORMAT_NAMES)('%s', (format) => {
  test('no room: no file, exit code 4, and there is as much room as before', async (context) => {
    needsRoot(context);
    const { directory, disk, mountpoint } = live();
    // A backed image is of 3 MiB, the others of 16.
    const place = tmpfs(directory, '2M', 'small');
    for (const options of [[], ['--force']]) {
      const result = cowfs(['export', disk, join(place, 'image'), ...FORMATS[format], ...options]);
      expectRefusal(result, 4, join(place, 'image'), 'ENOSPC', 'make room');
      expect(strangersIn(place)).toEqual([]);
    }
    writeFileSync(join(place, 'image'), 'old');
    expectRefusal(cowfs(['export', disk, join(place, 'image'), ...FORMATS[format], '--force']), 4, 'ENOSPC');
    expect(readFileSync(join(place, 'image'), 'utf8')).toBe('old');
    expect(strangersIn(place, 'image')).toEqual([]);
    expect(must('df', ['--output=used', place])).toMatch(/\n\s*4\n/);
    await untilThawed(mountpoint);
  });

  test('past the limit of a file’s size: no file, a line, no core', (context) => {
    needs(context, 'prlimit');
    const { directory, disk } = live();
    const target = makeMountpoint(directory, 'target');
    const command = [COWFS, 'export', disk, join(target, 'image'), ...FORMATS[format]];
    const result = run('prlimit', [`--fsize=${2 * MIB}`, '--', ...command], { cwd: target });
    expectRefusal(result, 1, join(target, 'image'), 'EFBIG');
    expect(strangersIn(target)).toEqual([]);
  });

  test('a file that is there: refused without --force, and unchanged; replaced with it', () => {
    const { directory, disk } = live();
    const path = join(directory, 'image');
    writeFileSync(path, 'precious');
    chmodSync(path, 0o600);
    expectRefusal(cowfs(['export', disk, path, ...FORMATS[format]]), 3, path, '--force');
    expect(readFileSync(path, 'utf8')).toBe('precious');
    exported(disk, path, format, ['--force']);
    expect(statSync(path).size).toBeGreaterThan(3 * MIB);
    expect(strangersIn(directory, 'base.img', 'mnt', 'image')).toEqual([]);
  });
});

test.each([[''], ['--force']])('what is no place for an image %s', async (option) => {
  const options = option === '' ? [] : [option];
  const { base, directory, disk, mountpoint } = live();
  const at = (name: string): string => join(directory, name);
  mkdirSync(at('directory'));
  writeFileSync(at('other'), 'other');
  symlinkSync(at('other'), at('link'));
  symlinkSync(at('nothing'), at('dangling'));
  symlinkSync(base, at('base-link'));
  linkSync(base, at('base-hardlink'));
  must('mkfifo', [at('fifo')]);
  const [sum, names] = [await sha256(base), must('ls', ['-lAi', directory])];
  const refusals: readonly (readonly [string, string])[] = [
    [at('directory'), 'no regular file'],
    [directory, 'no regular file'],
    ['/dev/null', 'no regular file'],
    [at('fifo'), 'no regular file'],
    [at('link'), 'no regular file'],
    [at('dangling'), 'no regular file'],
    [at('base-link'), 'no regular file'],
    [base, 'is what is exported'],
    [at('base-hardlink'), 'is what is exported'],
    [at('missing/image'), 'ENOENT'],
    [at('other/image'), 'ENOTDIR'],
    ['/proc/image', ''],
    ['/sys/image', ''],
    [join(mountpoint, 'image.raw'), ''],
    [join(mountpoint, 'image'), ''],
  ];
  for (const [path, words] of refusals) {
    for (const format of FORMAT_NAMES) {
      expectRefusal(cowfs(['export', disk, path, ...FORMATS[format], ...options]), 2, path, words);
    }
  }
  expect(lstatSync('/dev/null').isCharacterDevice()).toBe(true);
  expect(must('ls', ['-lAi', directory])).toBe(names);
  expect(await sha256(base)).toBe(sum);
  expect(strangersIn(mountpoint, 'disk.raw')).toEqual([]);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test('the disk itself is no place for its image', () => {
  const { directory, disk } = live();
  const before = readFileSync(disk);
  expectRefusal(cowfs(['export', disk, disk]), 3, disk);
  expectRefusal(cowfs(['export', disk, disk, '--force']), 2, disk);
  expect(readFileSync(disk).equals(before)).toBe(true);
  expect(strangersIn(directory, 'base.img', 'mnt')).toEqual([]);
});

test('the overlay and its base are no places for their image', async () => {
  const kept = keptDisk();
  put(kept.disk, 100, filled(1, 5000));
  await unmounted(kept);
  const sums = [await sha256(kept.overlay), await sha256(kept.base)];
  linkSync(kept.overlay, join(kept.directory, 'hard.cow'));
  for (const path of [kept.overlay, kept.base, join(kept.directory, 'hard.cow')]) {
    for (const options of [[], ['--force']]) {
      expectRefusal(cowfs(['export', kept.overlay, path, ...options]), 2, path, 'is what is exported');
    }
  }
  expect([await sha256(kept.overlay), await sha256(kept.base)]).toEqual(sums);
});

test('a directory that cannot be written to', (context) => {
  needs(context, 'runuser');
  const { directory, as } = ordinaryUser();
  const base = makeBase(directory, MIB);
  const { disk } = mountDisk(base, join(directory, 'mnt'), [], as);
  mkdirSync(join(directory, 'closed'));
  chmodSync(join(directory, 'closed'), 0o555);
  const path = join(directory, 'closed/image');
  expectRefusal(cowfs(['export', disk, path], as), 2, path, 'EACCES', 'writable');
  expect(strangersIn(join(directory, 'closed'))).toEqual([]);
});

test('a read-only file system', (context) => {
  needsRoot(context);
  const { directory, disk } = live();
  const place = tmpfs(directory, '32M', 'fixed');
  must('mount', ['-o', 'remount,ro', place]);
  expectRefusal(cowfs(['export', disk, join(place, 'image')]), 2, 'EROFS');
});

test('sources that are none', () => {
  const { base, directory, disk, mountpoint } = live(MIB);
  mkdirSync(join(directory, 'plain'));
  for (const command of [['export'], ['diff']]) {
    const target = command[0] === 'export' ? [join(directory, 'image')] : [];
    for (const source of [base, '/dev/null', join(directory, 'plain'), join(directory, 'nowhere'), `${disk}x`]) {
      expectRefusal(cowfs([...command, source, ...target]), 2, source);
    }
    expectRefusal(cowfs([...command, disk, ...target, '--base', base]), 2, '--base');
  }
  expect(strangersIn(directory, 'base.img', 'mnt', 'plain')).toEqual([]);
  // Of a plain file there is more to say than that another may be made there.
  const { stderr } = cowfs(['export', base, join(directory, 'image')]);
  expect(stderr).toContain('no overlay of cowfs');
  expect(stderr).not.toContain('nothing yet');
  mustCowfs(['unmount', mountpoint]);
});

test('options that do not go together', () => {
  const { directory, disk } = live(MIB);
  const path = join(directory, 'image');
  for (const [options, ...words] of [
    [['--backing', '--flat'], '--backing', '--flat'],
    [['--backing'], '--format qcow2'],
    [['--flat'], '--format qcow2'],
    [['--format', 'raw', '--backing'], '--format qcow2'],
    [['--format', 'vmdk'], 'vmdk'],
  ] as const) {
    const { status, stdout, stderr } = cowfs(['export', disk, path, ...options]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    for (const word of words) expect(stderr).toContain(word);
  }
  expectRefusal(cowfs(['diff', disk, '--json', '--map']), 2, '--json', '--map');
  expect(existsSync(path)).toBe(false);
});

describe('the base was moved under a live mount', () => {
  test('raw and flat do not mind, also where they replace a file', () => {
    const { base, directory, disk } = live(4 * MIB);
    renameSync(base, `${base}.away`);
    for (const format of ['raw', 'flat'] as const) {
      const path = join(directory, format);
      writeFileSync(path, 'old');
      expectRefusal(cowfs(['export', disk, path, ...FORMATS[format]]), 3, path);
      exported(disk, path, format, ['--force']);
    }
    expectSame(join(directory, 'raw'), disk);
  });

  test('where it lies now it is no place for an image either', async () => {
    const { base, disk } = live(4 * MIB);
    const sum = await sha256(base);
    renameSync(base, `${base}.away`);
    writeFileSync(base, 'another');
    expectRefusal(cowfs(['export', disk, `${base}.away`, '--force']), 2, 'is what is exported');
    expect(await sha256(`${base}.away`)).toBe(sum);
  });

  test('a backed image would lead nowhere, or to another file: refused', () => {
    const { base, directory, disk } = live(4 * MIB);
    const path = join(directory, 'image');
    renameSync(base, `${base}.away`);
    const gone = cowfs(['export', disk, path, ...FORMATS.backed]);
    writeFileSync(base, Buffer.alloc(4 * MIB));
    const other = cowfs(['export', disk, path, ...FORMATS.backed, '--force']);
    for (const { status, stderr } of [gone, other]) {
      expect({ status, stderr }).toMatchObject({ stderr: expect.stringContaining(base) });
      expect(status).toBeGreaterThan(0);
    }
  });
});
