import { chownSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  isRoot,
  listMounts,
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

test('what a process died over while writing its entry goes with the next list', () => {
  const directory = scratch();
  // Root's place is /run/cowfs whatever the environment says, so this is for an ordinary user.
  const nobody = Number(must('id', ['-u', 'nobody']));
  if (isRoot()) chownSync(directory, nobody, nobody);
  const account = { env: { XDG_RUNTIME_DIR: directory }, ...(isRoot() ? { user: 'nobody' } : {}) };
  expect(listMounts(account)).toEqual([]);
  const runtime = join(directory, 'cowfs');
  writeFileSync(join(runtime, '0123456789abcdef.json.4194305'), '{');
  writeFileSync(join(runtime, `0123456789abcdef.json.${process.pid}`), '{');
  expect(listMounts(account)).toEqual([]);
  expect(readdirSync(runtime)).toEqual([`0123456789abcdef.json.${process.pid}`]);
});

test('a killed watcher is told of, and the mount still ends clean by force', async () => {
  const directory = scratch();
  const { mountpoint } = mountDisk(makeBase(directory, 65_519), makeMountpoint(directory));
  expect(run('pkill', ['-KILL', '-f', `cowfs-watcher [0-9:]+ ${mountpoint} `]).status).toBe(0);
  await poll('the warning', () => statusOf(mountpoint).warnings.some((text) => text.includes('watcher ended')));
  mustCowfs(['unmount', '--force', mountpoint]);
  expect(readdirSync(mountpoint)).toEqual([]);
  expect(run('pgrep', ['-f', `cowfs-watcher [0-9:]+ ${mountpoint} `]).status).toBe(1);
});
