/**
 * The conformance suite (main.mjs) on a plain copy, which is the measure of the cases themselves, and on the disk over
 * each transport and each cache mode. The same cases for all; what a transport cannot carry has a case of its own that
 * says how it is answered instead. Each case has a disk of its own, and the base must be as it was after each.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { CACHE_MODES, TRANSPORT_NAMES } from '../../src/transport/transport.ts';
import { isRoot, makeMountpoint, lacks as missing, mountDisk, must, PROJECT, run, scratch } from '../harness.ts';
import { skipUnless } from '../integration/machine-support.ts';
import { suiteBases } from './bases.ts';
import { suiteDisks } from './disks.ts';
import { testDirectory, xfsPlace } from './place.ts';

const MAIN = join(import.meta.dirname, 'main.mjs');
const CASE_TIMEOUT_MS = 100_000;

type Feature = 'fallocate' | 'holes' | 'shared-mapping' | 'exact-times' | 'one-time' | 'root';

interface Case {
  readonly name: string;
  readonly base: 'even' | 'odd' | 'far';
  readonly needs: readonly Feature[];
  readonly lacks?: Feature;
}

const CASES = JSON.parse(must(process.execPath, [MAIN, 'list'])) as readonly Case[];

interface Subject {
  readonly name: string;
  /** Options of `cowfs mount`; undefined for the plain copy. */
  readonly options: readonly string[] | undefined;
  readonly lacks: readonly Feature[];
  /** Whether the disk is kept in an overlay file. */
  readonly isKept?: true;
  /** Whether it needs a file system that shares blocks. */
  readonly isClone?: true;
  /** Whether another version of Node could make a difference that no other subject shows: not by what the kernel caches. */
  readonly ofNode: boolean;
}

const FUSE_NATIVE_LACKS: readonly Feature[] = ['fallocate', 'holes', 'exact-times', 'one-time'];

const REFLINK = ['--store-strategy', 'reflink'];

const SUBJECTS: readonly Subject[] = [
  { name: 'a plain copy', options: undefined, lacks: [], ofNode: false },
  ...TRANSPORT_NAMES.flatMap((transport) =>
    CACHE_MODES[transport].map((cache, index) => ({
      name: `--transport ${transport} --cache ${cache}`,
      options: ['--transport', transport, '--cache', cache],
      lacks: [
        ...(transport === 'fuse-native' ? FUSE_NATIVE_LACKS : []),
        ...(transport === 'fuse-native' && cache === 'none' ? ['shared-mapping' as const] : []),
      ],
      ofNode: index === 0,
    })),
  ),
  // What serves where there is no io_uring.
  { name: '--aio threads', options: ['--aio', 'threads'], lacks: [], ofNode: true },
  { name: '--overlay', options: [], lacks: [], isKept: true, ofNode: true },
  // Served by the kernel itself, and by the daemon.
  { name: '--store-strategy reflink', options: REFLINK, lacks: [], isClone: true, ofNode: false },
  {
    name: '--store-strategy reflink --cache none',
    options: [...REFLINK, '--cache', 'none'],
    lacks: [],
    isClone: true,
    ofNode: false,
  },
];

const TRIED = SUBJECTS.filter(({ ofNode }) => ofNode || process.env['COWFS_MODES'] !== 'of-node');

/** Why the subject cannot be had here. */
function lacksFor({ isClone }: Subject): string | undefined {
  if (isClone === undefined) return undefined;
  return isRoot() ? missing('mkfs.xfs', 'losetup') : 'needs root';
}

const commonBases = suiteBases(MAIN, testDirectory);

describe.each(TRIED)('$name', (subject) => {
  const { name, options, lacks, isKept, isClone } = subject;
  const reason = lacksFor(subject);
  if (reason !== undefined) {
    test('skipped', (context) => skipUnless(context, false, reason));
    return;
  }
  const place = isClone ? xfsPlace() : testDirectory;
  const bases = isClone ? suiteBases(MAIN, place) : commonBases;
  const applicable = CASES.filter((one) =>
    one.lacks === undefined ? !one.needs.some((feature) => lacks.includes(feature)) : lacks.includes(one.lacks),
  );
  const freshDisk = suiteDisks(options ?? [], place);
  let passed = 0;

  test.for(applicable)('$name', { timeout: CASE_TIMEOUT_MS + 20_000 }, (one, context) => {
    skipUnless(context, isRoot() || !one.needs.includes('root'), 'needs root');
    const directory = scratch();
    const base = bases.pathOf(one.base);
    const before = bases.stateOf(one.base);
    let disk = join(directory, 'plain.img');
    if (options === undefined) must('cp', ['--sparse=always', base, disk]);
    else if (!isKept) disk = freshDisk(base);
    else {
      const kept = ['--overlay', join(directory, 'kept.cow')];
      disk = mountDisk(base, makeMountpoint(directory), ['--store', directory, ...options, ...kept]).disk;
    }
    const { status, stderr } = run(process.execPath, [MAIN, 'run', one.name, disk], { timeoutMs: CASE_TIMEOUT_MS });
    expect(status, stderr).toBe(0);
    expect(bases.stateOf(one.base)).toEqual(before);
    passed++;
  });

  afterAll(() => {
    const without = lacks.length === 0 ? '' : `; it does not carry ${lacks.join(', ')}`;
    console.log(`conformance: ${name}: ${passed} of ${applicable.length} cases${without}`);
  });
});

/** Features that the README's table has a row for. */
const ROWS: Readonly<Record<Exclude<Feature, 'root'>, string>> = {
  fallocate: 'trim, punched holes, fallocate',
  holes: 'SEEK_HOLE',
  'shared-mapping': 'shared mappings under `--cache none`',
  'exact-times': 'file times',
  'one-time': 'one time alone (`touch -m`)',
};

test("the README's transport table says what each carries", () => {
  const readme = readFileSync(join(PROJECT, 'README.md'), 'utf8');
  const rows = new Map(
    [...readme.matchAll(/^\|([^|]*)\|([^|]+)\|([^|]+)\|$/gm)].map(([, ...cells]) => {
      const [what = '', ...answers] = cells.map((cell) => cell.trim());
      return [what, answers];
    }),
  );
  expect(rows.get('')?.map((cell) => cell.replaceAll('`', ''))).toEqual(TRANSPORT_NAMES);
  for (const [feature, row] of Object.entries(ROWS)) {
    const [kernel = '', fuseNative = ''] = rows.get(row) ?? [];
    const lacking = SUBJECTS.filter(({ lacks }) => (lacks as readonly string[]).includes(feature));
    expect(kernel, row).toMatch(/^yes|^nanoseconds/);
    expect(lacking.length, row).toBeGreaterThan(0);
    expect(
      lacking.every(({ name }) => name.includes('fuse-native')),
      row,
    ).toBe(true);
    expect(fuseNative, row).not.toMatch(/^$|^yes|^nanoseconds/);
  }
  expect(rows.get('`--cache`')).toEqual(TRANSPORT_NAMES.map((name) => CACHE_MODES[name].join(', ')));
});
