/** What the tests of `--overlay` share: kept disks, their files' `info` and `check`, daemons that are killed. */
import { closeSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { findEntry } from '../../src/daemon/registry.ts';
import { type CheckReport, checkOverlay } from '../../src/overlay/file/check.ts';
import type { Header } from '../../src/overlay/file/layout.ts';
import { openOverlay } from '../../src/overlay/file/open.ts';
import { cowfs, type Mount, makeBase, makeMountpoint, mountDisk, mustCowfs, poll, scratch } from '../harness.ts';
import { expectNothingLeft, isAlive } from './nothing-left-support.ts';

export const MIB = 2 ** 20;
export const BLOCK = 4096;

/** Repeats the random part of a run. */
export const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Whole numbers below a limit, the same ones for a seed (mulberry32). */
export function randomOf(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export interface KeptDisk extends Mount {
  readonly directory: string;
  readonly base: string;
  /** What the base contains. */
  readonly original: Buffer;
  readonly overlay: string;
  readonly pid: number;
}

/** A fresh base of random bytes, mounted over a fresh overlay until the test ends. */
export function keptDisk(options: readonly string[] = [], baseBytes = 1_000_003): KeptDisk {
  const directory = scratch();
  const base = makeBase(directory, baseBytes);
  return remounted(
    {
      directory,
      base,
      original: readFileSync(base),
      mountpoint: makeMountpoint(directory),
      overlay: join(directory, 'vm.cow'),
    },
    options,
  );
}

/** The disk again, at its place. */
export function remounted<T extends Omit<KeptDisk, 'pid' | 'disk'>>(
  kept: T,
  options: readonly string[] = [],
): T & KeptDisk {
  const { disk } = mountDisk(kept.base, kept.mountpoint, ['--overlay', kept.overlay, ...options]);
  return { ...kept, disk, pid: findEntry(kept.mountpoint)?.pid ?? 0 };
}

/** kill -9, and waits until nothing is left of the daemon: its lock goes with its last thread. */
export async function killed({ mountpoint, pid }: Pick<KeptDisk, 'mountpoint' | 'pid'>): Promise<void> {
  process.kill(pid, 'SIGKILL');
  await poll('the daemon is gone', () => !isAlive(pid));
  await expectNothingLeft(mountpoint);
}

/** What `cowfs info --json` prints. */
export interface OverlayInfo {
  readonly path: string;
  readonly id: string;
  readonly size: number;
  readonly writtenBytes: number | null;
  readonly storeBytes: number;
  readonly generation: number;
  readonly clean: boolean;
  readonly inUse: boolean;
  readonly base: {
    readonly path: string;
    readonly size: number;
    readonly modifiedAt: string;
    readonly fingerprint: string;
    readonly changed: string | null;
  };
}

export function infoOf(overlay: string): OverlayInfo {
  return JSON.parse(mustCowfs(['info', '--json', overlay])) as OverlayInfo;
}

/** What `cowfs check --json` prints, and how it ends. */
export interface OverlayCheck {
  readonly code: number | null;
  readonly problems: readonly { readonly kind: string; readonly offset: number; readonly what: string }[];
  readonly writtenBytes: number;
  readonly pages: number;
  readonly repaired: boolean;
  readonly lost: readonly string[];
}

export function checkOf(overlay: string, ...options: readonly string[]): OverlayCheck {
  const { status, stdout } = cowfs(['check', '--json', ...options, overlay]);
  return { ...(JSON.parse(stdout) as Omit<OverlayCheck, 'code'>), code: status };
}

/** A file without any damage. */
export const SOUND = { code: 0, problems: [], repaired: false, lost: [] };

/** What is in an overlay file that nobody has mounted, looked at in this process: `check` without its start. */
export function lookInto(overlay: string): CheckReport & { readonly header: Header } {
  const opened = openOverlay(overlay, 'overlay', 'read');
  try {
    return { ...checkOverlay(opened), header: opened.header };
  } finally {
    closeSync(opened.fd);
  }
}

/** Unmounts; then nothing is left but a file that was closed as it should. */
export async function unmounted({ mountpoint, overlay }: KeptDisk): Promise<void> {
  mustCowfs(['unmount', mountpoint]);
  await expectNothingLeft(mountpoint);
  const { problems, header } = lookInto(overlay);
  expect({ problems, clean: header.clean }).toEqual({ problems: [], clean: true });
}

/** Waits until what was written so far is durable by itself: the generation advances every few seconds. */
export async function untilSynced(overlay: string, since: number, timeoutMs = 15_000): Promise<number> {
  return poll(`the generation goes past ${since}`, () => generationOf(overlay) > since, timeoutMs);
}

/** How many syncs the file has seen; it may be in use. */
export function generationOf(overlay: string): number {
  const opened = openOverlay(overlay, 'overlay', 'look');
  closeSync(opened.fd);
  return opened.header.generation;
}
