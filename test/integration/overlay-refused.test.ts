/** Overlays that cannot be had: in use, not overlays, out of reach; nothing is changed and nothing left behind. */
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import { COWFS, cowfs, makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch } from '../harness.ts';
import { needs, needsRoot, ordinaryUser } from './machine-support.ts';
import { expectNothingLeft, expectRefusal } from './nothing-left-support.ts';
import { keptDisk, lookInto, MIB, remounted, unmounted } from './overlay-support.ts';
import { expectContent, filled, patched, put } from './sessions-support.ts';

function names(directory: string): string[] {
  return readdirSync(directory).sort();
}

test('a symlink that leads nowhere yet is no overlay, and stays as it is', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  symlinkSync('nowhere', join(directory, 'link.cow'));
  const { status, stderr } = cowfs([
    'mount',
    base,
    makeMountpoint(directory),
    '--overlay',
    join(directory, 'link.cow'),
  ]);
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(stderr).not.toContain('somebody else');
  expect(status).toBe(2);
  expect(names(directory)).toEqual(['base.img', 'link.cow', 'mnt']);
});

test.for(['fresh', 'old'])('a second use of the same overlay, %s, is refused and says who has it', async (age) => {
  let kept = keptDisk();
  if (age === 'old') {
    await unmounted(kept);
    kept = remounted(kept);
  }
  put(kept.disk, 0, Buffer.from('first'));
  const { base, overlay, pid, directory } = kept;
  const second = makeMountpoint(directory, 'second');
  expectRefusal(cowfs(['mount', base, second, '--overlay', overlay]), 3, overlay, `pid ${pid}`, 'unmount');
  expectRefusal(cowfs(['mount', base, second, '--overlay', overlay, '--force']), 3, overlay, `pid ${pid}`);
  const link = join(directory, 'link.cow');
  symlinkSync(overlay, link);
  expectRefusal(cowfs(['mount', base, second, '--overlay', link]), 3, overlay, `pid ${pid}`);
  const ran = cowfs(['run', base, '--overlay', overlay, '--', 'true']);
  expect(ran.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect(ran.stderr).toContain(`pid ${pid}`);
  expect(ran.status).toBe(125);
  expect(readdirSync(second)).toEqual([]);
  expectContent(kept.disk, patched(kept.original, [0, Buffer.from('first')]));
});

test('two mounts that race for a new overlay: one gets it, the other is refused', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const overlay = join(directory, 'vm.cow');
  for (let round = 0; round < 4; round++) {
    const script = `for n in 1 2 3; do "$0" mount "$1" "$2/m$n" --overlay "$3" 2>"$2/e$n" >"$2/o$n" & done; wait`;
    const mountpoints = [1, 2, 3].map((number) => makeMountpoint(directory, `m${number}`));
    must('sh', ['-c', script, COWFS, base, directory, overlay]);
    const won = [1, 2, 3].filter((number) => readFileSync(join(directory, `o${number}`), 'utf8') !== '');
    const lost = [1, 2, 3].filter((number) => !won.includes(number));
    expect(won).toHaveLength(1);
    for (const number of lost) {
      expect(readFileSync(join(directory, `e${number}`), 'utf8')).toMatch(/^cowfs: [^\n]*vm\.cow[^\n]*\n$/);
    }
    for (const mountpoint of mountpoints) cowfs(['unmount', '--force', mountpoint]);
    for (const mountpoint of mountpoints) await expectNothingLeft(mountpoint);
    expect(lookInto(overlay).problems).toEqual([]);
    expect(names(directory)).toEqual(['base.img', 'e1', 'e2', 'e3', 'm1', 'm2', 'm3', 'o1', 'o2', 'o3', 'vm.cow']);
    unlinkSync(overlay);
  }
});

test.each([
  ['--empty', '--empty'],
  ['--read-only', '--read-only'],
])('%s beside it is refused, and no file is made', (_name, option) => {
  const directory = scratch();
  const overlay = join(directory, 'vm.cow');
  const base = makeBase(directory, 5000);
  expectRefusal(
    cowfs(['mount', base, makeMountpoint(directory), '--overlay', overlay, option]),
    2,
    option,
    '--overlay',
  );
  expect(existsSync(overlay)).toBe(false);
  expectRefusal(cowfs(['mount', base, makeMountpoint(directory), '--overlay', '']), 2, '--overlay');
});

test('a mount that fails leaves no new overlay behind, and no process', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const overlay = join(directory, 'vm.cow');
  const refused = (code: number, ...args: readonly string[]): void => {
    const { status, stderr, stdout } = cowfs(args);
    expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect({ args, status, stdout }).toEqual({ args, status: code, stdout: '' });
    expect(names(directory)).toEqual(['base.img', 'mnt']);
  };
  mountDisk(base, mountpoint);
  refused(3, 'mount', base, mountpoint, '--overlay', overlay);
  mustCowfs(['unmount', mountpoint]);
  refused(2, 'mount', join(directory, 'missing.img'), mountpoint, '--overlay', overlay);
  refused(2, 'mount', base, join(directory, 'missing'), '--overlay', overlay);
  refused(2, 'mount', base, mountpoint, '--overlay', overlay, '--store', join(directory, 'missing'));
  refused(2, 'mount', base, mountpoint, '--overlay', overlay, '--size', '1');
  refused(2, 'mount', base, mountpoint, '--overlay', join(directory, 'missing/vm.cow'));
  refused(2, 'mount', base, mountpoint, '--overlay', directory);
  await expectNothingLeft(directory);
});

test('an overlay that the mount would hide is refused, a new one and an old one', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const overlay = join(mountpoint, 'vm.cow');
  // A daemon that waits for its own mount would never end.
  onTestFinished(() => {
    const { pid } = findEntry(mountpoint) ?? {};
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  });
  expectRefusal(cowfs(['mount', base, mountpoint, '--overlay', overlay], { timeoutMs: 10_000 }), 2, mountpoint);
  expect(names(mountpoint)).toEqual([]);
  mountDisk(base, makeMountpoint(directory, 'elsewhere'), ['--overlay', overlay]);
  mustCowfs(['unmount', join(directory, 'elsewhere')]);
  expectRefusal(cowfs(['mount', base, mountpoint, '--overlay', overlay], { timeoutMs: 10_000 }), 2, mountpoint);
  await expectNothingLeft(directory);
});

test('what is no overlay is refused and not changed', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const files: Record<string, Buffer> = {
    empty: Buffer.alloc(0),
    text: Buffer.from('not an overlay\n'.repeat(3000)),
    zeros: Buffer.alloc(100_000),
    qcow2: Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), filled(1, 70_000)]),
    short: Buffer.from('COWFS\r\n\x1a', 'latin1'),
  };
  for (const [name, bytes] of Object.entries(files)) {
    const path = join(directory, name);
    writeFileSync(path, bytes);
    const { mtimeMs, ctimeMs } = statSync(path);
    const { status, stderr } = cowfs(['mount', base, mountpoint, '--overlay', path]);
    expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
    expect(stderr).toContain(path);
    expect({ name, status }).toEqual({ name, status: name === 'short' ? 1 : 2 });
    expect(readFileSync(path).equals(bytes)).toBe(true);
    expect([statSync(path).mtimeMs, statSync(path).ctimeMs]).toEqual([mtimeMs, ctimeMs]);
  }
  expectRefusal(cowfs(['mount', base, mountpoint, '--overlay', base]), 2, base);
});

test('an overlay over itself is refused, and not changed', async () => {
  const kept = keptDisk();
  put(kept.disk, 0, filled(1, 100_000));
  await unmounted(kept);
  const before = readFileSync(kept.overlay);
  const result = cowfs(['mount', kept.overlay, kept.mountpoint, '--overlay', kept.overlay]);
  if (result.status === 0) mustCowfs(['unmount', '--force', kept.mountpoint]);
  expect(result.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect([2, 3]).toContain(result.status);
  expect(readFileSync(kept.overlay).equals(before)).toBe(true);
});

test('a directory, a FIFO, a device or a socket is no overlay', (context) => {
  needs(context, 'mkfifo');
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const fifo = join(directory, 'fifo');
  must('mkfifo', [fifo]);
  for (const path of [directory, fifo, '/dev/null']) {
    expectRefusal(cowfs(['mount', base, mountpoint, '--overlay', path], { timeoutMs: 20_000 }), 2, path);
  }
});

test('without leave to write there it is refused, and what is there stays', (context) => {
  needsRoot(context);
  const user = ordinaryUser();
  const base = makeBase(user.directory, 5000);
  const refused = (path: string): void =>
    expectRefusal(cowfs(['mount', base, user.mountpoint, '--overlay', path], user.as), 2, path);
  const closed = makeMountpoint(user.directory, 'closed');
  refused(join(closed, 'vm.cow'));
  expect(readdirSync(closed)).toEqual([]);
  const kept = keptDisk();
  mustCowfs(['unmount', kept.mountpoint]);
  refused(kept.overlay);
  chmodSync(kept.overlay, 0o644);
  const before = readFileSync(kept.overlay);
  expectRefusal(
    cowfs(['mount', kept.base, user.mountpoint, '--overlay', kept.overlay], user.as),
    2,
    kept.overlay,
    'writable',
  );
  expect(readFileSync(kept.overlay).equals(before)).toBe(true);
  // Others may look.
  expect(cowfs(['info', kept.overlay], user.as).status).toBe(0);
});
