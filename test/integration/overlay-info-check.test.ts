/** `cowfs info` and `cowfs check`: what they say of an overlay file, to people and programs, and how they end. */
import { closeSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { expect, test } from 'vitest';
import { HEADER_BYTES, PAGE_BYTES, pageOffset } from '../../src/overlay/file/layout.ts';
import { cowfs, makeBase, makeMountpoint, must, mustCowfs, scratch } from '../harness.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import {
  BLOCK,
  checkOf,
  infoOf,
  type KeptDisk,
  keptDisk,
  killed,
  MIB,
  randomOf,
  remounted,
  SEED,
  SOUND,
  unmounted,
} from './overlay-support.ts';
import { expectContent, filled, patched, put } from './sessions-support.ts';

const BASE_BYTES = 1_000_003;
const WRITTEN = filled(1, 200_000);

/** A kept disk that was written to, and closed as it should be. */
async function closed(): Promise<KeptDisk & { readonly content: Buffer }> {
  const kept = keptDisk([], BASE_BYTES);
  put(kept.disk, 5000, WRITTEN);
  await unmounted(kept);
  return { ...kept, content: patched(kept.original, [5000, WRITTEN]) };
}

/** Changes bytes of a copy of the overlay. */
function damaged(kept: KeptDisk, ...offsets: readonly number[]): string {
  const copy = join(kept.directory, 'damaged.cow');
  sparseCopy(kept.overlay, copy);
  for (const offset of offsets) overwrite(copy, offset, Buffer.from([(readFileSync(copy)[offset] ?? 0) ^ 0x55]));
  return copy;
}

/** What is a hole stays one. */
function sparseCopy(from: string, to: string): void {
  must('cp', ['--sparse=always', from, to]);
}

function overwrite(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

test('info --json: every key, of a file that is closed, in use, and left by a crash', async () => {
  let kept = await closed();
  const { mtime } = statSync(kept.base);
  const info = infoOf(kept.overlay);
  const blocks = Math.ceil(205_000 / BLOCK) - Math.floor(5000 / BLOCK);
  expect(info).toEqual({
    path: kept.overlay,
    id: expect.stringMatching(/^[0-9a-f]{32}$/),
    size: BASE_BYTES,
    writtenBytes: blocks * BLOCK,
    storeBytes: statSync(kept.overlay).blocks * 512,
    generation: expect.any(Number),
    clean: true,
    inUse: false,
    base: {
      path: kept.base,
      size: BASE_BYTES,
      modifiedAt: mtime.toISOString(),
      fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/),
      changed: null,
    },
  });
  kept = remounted(kept);
  put(kept.disk, 0, Buffer.from('more'));
  expect(infoOf(kept.overlay)).toMatchObject({ id: info.id, inUse: true, clean: false, writtenBytes: null });
  expect(infoOf(kept.overlay).generation).toBeGreaterThan(info.generation);
  await killed(kept);
  expect(infoOf(kept.overlay)).toMatchObject({
    id: info.id,
    inUse: false,
    clean: false,
    writtenBytes: (blocks + 1) * BLOCK,
  });
});

test('info of a new file, and of one that was killed before anything was synced', async () => {
  const kept = keptDisk(['--cache', 'none'], BASE_BYTES);
  expect(infoOf(kept.overlay)).toMatchObject({ size: BASE_BYTES, inUse: true, clean: false });
  const fd = openSync(kept.disk, 'r+');
  writeSync(fd, WRITTEN, 0, WRITTEN.length, 0);
  closeSync(fd);
  await killed(kept);
  expect(infoOf(kept.overlay)).toMatchObject({ inUse: false, clean: false, writtenBytes: 0 });
  const { code, problems } = checkOf(kept.overlay);
  expect(code).toBe(0);
  expect(problems.map(({ kind }) => kind)).toEqual(['leftover']);
  // The next mount gives the room back.
  const again = remounted(kept);
  expectContent(again.disk, kept.original);
  expect(infoOf(kept.overlay).storeBytes).toBeLessThan(WRITTEN.length / 2);
  await unmounted(again);
});

test('info for people: a table that says where, how much, in which state, over which base', async () => {
  const kept = await closed();
  const text = mustCowfs(['info', kept.overlay]);
  for (const words of [kept.overlay, kept.base, 'closed cleanly', 'no', '976.6 KiB']) expect(text).toContain(words);
  const again = remounted(kept);
  expect(mustCowfs(['info', kept.overlay])).toContain('in use');
  put(again.disk, 0, Buffer.from('more'));
  await killed(again);
  expect(mustCowfs(['info', kept.overlay])).toContain('not closed cleanly');
  rmSync(kept.base);
  expect(mustCowfs(['info', kept.overlay])).toContain('base.img');
  // A relative path is one, too.
  expect(mustCowfs(['info', 'vm.cow'], { cwd: kept.directory })).toContain(kept.overlay);
});

test('check: 0 when clean and when a crash left something, 3 in use', async () => {
  let kept = await closed();
  const text = mustCowfs(['check', kept.overlay]);
  expect(text).toMatch(/^[^\n]*vm\.cow: no damage; [^\n]*\n$/);
  expect(checkOf(kept.overlay)).toEqual({ ...SOUND, path: kept.overlay, writtenBytes: 204_800, pages: 1 });
  kept = remounted(kept, ['--cache', 'none']);
  expectRefusal(cowfs(['check', kept.overlay]), 3, kept.overlay, `pid ${kept.pid}`);
  expectRefusal(cowfs(['check', '--repair', kept.overlay]), 3, kept.overlay);
  put(kept.disk, 0, Buffer.from('synced'));
  const fd = openSync(kept.disk, 'r+');
  writeSync(fd, WRITTEN, 0, WRITTEN.length, 600_000);
  closeSync(fd);
  await killed(kept);
  const { code, problems, repaired } = checkOf(kept.overlay);
  expect({ code, repaired }).toEqual({ code: 0, repaired: false });
  expect(problems.length).toBeGreaterThan(0);
  expect(problems.every(({ kind }) => kind === 'leftover')).toBe(true);
  const said = cowfs(['check', kept.overlay]);
  expect(said).toMatchObject({ status: 0, stderr: '' });
  expect(said.stdout).toContain('left by a crash');
  expect(checkOf(kept.overlay, '--repair')).toMatchObject({ code: 0, repaired: true, lost: [] });
  expect(checkOf(kept.overlay)).toMatchObject(SOUND);
  expect(infoOf(kept.overlay).clean).toBe(true);
});

test('neither changes the file', async () => {
  const kept = await closed();
  const again = remounted(kept);
  put(again.disk, 0, Buffer.from('more'));
  await killed(again);
  const [before, { mtimeMs, ctimeMs }] = [readFileSync(kept.overlay), statSync(kept.overlay)];
  mustCowfs(['info', kept.overlay]);
  mustCowfs(['check', kept.overlay]);
  expect(readFileSync(kept.overlay).equals(before)).toBe(true);
  expect([statSync(kept.overlay).mtimeMs, statSync(kept.overlay).ctimeMs]).toEqual([mtimeMs, ctimeMs]);
});

const COPIES = [
  { what: 'the first header', offset: 100 },
  { what: 'the second header', offset: HEADER_BYTES + 100 },
  { what: 'the first copy of a page', offset: pageOffset(0, 0) + 300 },
  { what: 'the second copy of a page', offset: pageOffset(0, 1) + PAGE_BYTES - 1 },
];

test.each(COPIES)('one damaged byte in $what: check tells, --repair mends, nothing is lost', async ({ offset }) => {
  const kept = await closed();
  const copy = damaged(kept, offset);
  const { status, stdout, stderr } = cowfs(['check', copy]);
  expect(status).toBe(1);
  expect(stdout).toContain('damaged copy');
  expect(stderr).toMatch(/^cowfs: [^\n]*--repair[^\n]*\n$/);
  const found = checkOf(copy);
  expect(found).toMatchObject({ code: 1, repaired: false });
  expect(found.problems).toHaveLength(1);
  expect(found.problems[0]?.kind).toBe('copy');
  // It can be mounted as it is: the other copy is whole.
  const unrepaired = join(kept.directory, 'unrepaired.cow');
  sparseCopy(copy, unrepaired);
  const again = remounted({ ...kept, overlay: unrepaired });
  expectContent(again.disk, kept.content);
  await unmounted(again);
  expect(checkOf(copy, '--repair')).toMatchObject({ code: 0, repaired: true, lost: [] });
  expect(checkOf(copy)).toMatchObject(SOUND);
  const repaired = remounted({ ...kept, overlay: copy });
  expectContent(repaired.disk, kept.content);
  await unmounted(repaired);
});

test('both copies of a page damaged: no mount, check says where, --repair saves what it can and ends with 1', async () => {
  const kept = await closed();
  const copy = damaged(kept, pageOffset(0, 0) + 300, pageOffset(0, 1) + 300);
  expectRefusal(cowfs(['mount', kept.base, kept.mountpoint, '--overlay', copy]), 1, copy, 'damaged', 'check');
  const found = checkOf(copy);
  expect(found.code).toBe(1);
  expect(found.problems.map(({ kind }) => kind)).toContain('damage');
  expect(found.problems.map(({ offset }) => offset)).toContain(pageOffset(0, 0));
  const { status, stdout, stderr } = cowfs(['check', '--repair', '--json', copy]);
  expect(status).toBe(1);
  for (const line of stderr.trimEnd().split('\n')) expect(line).toMatch(/^cowfs: /);
  expect(JSON.parse(stdout)).toMatchObject({
    repaired: true,
    lost: [expect.stringMatching(/^bytes 0 to 1000003/), expect.stringContaining('trimmed')],
  });
  expect(checkOf(copy)).toMatchObject(SOUND);
  // What is in the file was written; here that is all of it.
  const again = remounted({ ...kept, overlay: copy });
  expectContent(again.disk, kept.content);
  await unmounted(again);
});

test('both headers damaged: nothing can be told, and nothing is changed', async () => {
  const kept = await closed();
  const copy = damaged(kept, 100, HEADER_BYTES + 100);
  const before = readFileSync(copy);
  for (const args of [['check'], ['check', '--repair'], ['info'], ['mount', kept.base, kept.mountpoint, '--overlay']]) {
    expectRefusal(cowfs([...args, copy]), 1, copy, 'header');
  }
  expect(readFileSync(copy).equals(before)).toBe(true);
});

test('a file that was cut: no mount; check says how much is missing; --repair has it open again', async () => {
  const kept = await closed();
  const copy = damaged(kept);
  truncateSync(copy, statSync(copy).size - 100_000);
  expectRefusal(cowfs(['mount', kept.base, kept.mountpoint, '--overlay', copy]), 1, copy, 'missing');
  const found = checkOf(copy);
  expect(found.code).toBe(1);
  expect(found.problems.map(({ what }) => what).join()).toMatch(/\d+ bytes are missing/);
  const repaired = checkOf(copy, '--repair');
  expect(repaired).toMatchObject({ code: 1, repaired: true, lost: [expect.stringContaining('lost')] });
  expect(checkOf(copy)).toMatchObject(SOUND);
  const again = remounted({ ...kept, overlay: copy });
  const lostAt = kept.content.length - 100_000;
  expect(readFileSync(again.disk).subarray(0, 100_000).equals(kept.content.subarray(0, 100_000))).toBe(true);
  expect(lostAt).toBeGreaterThan(100_000);
  await unmounted(again);
});

test('what is no overlay, or is not there, ends with 2', () => {
  const directory = scratch();
  const files: Record<string, Buffer> = {
    empty: Buffer.alloc(0),
    text: Buffer.from('no overlay\n'.repeat(5000)),
    zeros: Buffer.alloc(100_000),
    [`line\nbreak`]: Buffer.from('text'),
  };
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, name), bytes);
  for (const name of [...Object.keys(files), 'missing', '.', 'missing/vm.cow']) {
    for (const command of [['info'], ['check'], ['check', '--repair'], ['info', '--json'], ['check', '--json']]) {
      expectRefusal(cowfs([...command, join(directory, name)]), 2);
    }
  }
  expect(cowfs(['info']).status).toBe(2);
  expect(cowfs(['check']).status).toBe(2);
});

test('a base and a qcow2 file are no overlays', () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const qcow2 = join(directory, 'disk.qcow2');
  writeFileSync(qcow2, Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), filled(1, 70_000)]));
  for (const path of [base, qcow2]) {
    expectRefusal(cowfs(['info', path]), 2, path);
    expectRefusal(cowfs(['check', path]), 2, path);
  }
});

test('one that was made by a newer version is said to be so, and not changed', async () => {
  const kept = await closed();
  const copy = damaged(kept);
  for (const at of [0, HEADER_BYTES]) {
    const header = readFileSync(copy).subarray(at, at + HEADER_BYTES);
    header.writeUInt32LE(2, 8);
    header.writeUInt32LE(crc32(header.subarray(0, HEADER_BYTES - 4)), HEADER_BYTES - 4);
    overwrite(copy, at, header);
  }
  const before = readFileSync(copy);
  expectRefusal(cowfs(['mount', kept.base, kept.mountpoint, '--overlay', copy]), 2, copy, 'newer');
  expectRefusal(cowfs(['info', copy]), 2, copy, 'newer');
  expectRefusal(cowfs(['check', '--repair', copy]), 2, copy, 'newer');
  expect(readFileSync(copy).equals(before)).toBe(true);
});

test('bytes flipped at random: mount, info and check never crash, and never change what they refuse', async () => {
  const kept = await closed();
  const random = randomOf(SEED);
  const whole = readFileSync(kept.overlay);
  const ends = new Map<string, number>();
  for (let round = 0; round < 12; round++) {
    const copy = join(kept.directory, 'random.cow');
    sparseCopy(kept.overlay, copy);
    for (let flips = 1 + random(6); flips > 0; flips--) {
      const offset = random(2) === 0 ? random(2 * HEADER_BYTES) : pageOffset(0, 0) + random(2 * PAGE_BYTES);
      overwrite(copy, offset, Buffer.from([(whole[offset] ?? 0) ^ (1 + random(255))]));
    }
    const found = cowfs(['check', copy]);
    const what = `seed ${SEED}, round ${round}: ${found.stderr}`;
    expect([0, 1, 2], what).toContain(found.status);
    if (found.status !== 0) expect(found.stderr, what).toMatch(/^cowfs: [^\n]+\n$/);
    const before = readFileSync(copy);
    const mounted = cowfs(['mount', kept.base, kept.mountpoint, '--overlay', copy]);
    expect([0, 1, 2], what).toContain(mounted.status);
    if (mounted.status === 0) {
      expectContent(kept.disk, kept.content);
      mustCowfs(['unmount', kept.mountpoint]);
      await expectNothingLeft(kept.mountpoint);
      expect(checkOf(copy), what).toMatchObject(SOUND);
    } else {
      expect(mounted.stderr, what).toMatch(/^cowfs: [^\n]+\n$/);
      expect(readFileSync(copy).equals(before), what).toBe(true);
    }
    const end = `check ${found.status}, mount ${mounted.status}`;
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }
  console.log(`seed ${SEED}: ${[...ends].map(([end, count]) => `${count} times ${end}`).join('; ')}`);
});

test('help names both, and the option that makes such files', () => {
  const help = mustCowfs(['--help']);
  for (const command of ['info', 'check']) {
    expect(help).toMatch(new RegExp(`^ +${command}\\b`, 'm'));
    expect(mustCowfs([command, '--help'])).toContain('--json');
  }
  for (const command of ['mount', 'run']) expect(mustCowfs([command, '--help'])).toContain('--overlay');
});

test('a disk of many pages: all of them are counted, and damage to a late one is told by its place', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const mountpoint = makeMountpoint(directory);
  const place = { directory, base, original: readFileSync(base), mountpoint, overlay: join(directory, 'vm.cow') };
  const kept = remounted(place, ['--size', '300M']);
  const late = 250 * MIB;
  for (const offset of [0, 70 * MIB, 130 * MIB, late]) put(kept.disk, offset, filled(1, 10_000));
  await unmounted(kept);
  expect(checkOf(kept.overlay)).toMatchObject({ ...SOUND, pages: 4 });
  const copy = damaged(kept, pageOffset(4, 0) + 500, pageOffset(4, 1) + 500);
  expect(
    checkOf(copy)
      .problems.map(({ what }) => what)
      .join(),
  ).toContain('page 4');
  expect(checkOf(copy, '--repair')).toMatchObject({ code: 1, repaired: true });
  const again = remounted({ ...kept, overlay: copy });
  const expected = patched(
    place.original,
    ...[0, 70 * MIB, 130 * MIB, late].map((offset) => [offset, filled(1, 10_000)] as const),
    [300 * MIB - 1, Buffer.alloc(1)],
  );
  expectContent(again.disk, expected);
  await unmounted(again);
});
