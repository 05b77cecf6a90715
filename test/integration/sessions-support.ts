/** What the tests of sessions share: mounts of many disks in every mode, their status as it is, and content. */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, type TestContext } from 'vitest';
import { askDaemon } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import type { DiskStatus, MountStatus } from '../../src/daemon/status.ts';
import { type Mount, makeBase, makeMountpoint, mountDisk, poll, scratch, statusOf } from '../harness.ts';
import { needsFuseNative } from './fuse-native-support.ts';
import { isTried } from './tried-modes.ts';

export const MIB = 2 ** 20;
export const BLOCK = 4096;

/** A way to mount. */
export interface Mode {
  readonly name: string;
  readonly transport: 'kernel' | 'fuse-native';
  readonly cache: 'writeback' | 'writethrough' | 'none';
}

const mode = (transport: Mode['transport'], cache: Mode['cache']): Mode => ({
  name: `${transport}, ${cache}`,
  transport,
  cache,
});

export const KERNEL_MODES = [
  mode('kernel', 'writeback'),
  mode('kernel', 'writethrough'),
  mode('kernel', 'none'),
] as const;
export const WRITEBACK: Mode = KERNEL_MODES[0];
export const FUSE_NATIVE_MODE: Mode = mode('fuse-native', 'writethrough');
/** One of each transport, as mounted by default. */
export const TRANSPORT_MODES: readonly Mode[] = [WRITEBACK, FUSE_NATIVE_MODE];
export const ALL_MODES: readonly Mode[] = [...KERNEL_MODES, FUSE_NATIVE_MODE, mode('fuse-native', 'none')].filter(
  ({ transport, cache }) => isTried(transport, cache),
);

export interface SessionsMount extends Mount {
  readonly directory: string;
  readonly base: string;
  /** What the base contains. */
  readonly original: Buffer;
  readonly pid: number;
  /** A path in the mount. */
  at(name: string): string;
}

/** A fresh base of random bytes, mounted until the test ends; skips where the mode cannot be had. */
export function mountSessions(
  { transport, cache }: Mode,
  context: TestContext | undefined,
  options: readonly string[] = [],
  baseBytes = 300_001,
): SessionsMount {
  if (transport === 'fuse-native' && context !== undefined) needsFuseNative(context);
  const directory = scratch();
  const base = makeBase(directory, baseBytes);
  const mount = mountDisk(base, makeMountpoint(directory), ['--transport', transport, '--cache', cache, ...options]);
  const { pid } = statusOf(mount.mountpoint);
  const at = (name: string): string => join(mount.mountpoint, name);
  return { ...mount, directory, base, original: readFileSync(base), pid, at };
}

/** The status without anything written back first: what the daemon knows now. */
export function statusNow(mountpoint: string): Promise<MountStatus> {
  return askDaemon(findEntry(mountpoint)?.socket ?? '', { command: 'status' });
}

/** The disk of that name, what the kernel cached until now included. */
export function diskStatus(mountpoint: string, name: string): DiskStatus {
  const disk = statusOf(mountpoint).disks.find((each) => each.name === name && !each.removed);
  if (disk === undefined) throw new Error(`${mountpoint} has no ${name}`);
  return disk;
}

/** Waits until the mount shows these disks and takes this much: the kernel forgets files in its own time. */
export async function untilOnly(mountpoint: string, names: readonly string[], occupiedBytes: number): Promise<void> {
  const seen = async (): Promise<unknown> => {
    const { disks, store } = await statusNow(mountpoint);
    return { disks: disks.map(({ name }) => name).sort(), occupiedBytes: store.occupiedBytes };
  };
  const wanted = { disks: [...names].sort(), occupiedBytes };
  await poll('only these are left', async () => JSON.stringify(await seen()) === JSON.stringify(wanted), 20_000).catch(
    async () => expect(await seen()).toEqual(wanted),
  );
}

/** What of a status must not change when a command is refused: all but traffic, time, and handles that are closing. */
export async function unchanging(mountpoint: string): Promise<unknown> {
  const { io: _io, memory: _memory, store, disks, ...rest } = await statusNow(mountpoint);
  const { freeBytes: _free, ...quota } = store;
  return { ...rest, store: quota, disks: disks.map(({ openHandles: _handles, ...disk }) => disk) };
}

/** Descriptors of stores that a daemon has open: files without a name. */
function storeDescriptors(pid: number): number {
  return targetsOf(pid).filter(isStore).length;
}

function isStore(target: string): boolean {
  return target.endsWith(' (deleted)');
}

/** Waits until a daemon has so many stores open: the last ones are closed in its own time. */
export async function untilStores(pid: number, count: number): Promise<void> {
  await poll('stores are closed', () => storeDescriptors(pid) === count).catch(() =>
    expect({ stores: targetsOf(pid).filter(isStore) }).toHaveProperty('stores.length', count),
  );
}

/** All that a daemon has open but connections, which come and go with those who ask. */
export function descriptors(pid: number): number {
  return targetsOf(pid).filter((target) => !target.startsWith('socket:')).length;
}

function targetsOf(pid: number): string[] {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).flatMap((fd) => {
    try {
      return [readlinkSync(join(directory, fd))];
    } catch {
      // Closed since.
      return [];
    }
  });
}

/** Opens a file until the test ends; it may be closed, or gone with its mount, before. */
export function opened(path: string, flags: string | number = 'r+'): number {
  const fd = openSync(path, flags);
  const { ino, dev } = fstatSync(fd);
  onTestFinished(() => {
    try {
      const now = fstatSync(fd);
      if (now.ino === ino && now.dev === dev) closeSync(fd);
    } catch {
      // Closed by the test, or the mount is gone.
    }
  });
  return fd;
}

/** Makes a disk, as touch(1) does; where there is one, it stays as it is. */
export function make(path: string): void {
  closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o644));
}

/** Bytes that tell a disk and an offset apart. */
export function filled(seed: number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (seed * 31 + (index >> 9) * 7 + index) & 0xff));
}

/** Writes at an offset and waits until the daemon has it. */
export function put(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  fsyncSync(fd);
  closeSync(fd);
}

/** A copy with bytes laid over it, longer if need be. */
export function patched(original: Buffer, ...patches: readonly (readonly [offset: number, bytes: Buffer])[]): Buffer {
  const end = Math.max(original.length, ...patches.map(([offset, bytes]) => offset + bytes.length));
  const result = Buffer.alloc(end);
  original.copy(result);
  for (const [offset, bytes] of patches) bytes.copy(result, offset);
  return result;
}

/** Whether a file, or an open one by its descriptor, contains exactly these bytes; says where it does not. */
export function expectContent(file: string | number, expected: Buffer): void {
  const actual = readFileSync(typeof file === 'number' ? `/proc/self/fd/${file}` : file);
  if (actual.equals(expected)) return;
  const differing = actual.findIndex((byte, index) => byte !== expected[index]);
  expect({ file, bytes: actual.length, differing }).toEqual({ file, bytes: expected.length, differing: -1 });
}

/** The errno's name that an action throws, or OK. */
export function outcome(action: () => unknown): string {
  try {
    action();
    return 'OK';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
