/** Copies into a mount and within it: as on any file system, the copy has the content and the size of what was copied. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lacks, must, run, scratch } from '../harness.ts';
import { needs } from './machine-support.ts';
import {
  ALL_MODES,
  expectContent,
  filled,
  make,
  mountSessions,
  patched,
  put,
  TRANSPORT_MODES,
  untilOnly,
} from './sessions-support.ts';

const BASE_BYTES = 300_001;
const SIZES = { empty: 0, smaller: 90_001, equal: BASE_BYTES, larger: 700_003 } as const;

/** Files of every size, one of them mostly hole. */
function sources(): { path: string; content: Buffer; what: string }[] {
  const directory = scratch();
  const plain = Object.entries(SIZES).map(([what, bytes]) => ({ what, content: randomBytes(bytes) }));
  const sparse = patched(Buffer.alloc(600_000), [200_000, filled(1, 5000)]);
  return [...plain, { what: 'sparse', content: sparse }].map(({ what, content }) => {
    const path = join(directory, what);
    if (what === 'sparse') {
      writeFileSync(path, '');
      truncateSync(path, 600_000);
      put(path, 200_000, filled(1, 5000));
    } else writeFileSync(path, content);
    return { path, content, what };
  });
}

const shell = (script: string) => (from: string, to: string) => must('sh', ['-c', script, from, to]);

interface Way {
  readonly how: string;
  readonly copy: (from: string, to: string) => unknown;
  /** Whether it makes new files with O_EXCL alone, which a transport may not pass on. */
  readonly exclusive?: boolean;
  readonly needs?: string;
}

const WAYS: readonly Way[] = [
  { how: 'cp', copy: (from, to) => must('cp', [from, to]), exclusive: true },
  { how: 'cp --sparse=always', copy: (from, to) => must('cp', ['--sparse=always', from, to]), exclusive: true },
  { how: 'cp --reflink=auto -p', copy: (from, to) => must('cp', ['--reflink=auto', '-p', from, to]), exclusive: true },
  {
    how: 'cp --remove-destination',
    copy: (from, to) => must('cp', ['--remove-destination', from, to]),
    exclusive: true,
  },
  { how: 'install', copy: (from, to) => must('install', [from, to]), exclusive: true },
  { how: 'dd', copy: (from, to) => must('dd', [`if=${from}`, `of=${to}`, 'bs=7000', 'status=none']) },
  { how: 'dd conv=sparse', copy: (from, to) => must('dd', [`if=${from}`, `of=${to}`, 'conv=sparse', 'status=none']) },
  { how: 'cat >', copy: shell('cat "$0" > "$1"') },
  { how: 'copyFile, by Node', copy: (from, to) => copyFileSync(from, to) },
  { how: 'write all, by Node', copy: (from, to) => writeFileSync(to, readFileSync(from)) },
  { how: 'rsync --inplace', copy: (from, to) => must('rsync', ['--inplace', from, to]), needs: 'rsync' },
  {
    how: 'qemu-img convert',
    copy: (from, to) =>
      statSync(from).size % 512 === 0 && must('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', from, to]),
    needs: 'qemu-img',
  },
];

/** Where a way of copying has another outcome than on any file system. */
function differences({ how, copy, needs: program }: Way, at: (name: string) => string, original: Buffer): string[] {
  const found: string[] = [];
  for (const { path, content, what } of sources()) {
    // qemu-img knows sectors only.
    if (program === 'qemu-img' && content.length % 512 !== 0) continue;
    make(at('old.raw'));
    expectContent(at('old.raw'), original);
    put(at('old.raw'), 5, filled(9, 250_000));
    for (const name of ['new.raw', 'old.raw']) {
      copy(path, at(name));
      const seen = readFileSync(at(name));
      if (!seen.equals(content)) {
        found.push(
          `${how}, ${what}, ${name}: ${seen.length} bytes of ${content.length}, first difference at ${firstDifference(seen, content)}`,
        );
      }
      if (statSync(at(name)).size !== seen.length) found.push(`${how}, ${what}, ${name}: stat has another size`);
      unlinkSync(at(name));
    }
  }
  return found;
}

function firstDifference(one: Buffer, other: Buffer): number {
  const at = one.findIndex((byte, index) => byte !== other[index]);
  return at < 0 ? Math.min(one.length, other.length) : at;
}

const CASES = ALL_MODES.flatMap((mode) =>
  [true, false].map((exclusive) => ({ mode, exclusive, name: mode.name, how: exclusive ? 'O_EXCL' : 'O_TRUNC' })),
);

test.for(CASES)(
  '$name: programs that copy with $how, onto a new name and onto an existing disk',
  async ({ mode, exclusive }, context) => {
    const { at, mountpoint, original } = mountSessions(mode, context, ['--empty']);
    const ways = WAYS.filter((way) => (way.exclusive === true) === exclusive).filter(({ how, needs: program }) => {
      const reason = program === undefined ? undefined : lacks(program);
      if (reason !== undefined) console.log(`left out: ${how}: ${reason}`);
      return reason === undefined;
    });
    expect(ways.flatMap((way) => differences(way, at, original))).toEqual([]);
    await untilOnly(mountpoint, [], 0);
  },
);

test.for(ALL_MODES)('$name: `>` makes a disk that is empty, and zeros where it is grown', (mode, context) => {
  const { at } = mountSessions(mode, context, ['--empty']);
  must('sh', ['-c', ': > "$0"', at('new.raw')]);
  expect(statSync(at('new.raw'))).toMatchObject({ size: 0, blocks: 0 });
  truncateSync(at('new.raw'), BASE_BYTES);
  expectContent(at('new.raw'), Buffer.alloc(BASE_BYTES));
  closeSync(openSync(at('second.raw'), 'w'));
  put(at('second.raw'), 200_000, filled(1, 10));
  expectContent(at('second.raw'), patched(Buffer.alloc(200_010), [200_000, filled(1, 10)]));
});

test.for(ALL_MODES)('$name: mv from another file system, over a disk, and out again', (mode, context) => {
  const { at, directory, original } = mountSessions(mode, context);
  for (const { path, content } of sources()) {
    must('mv', [path, at('disk.raw')]);
    expect(run('test', ['-e', path]).status).toBe(1);
    expectContent(at('disk.raw'), content);
  }
  make(at('out.raw'));
  put(at('out.raw'), 100, filled(3, 50_000));
  must('mv', [at('out.raw'), join(directory, 'out')]);
  expectContent(join(directory, 'out'), patched(original, [100, filled(3, 50_000)]));
  expect(run('test', ['-e', at('out.raw')]).status).toBe(1);
});

test.for(ALL_MODES)('$name: cp of a disk within the mount is a plain copy', (mode, context) => {
  const { at, disk, original, directory } = mountSessions(mode, context);
  put(disk, 5000, filled(1, 40_000));
  truncateSync(disk, 350_000);
  const content = patched(Buffer.alloc(350_000), [0, original], [5000, filled(1, 40_000)]);
  for (const sparse of ['auto', 'always', 'never']) {
    must('cp', [`--sparse=${sparse}`, disk, at(`${sparse}.raw`)]);
    expectContent(at(`${sparse}.raw`), content);
    must('cp', [`--sparse=${sparse}`, at(`${sparse}.raw`), join(directory, sparse)]);
    expectContent(join(directory, sparse), content);
  }
  put(at('auto.raw'), 0, filled(2, 100));
  expectContent(disk, content);
});

test.for(TRANSPORT_MODES)(
  '$name: tar -S of untouched, written, emptied and grown disks loses nothing',
  (mode, context) => {
    needs(context, 'tar');
    const { at, mountpoint, original, directory } = mountSessions(mode, context);
    const wanted: Record<string, Buffer> = { 'disk.raw': original };
    make(at('written.raw'));
    put(at('written.raw'), 100_000, filled(1, 9000));
    wanted['written.raw'] = patched(original, [100_000, filled(1, 9000)]);
    make(at('grown.raw'));
    truncateSync(at('grown.raw'), 5_000_000);
    wanted['grown.raw'] = patched(Buffer.alloc(5_000_000), [0, original]);
    make(at('zeros.raw'));
    truncateSync(at('zeros.raw'), 0);
    truncateSync(at('zeros.raw'), 100_000);
    wanted['zeros.raw'] = Buffer.alloc(100_000);
    must('sh', ['-c', ': > "$0"', at('empty.raw')]);
    wanted['empty.raw'] = Buffer.alloc(0);
    must('cp', [at('disk.raw'), at('copy.raw')]);
    wanted['copy.raw'] = original;
    const archive = join(directory, 'disks.tar');
    must('tar', ['-S', '-cf', archive, '-C', mountpoint, '.']);
    const out = scratch();
    must('tar', ['-xf', archive, '-C', out]);
    for (const [name, content] of Object.entries(wanted)) expectContent(join(out, name), content);
    // And into a mount: new names.
    const second = mountSessions(mode, context, ['--empty'], 7_000_000);
    must('tar', ['-xf', archive, '-C', second.mountpoint, '--no-same-owner']);
    for (const [name, content] of Object.entries(wanted)) {
      expect({ name, size: statSync(second.at(name)).size }).toEqual({ name, size: content.length });
      expectContent(second.at(name), content);
    }
  },
);
