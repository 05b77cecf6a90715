/** `--overlay` of an ordinary user: kept, his own, and out of reach of others. */
import { chownSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cowfs, isRoot, makeBase, mountDisk, must, mustCowfs, statusOf } from '../harness.ts';
import { NOBODY, needs, needsRoot, ordinaryUser, skipUnless } from './machine-support.ts';
import { expectNothingLeft, expectRefusal, isAlive } from './nothing-left-support.ts';
import { lookInto } from './overlay-support.ts';
import { patched } from './sessions-support.ts';

test('mount, write, unmount, kill -9, run: all as for root, and the file is the user’s own', async (context) => {
  needs(context, 'fusermount3', 'runuser');
  skipUnless(context, (statSync('/dev/fuse').mode & 0o006) === 0o006, '/dev/fuse is not for all');
  if (isRoot()) {
    const { status } = cowfs(['--version'], { user: 'nobody' });
    skipUnless(context, status === 0, 'the user nobody cannot read cowfs');
  }
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const base = makeBase(directory, 1_000_001);
  const original = readFileSync(base);
  const overlay = join(directory, 'vm.cow');
  const options = ['--overlay', overlay];
  const write = (disk: string, text: string, offset: number): string =>
    must('dd', [`of=${disk}`, 'bs=1', `seek=${offset}`, 'conv=notrunc,fsync', 'status=none'], { ...as, input: text });
  let { disk } = mountDisk(base, mountpoint, options, as);
  write(disk, 'first', 4094);
  mustCowfs(['unmount', mountpoint], as);
  await expectNothingLeft(mountpoint, runtime);
  const { uid, mode } = statSync(overlay);
  expect({ uid, mode: mode & 0o777 }).toEqual({ uid: Number(must('id', ['-u'], as)), mode: 0o600 });
  ({ disk } = mountDisk(base, mountpoint, options, as));
  write(disk, 'second', 500_000);
  const { pid } = statusOf(mountpoint, as);
  process.kill(pid, 'SIGKILL');
  await expectNothingLeft(mountpoint, runtime);
  expect(isAlive(pid)).toBe(false);
  expect(cowfs(['check', overlay], as)).toMatchObject({ status: 0, stderr: '' });
  const script = 'dd if="$0" bs=1 skip=4094 count=5 status=none; dd if="$0" bs=1 skip=500000 count=6 status=none';
  expect(mustCowfs(['run', base, ...options, '--', 'sh', '-c', script, '{}'], as)).toBe('firstsecond');
  expect(mustCowfs(['info', overlay], as)).toContain('closed cleanly');
  ({ disk } = mountDisk(base, mountpoint, options, as));
  const expected = patched(original, [4094, Buffer.from('first')], [500_000, Buffer.from('second')]);
  expect(must('base64', ['-w0', disk], as)).toBe(expected.toString('base64'));
  mustCowfs(['unmount', mountpoint], as);
  expect(lookInto(overlay).problems).toEqual([]);
  expect(readdirSync(directory).sort()).toEqual(['base.img', 'mnt', 'vm.cow', 'xdg']);
});

test('a second mount by another user is refused: the lock is the file’s', async (context) => {
  needs(context, 'fusermount3', 'runuser');
  needsRoot(context);
  const { directory, mountpoint, as } = ordinaryUser();
  const base = makeBase(directory, 100_000);
  const overlay = join(directory, 'vm.cow');
  chownSync(base, NOBODY, NOBODY);
  mountDisk(base, mountpoint, ['--overlay', overlay], as);
  const { pid } = statusOf(mountpoint, as);
  expectRefusal(cowfs(['run', base, '--overlay', overlay, '--', 'true']), 125, overlay, `pid ${pid}`);
  expectRefusal(cowfs(['check', overlay]), 3, overlay);
  mustCowfs(['unmount', mountpoint], as);
  expect(cowfs(['check', overlay]).status).toBe(0);
});
