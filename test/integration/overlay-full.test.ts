/** An overlay whose file system is full: as with the temporary store, and what was synced stays, whatever comes. */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, makeBase, makeMountpoint, must, mustCowfs, scratch, statusOf } from '../harness.ts';
import { finish, needsRoot, tmpfs } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { checkOf, type KeptDisk, killed, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import { expectContent, patched } from './sessions-support.ts';
import { FSYNC, pattern, startWriter, untilHeld } from './store-full-support.ts';

const TELLING = ['writethrough', 'none'];
const SYNCED = pattern(1, MIB);

interface FullDisk extends KeptDisk {
  readonly place: string;
}

/** A disk of 16 MiB whose overlay is on a file system of 4 MiB; 1 MiB of it is written and synced. */
async function smallOverlay(options: readonly string[]): Promise<FullDisk> {
  const directory = scratch();
  const place = tmpfs(directory, '4M');
  const base = makeBase(directory, 16 * MIB);
  const kept = remounted(
    {
      directory,
      place,
      base,
      original: readFileSync(base),
      mountpoint: makeMountpoint(directory),
      overlay: join(place, 'vm.cow'),
    },
    options,
  );
  expect((await finish(startWriter(kept.disk, 0, MIB, 1, FSYNC))).stdout).toContain('fsync OK');
  return kept;
}

/** Writes more than there is room for; how many bytes it took, and what fsync said. */
async function fill(disk: string): Promise<{ bytes: number; synced: string }> {
  const { stdout } = await finish(startWriter(disk, 4 * MIB, 8 * MIB, 2, FSYNC));
  const [, bytes = '', error = ''] = /^written (\d+) (\w*)$/m.exec(stdout) ?? [];
  expect(error).toBe('ENOSPC');
  return { bytes: Number(bytes), synced: /^fsync (\w+)$/m.exec(stdout)?.[1] ?? '' };
}

function expectSynced(disk: string): void {
  const bytes = Buffer.alloc(MIB);
  const fd = openSync(disk, 'r');
  readSync(fd, bytes, 0, MIB, 0);
  closeSync(fd);
  expect(bytes.equals(SYNCED)).toBe(true);
}

test.for(TELLING)('--cache %s: ENOSPC at write(2); what was synced survives kill -9', async (cache, context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--cache', cache]);
  const { bytes, synced } = await fill(kept.disk);
  console.log(`--cache ${cache}: ${bytes} bytes taken, then fsync ${synced}`);
  expect(bytes).toBeGreaterThan(2 * MIB);
  expect(['OK', 'ENOSPC']).toContain(synced);
  await killed(kept);
  expect(checkOf(kept.overlay).code).toBe(0);
  kept = remounted(kept, ['--cache', cache]);
  expectSynced(kept.disk);
  if (synced === 'OK') {
    expectContent(kept.disk, patched(kept.original, [0, SYNCED], [4 * MIB, pattern(2, 8 * MIB).subarray(0, bytes)]));
  }
  // What the crash left was cleared away: there is room again.
  expect((await finish(startWriter(kept.disk, 10 * MIB, MIB, 5, FSYNC))).stdout).toContain('fsync OK');
  await unmounted(kept);
});

test.for(TELLING)('--cache %s: when room comes, or a trim makes it, it goes on', async (cache, context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--cache', cache]);
  const { bytes } = await fill(kept.disk);
  must('fallocate', ['-p', '-o', String(4 * MIB), '-l', String(MIB), kept.disk]);
  expect((await finish(startWriter(kept.disk, 10 * MIB, 256 * 1024, 6, FSYNC))).stdout).toContain('fsync OK');
  must('mount', ['-o', 'remount,size=32M', kept.place]);
  expect((await finish(startWriter(kept.disk, 14 * MIB, MIB, 7, FSYNC))).stdout).toContain('fsync OK');
  const expected = patched(
    kept.original,
    [0, SYNCED],
    [4 * MIB, pattern(2, 8 * MIB).subarray(0, bytes)],
    [4 * MIB, Buffer.alloc(MIB)],
    [10 * MIB, pattern(6, 256 * 1024)],
    [14 * MIB, pattern(7, MIB)],
  );
  await killed(kept);
  kept = remounted(kept, ['--cache', cache]);
  expectContent(kept.disk, expected);
  await unmounted(kept);
});

test('a full file system at the end: unmount says what cannot be kept; --force keeps what was synced', async (context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--cache', 'none']);
  const { bytes, synced } = await fill(kept.disk);
  const asked = cowfs(['unmount', kept.mountpoint]);
  if (synced !== 'OK') {
    expectRefusal(asked, 1, kept.overlay, '--force');
    expectSynced(kept.disk);
    mustCowfs(['unmount', '--force', kept.mountpoint]);
  }
  await expectNothingLeft(kept.mountpoint);
  expect(checkOf(kept.overlay).code).toBe(0);
  const { writtenBytes, header } = lookInto(kept.overlay);
  console.log(`${writtenBytes} of ${MIB + bytes} bytes kept (fsync ${synced}), clean: ${header.clean}`);
  kept = remounted(kept);
  expectSynced(kept.disk);
  await unmounted(kept);
});

test('the write-back cache: what is held is in place when room comes, and is kept', async (context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--enospc-timeout', '40s']);
  const writer = finish(startWriter(kept.disk, 4 * MIB, 8 * MIB, 3, FSYNC));
  await untilHeld(kept.mountpoint);
  must('mount', ['-o', 'remount,size=32M', kept.place]);
  expect((await writer).stdout).toContain('fsync OK');
  await killed(kept);
  kept = remounted(kept);
  expectContent(kept.disk, patched(kept.original, [0, SYNCED], [4 * MIB, pattern(3, 8 * MIB)]));
  await unmounted(kept);
});

test('the write-back cache: after --enospc-timeout fsync says so; what was synced before stays', async (context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--enospc-timeout', '1s']);
  const { stdout } = await finish(startWriter(kept.disk, 4 * MIB, 8 * MIB, 3, FSYNC));
  expect(stdout).toContain('fsync ENOSPC');
  expect(statusOf(kept.mountpoint).warnings.join()).toMatch(/full|lost/);
  expectSynced(kept.disk);
  must('fallocate', ['-p', '-o', String(4 * MIB), '-l', String(8 * MIB), kept.disk]);
  expect((await finish(startWriter(kept.disk, 4 * MIB, MIB, 4, FSYNC))).stdout).toContain('fsync OK');
  await killed(kept);
  kept = remounted(kept);
  expectContent(
    kept.disk,
    patched(kept.original, [0, SYNCED], [4 * MIB, Buffer.alloc(8 * MIB)], [4 * MIB, pattern(4, MIB)]),
  );
  await unmounted(kept);
});

test.for(['unmount --force', 'kill -9'])('%s while data is held: what was synced stays', async (how, context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--enospc-timeout', '40s']);
  const writer = finish(startWriter(kept.disk, 4 * MIB, 8 * MIB, 3, FSYNC));
  await untilHeld(kept.mountpoint);
  if (how === 'kill -9') await killed(kept);
  else mustCowfs(['unmount', '--force', kept.mountpoint]);
  expect((await writer).stdout).toMatch(/fsync E/);
  await expectNothingLeft(kept.mountpoint);
  expect(checkOf(kept.overlay).code).toBe(0);
  kept = remounted(kept);
  expectSynced(kept.disk);
  await unmounted(kept);
});

test('a reset makes room, durably', async (context) => {
  needsRoot(context);
  let kept = await smallOverlay(['--cache', 'none']);
  await fill(kept.disk);
  mustCowfs(['reset', kept.disk]);
  expect((await finish(startWriter(kept.disk, 0, MIB, 9, FSYNC))).stdout).toContain('fsync OK');
  await killed(kept);
  kept = remounted(kept);
  expectContent(kept.disk, patched(kept.original, [0, pattern(9, MIB)]));
  await unmounted(kept);
});

test('no room for a new overlay: exit 4, and nothing is left', (context) => {
  needsRoot(context);
  const directory = scratch();
  const place = tmpfs(directory, '64K');
  const base = makeBase(directory, MIB);
  must('sh', ['-c', 'head -c 65536 /dev/zero >"$0"', join(place, 'full')]);
  const overlay = join(place, 'vm.cow');
  expectRefusal(cowfs(['mount', base, makeMountpoint(directory), '--overlay', overlay]), 4, overlay, 'room');
  expect(readdirSync(place)).toEqual(['full']);
});
