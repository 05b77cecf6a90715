/** However a mount ends in good order, what programs have written is kept, though nobody ever called fsync. */
import { closeSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, type TestContext, test } from 'vitest';
import {
  COWFS,
  cowfs,
  isRoot,
  makeBase,
  makeMountpoint,
  must,
  mustCowfs,
  PROJECT,
  poll,
  type Result,
  scratch,
  start,
} from '../harness.ts';
import { abortFile, FUSE_NATIVE, needsFuseNative } from './fuse-native-support.ts';
import { finish, needsRoot, said } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive } from './nothing-left-support.ts';
import { type KeptDisk, keptDisk, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import {
  ALL_MODES,
  expectContent,
  FUSE_NATIVE_MODE,
  KERNEL_MODES,
  type Mode,
  patched,
  TRANSPORT_MODES,
  WRITEBACK,
} from './sessions-support.ts';
import { pattern, STAY, startWriter } from './store-full-support.ts';

const BASE_BYTES = 4 * MIB;
const MAPPING_MODES = [WRITEBACK, ...KERNEL_MODES.slice(2), FUSE_NATIVE_MODE];
const WRITTEN = pattern(3, 3 * MIB);

function optionsOf({ transport, cache }: Mode, context: TestContext): string[] {
  if (transport === 'fuse-native') needsFuseNative(context);
  return ['--transport', transport, '--cache', cache];
}

/** Waits for the daemon's own end, then looks whether all is there. */
async function expectKept(kept: KeptDisk, expected: Buffer): Promise<void> {
  await poll('the daemon is gone', () => !isAlive(kept.pid));
  await expectNothingLeft(kept.mountpoint);
  const { problems, header } = lookInto(kept.overlay);
  expect({ problems, clean: header.clean }).toEqual({ problems: [], clean: true });
  const again = remounted(kept);
  expectContent(again.disk, expected);
  await unmounted(again);
}

const CLOSED = [
  { how: 'cowfs unmount', end: ({ mountpoint }: KeptDisk) => mustCowfs(['unmount', mountpoint]), modes: ALL_MODES },
  { how: 'umount(8)', end: ({ mountpoint }: KeptDisk) => must('umount', [mountpoint]), modes: TRANSPORT_MODES },
  { how: 'umount -l', end: ({ mountpoint }: KeptDisk) => must('umount', ['-l', mountpoint]), modes: TRANSPORT_MODES },
];

test.for(CLOSED.flatMap(({ how, end, modes }) => modes.map((mode) => ({ how, end, mode }))))(
  '$how, $mode.name: what was written and closed is kept',
  async ({ how, end, mode }, context) => {
    if (how !== 'cowfs unmount') needsRoot(context);
    const kept = keptDisk(optionsOf(mode, context), BASE_BYTES);
    const fd = openSync(kept.disk, 'r+');
    writeSync(fd, WRITTEN, 0, WRITTEN.length, 1000);
    closeSync(fd);
    end(kept);
    await expectKept(kept, patched(kept.original, [1000, WRITTEN]));
  },
);

test('of many unmounts at once one does it, the others wait with it, and what was written is kept', async () => {
  let kept = keptDisk([], BASE_BYTES);
  for (let round = 0; round < 4; round++) {
    const fd = openSync(kept.disk, 'r+');
    writeSync(fd, WRITTEN, 0, WRITTEN.length, 1000 + round);
    closeSync(fd);
    const results = await Promise.all(
      Array.from({ length: 6 }, () => finish(start(COWFS, ['unmount', kept.mountpoint]))),
    );
    expect(results.some(({ status }) => status === 0)).toBe(true);
    for (const result of results) if (result.status !== 0) expectRefusal(result, 2, kept.mountpoint, 'no cowfs mount');
    await expectNothingLeft(kept.mountpoint);
    expect(lookInto(kept.overlay)).toMatchObject({ problems: [], header: { clean: true } });
    kept = remounted(kept);
  }
  const written = [0, 1, 2, 3].map((round): [number, Buffer] => [1000 + round, WRITTEN]);
  expectContent(kept.disk, patched(kept.original, ...written));
});

const OPEN = [
  {
    how: 'unmount --force',
    end: ({ mountpoint }: KeptDisk) => mustCowfs(['unmount', '--force', mountpoint]),
    modes: ALL_MODES,
  },
  { how: 'SIGTERM', end: ({ pid }: KeptDisk) => process.kill(pid, 'SIGTERM'), modes: TRANSPORT_MODES },
  { how: 'SIGINT', end: ({ pid }: KeptDisk) => process.kill(pid, 'SIGINT'), modes: [WRITEBACK] },
];

test.for(OPEN.flatMap(({ how, end, modes }) => modes.map((mode) => ({ how, end, mode }))))(
  '$how, $mode.name: what was written is kept though the disk is open',
  async ({ end, mode }, context) => {
    const kept = keptDisk(optionsOf(mode, context), BASE_BYTES);
    await said(startWriter(kept.disk, 1000, WRITTEN.length, 3, STAY), `written ${WRITTEN.length}`);
    end(kept);
    await expectKept(kept, patched(kept.original, [1000, WRITTEN]));
  },
);

test('unmount --force under a writer that never stops: the file is whole, and has what came before', async () => {
  const kept = keptDisk([], BASE_BYTES);
  await said(startWriter(kept.disk, 0, MIB, 3, ''), `written ${MIB}`);
  const script = 'while dd if=/dev/zero of="$0" bs=64k seek=32 count=32 conv=notrunc,nocreat status=none; do :; done';
  const writer = start('sh', ['-c', script, kept.disk], { detached: true, stdio: 'ignore' });
  onTestFinished(() => {
    if (writer.pid !== undefined && writer.exitCode === null) process.kill(-writer.pid, 'SIGKILL');
  });
  await poll('it writes', () => lookAt(kept.disk, 2 * MIB)[0] === 0);
  mustCowfs(['unmount', '--force', kept.mountpoint]);
  await expectNothingLeft(kept.mountpoint);
  expect(lookInto(kept.overlay).problems).toEqual([]);
  const again = remounted(kept);
  expect(lookAt(again.disk, 0, MIB).equals(pattern(3, MIB))).toBe(true);
  await unmounted(again);
});

/** Bytes of the disk, read by another process: this one must not keep it open. */
function lookAt(disk: string, offset: number, length = 512): Buffer {
  const text = must('sh', [
    '-c',
    'dd if="$0" bs=512 skip="$1" count="$2" status=none | base64',
    disk,
    String(offset / 512),
    String(length / 512),
  ]);
  return Buffer.from(text, 'base64');
}

test.for(ALL_MODES)('$name: the end of run keeps what the command wrote, synced or not', async (mode, context) => {
  const directory = scratch();
  const base = makeBase(directory, BASE_BYTES);
  const overlay = join(directory, 'vm.cow');
  const options = optionsOf(mode, context);
  const run = (script: string): Result =>
    cowfs(['run', base, ...options, '--overlay', overlay, '--', 'sh', '-c', script, '{}']);
  expect(run('printf 0123456789 | dd of="$0" bs=1 seek=4090 conv=notrunc status=none').status).toBe(0);
  expect(lookInto(overlay)).toMatchObject({ problems: [], header: { clean: true } });
  // A command that is killed with the disk open has closed it all the same.
  expect(run('exec 3<>"$0"; printf abc >&3; kill -9 $$').status).toBe(137);
  expect(run('head -c 3 "$0"; tail -c +4091 "$0" | head -c 10').stdout).toBe('abc0123456789');
  expect(readdirSync(directory).sort()).toEqual(['base.img', 'vm.cow']);
});

test.for(MAPPING_MODES)(
  '$name: so is what a child in the background has only in its mapping',
  async (mode, context) => {
    const directory = scratch();
    const base = makeBase(directory, BASE_BYTES);
    const overlay = join(directory, 'vm.cow');
    const calls = join(PROJECT, 'test/system-calls.mjs');
    // Says so in a file when the mapping has the bytes; stays until the test ends.
    const program = `
    import fs from 'node:fs';
    const calls = await import(${JSON.stringify(calls)});
    const [disk, word] = process.argv.slice(1);
    const fd = fs.openSync(disk, 'r+');
    let what = 'mapped';
    try {
      const at = calls.mmap(fd, 0, 65536);
      calls.store(at, Buffer.from('in the mapping'));
    } catch (error) { what = error.code; }
    fs.writeFileSync(word + '.new', what + ' ' + process.pid);
    fs.renameSync(word + '.new', word);
    setInterval(() => undefined, 1000);`;
    const word = join(directory, 'word');
    const script = `"$1" --input-type=module -e "$2" -- "$0" "$3" </dev/null >/dev/null 2>&1 & for n in $(seq 200); do [ -e "$3" ] && exit; sleep 0.05; done; exit 9`;
    const args = ['run', base, ...optionsOf(mode, context), '--overlay', overlay, '--', 'sh', '-c', script, '{}'];
    const child = start(COWFS, [...args, process.execPath, program, word]);
    onTestFinished(() => {
      const [, pid] = must('cat', [word]).split(' ');
      if (isAlive(Number(pid))) process.kill(Number(pid), 'SIGKILL');
    });
    expect(await finish(child)).toMatchObject({ status: 0, stderr: '' });
    const what = must('cat', [word]).split(' ')[0];
    console.log(`${mode.name}: ${what}`);
    expect(lookInto(overlay).problems).toEqual([]);
    const head = mustCowfs(['run', base, '--overlay', overlay, '--', 'head', '-c', '14', '{}']);
    if (what === 'mapped') expect(head).toBe('in the mapping');
    else expect(what).toBe('ENODEV');
  },
);

test.for(TRANSPORT_MODES)(
  '$name: what run cannot keep is said, however long that takes to turn out',
  async (mode, context) => {
    const directory = scratch();
    const base = makeBase(directory, BASE_BYTES);
    const overlay = join(directory, 'vm.cow');
    // Longer than the kernel remembers that a path is there.
    const slow = '#!/bin/sh\nsleep 2.5\nexit 1\n';
    writeFileSync(join(makeMountpoint(directory, 'bin'), 'sync'), slow, { mode: 0o755 });
    const args = ['run', base, ...optionsOf(mode, context), '--overlay', overlay, '--', 'sh', '-c', 'echo "$0"', '{}'];
    const env = { ...process.env, PATH: `${directory}/bin:${process.env['PATH']}` };
    const child = start(COWFS, args, { env });
    const result = finish(child);
    const place = dirname((await said(child, '\n')).trim());
    await poll('run has ended', () => !isAlive(child.pid ?? 0), 20_000).catch((error: unknown) => {
      // It waits for itself, and nothing else ends it.
      if (isRoot()) writeFileSync(abortFile(place), '1');
      throw error;
    });
    const { status, stderr } = await result;
    expect({ status, stderr }).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/^cowfs: [^\n]*synced[^\n]*\n$/),
    });
    await expectNothingLeft(place);
  },
);

test('through fuse-native, too, an abort of the connection keeps what the daemon has', async (context) => {
  needsFuseNative(context);
  needsRoot(context);
  const kept = keptDisk([...FUSE_NATIVE], BASE_BYTES);
  const fd = openSync(kept.disk, 'r+');
  writeSync(fd, WRITTEN, 0, WRITTEN.length, 1000);
  closeSync(fd);
  const abort = openSync(abortFile(kept.mountpoint), 'w');
  writeSync(abort, '1');
  closeSync(abort);
  await expectKept(kept, patched(kept.original, [1000, WRITTEN]));
});
