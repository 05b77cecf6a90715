/**
 * A base on a file system of its own that fails as told (faulty-file.mjs), and disks over it. The plan can change at any
 * time; it holds from the next request on.
 */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { exitOf, type Mount, makeBase, makeMountpoint, mountDisk, poll, scratch, start } from '../harness.ts';
import { said } from '../integration/machine-support.ts';

/** Offsets are of bytes; `to` is the first one behind. */
export interface Plan {
  /** Reads give what comes before these, and those that start here the error. */
  readonly bad?: { readonly from: number; readonly to: number; readonly errno: 'EIO' | 'ENODATA' };
  /** Most bytes that one read gives. */
  readonly mostBytes?: number;
  /** Where reads end, whatever size the file shows. */
  readonly endBytes?: number;
  /** Reads that touch these wait until there is a plan without it. */
  readonly gate?: { readonly from: number; readonly to: number };
  /** How writes end that reach byte `writeFrom`; those that start before it are short. */
  readonly write?: 'EIO' | 'ENOSPC';
  /** 0 if it is not there. */
  readonly writeFrom?: number;
  /** How a sync ends. */
  readonly sync?: 'EIO';
  /** How a change of the size ends. */
  readonly truncate?: 'EIO';
}

export interface FaultyBase {
  /** Goes with the test. */
  readonly directory: string;
  readonly path: string;
  /** What the base holds, and shows where the plan lets it. */
  readonly original: Buffer;
  setPlan(plan: Plan): void;
  /** Waits until reads from this many offsets have come to the gate. */
  untilGated(count: number): Promise<void>;
  /** Ends its file system without a word. */
  die(): Promise<void>;
}

export async function faultyBase(bytes: number, plan: Plan = {}): Promise<FaultyBase> {
  const directory = scratch();
  const content = makeBase(directory, bytes, 'content.img');
  const planFile = join(directory, 'plan.json');
  const gate = makeMountpoint(directory, 'gate');
  const setPlan = (next: Plan): void => {
    // At once: a read may look at any time.
    writeFileSync(`${planFile}.new`, JSON.stringify(next));
    renameSync(`${planFile}.new`, planFile);
  };
  setPlan(plan);
  const mountpoint = makeMountpoint(directory, 'faulty');
  const program = join(import.meta.dirname, 'faulty-file.mjs');
  const child = start(process.execPath, [program, content, planFile, gate, mountpoint], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await said(child, 'ready');
  return {
    directory,
    path: join(mountpoint, 'base.img'),
    original: readFileSync(content),
    setPlan,
    untilGated: async (count) => {
      await poll(`${count} reads stand at the gate`, () => readdirSync(gate).length >= count);
    },
    die: async () => {
      child.kill('SIGKILL');
      await exitOf(child);
    },
  };
}

/** A disk over the base. */
export function mountOver({ directory, path, setPlan }: FaultyBase, options: readonly string[]): Mount {
  const mount = mountDisk(path, makeMountpoint(directory), ['--store', directory, ...options]);
  // A failed test leaves nobody at the gate, who would hold up the unmount.
  onTestFinished(() => setPlan({}));
  return mount;
}
