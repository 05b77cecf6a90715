/** Mounts whose daemon and watcher were both killed ("Transport endpoint is not connected"): every verb clears them. */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runtimeDirectory } from '../../src/daemon/runtime-directory.ts';
import {
  cowfs,
  listMounts,
  makeBase,
  makeMountpoint,
  mountDisk,
  mustCowfs,
  poll,
  scratch,
  statusOf,
} from '../harness.ts';
import {
  entriesNaming,
  expectNothingLeft,
  FREE_WITHIN_MS,
  isAlive,
  isMainThreadAlive,
  leftAt,
  watcherOf,
} from './nothing-left-support.ts';

test('a mount that lost its daemon and its watcher is cleaned up and mounted over', async () => {
  const { base, mountpoint } = await deadMount();
  // The kernel lets go of the ring, and with it of /dev/fuse, some time after the process has ended; what comes before is cut off.
  expect(() => readdirSync(mountpoint)).toThrow(/ENOTCONN|ECONNABORTED/);
  const { disk } = mountDisk(base, mountpoint);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
});

test.each(['list', 'status', 'unmount'])('it is cleaned up by `%s`', async (verb) => {
  const { mountpoint } = await deadMount();
  const { stderr, status } = cowfs(verb === 'unmount' ? [verb, mountpoint] : [verb]);
  expect(stderr).not.toContain(mountpoint);
  expect(status).toBe(0);
  expect(leftAt(mountpoint)).toEqual([]);
  expect(readdirSync(mountpoint)).toEqual([]);
  expect(listMounts().filter((mount) => mount.mountpoint === mountpoint)).toEqual([]);
});

test('it is cleaned up and mounted over when the registry has forgotten it', async () => {
  const { base, mountpoint } = await deadMount();
  forget(mountpoint);
  const { disk } = mountDisk(base, mountpoint);
  expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
});

test('it is unmounted when the registry has forgotten it', async () => {
  const { mountpoint } = await deadMount();
  forget(mountpoint);
  mustCowfs(['unmount', mountpoint]);
  expect(leftAt(mountpoint)).toEqual([]);
});

test.each(['mount', 'list', 'unmount'])(
  '`%s` while the threads of the killed daemon are still ending works soon',
  async (verb) => {
    for (let round = 0; round < 2; round++) {
      const { base, mountpoint } = await deadMount(isMainThreadAlive);
      const args = { mount: ['mount', base, mountpoint], list: ['list'], unmount: ['unmount', mountpoint] }[verb] ?? [];
      let last = cowfs(args);
      await poll(
        `${verb} works`,
        () => {
          if (last.status === 0) return true;
          last = cowfs(args);
          return false;
        },
        FREE_WITHIN_MS,
      ).catch(() => expect(last, `after ${FREE_WITHIN_MS} ms`).toEqual('success'));
      if (verb === 'mount') mustCowfs(['unmount', mountpoint]);
      // What `list` found alive is not its to clear; the next one clears it.
      if (verb === 'list') mustCowfs(['list']);
      await expectNothingLeft(mountpoint);
    }
  },
);

/** Makes the registry lose its entry; the socket of the dead daemon stays, as it would. */
function forget(mountpoint: string): void {
  for (const name of entriesNaming(mountpoint)) {
    const entry = join(runtimeDirectory(), name);
    rmSync(entry);
    onTestFinished(() => rmSync(entry.replace(/json$/, 'sock'), { force: true }));
  }
}

/** Kills a daemon so that nobody cleans up after it. */
async function deadMount(
  stillThere: (pid: number) => boolean = isAlive,
): Promise<{ base: string; mountpoint: string }> {
  const directory = scratch();
  const base = makeBase(directory, 4096);
  const { mountpoint } = mountDisk(base, makeMountpoint(directory));
  const { pid } = statusOf(mountpoint);
  const watcher = watcherOf(mountpoint);
  process.kill(watcher, 'SIGKILL');
  process.kill(pid, 'SIGKILL');
  await poll('both are gone', () => !stillThere(pid) && !isAlive(watcher));
  return { base, mountpoint };
}
