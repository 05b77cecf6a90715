/**
 * What the tests of `--transport fuse-native` share: mounts through it, and the reason to skip where the package cannot
 * be had.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { MNT_DETACH, umount2 } from '../../src/sys/libc.ts';
import { mountAt } from '../../src/sys/mountinfo.ts';
import {
  cowfs,
  isRoot,
  type Mount,
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  PROJECT,
  type RunOptions,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { needs, skipUnless } from './machine-support.ts';

export const FUSE_NATIVE = ['--transport', 'fuse-native'] as const;

/** Its addon comes built for some machines; npm builds it on others where it may. */
export function needsFuseNative(context: TestContext): void {
  const place = join(PROJECT, 'node_modules/fuse-native');
  const built = [`prebuilds/${process.platform}-${process.arch}`, 'build/Release'];
  const isThere = built.some((directory) => existsSync(join(place, directory)));
  skipUnless(context, isThere, `fuse-native is not installed, or not built for ${process.arch}`);
  if (!isRoot()) needs(context, 'fusermount');
}

export interface FuseNativeMount extends Mount {
  readonly directory: string;
  readonly base: string;
  readonly pid: number;
}

/** A fresh base of random bytes, mounted through fuse-native until the test ends. */
export function mounted(options: readonly string[] = [], baseBytes = 1_000_001): FuseNativeMount {
  const directory = scratch();
  const base = makeBase(directory, baseBytes);
  const mount = mountDisk(base, makeMountpoint(directory), [...FUSE_NATIVE, ...options]);
  return { ...mount, directory, base, pid: statusOf(mount.mountpoint).pid };
}

/**
 * Mounts on a place whose name needs care; taken down when the test ends, whatever the name. What the command says is
 * the caller's to judge.
 */
export function mountAnywhere(
  base: string,
  mountpoint: string,
  options: readonly string[],
  as: RunOptions = {},
): string {
  const { status, stdout, stderr } = cowfs(['mount', ...FUSE_NATIVE, ...options, '--', base, mountpoint], as);
  onTestFinished(() => {
    if (mountAt(mountpoint) === undefined) return;
    cowfs(['unmount', '--force', '--', mountpoint], as);
    umount2(mountpoint, MNT_DETACH);
  });
  if (status !== 0) throw new Error(`mount ended with ${status}: ${stderr}`);
  return stdout.replace(/\n$/, '');
}

/** What aborts a mount's connection, by the control file system; needs root. */
export function abortFile(mountpoint: string): string {
  const connections = makeMountpoint(scratch(), 'connections');
  must('mount', ['-t', 'fusectl', 'cowfs-test', connections]);
  const [, number] = /^0:(\d+)$/.exec(mountAt(mountpoint)?.device ?? '') ?? [];
  if (number === undefined) throw new Error(`${mountpoint} is not mounted`);
  return join(connections, number, 'abort');
}

/** System calls that Node lacks, made in a process of its own: what it prints, parsed. */
export function inChild<T>(script: string, ...args: readonly string[]): T {
  const calls = join(PROJECT, 'test/system-calls.mjs');
  const program = `
    import * as fs from 'node:fs';
    const calls = await import(${JSON.stringify(calls)});
    const args = process.argv.slice(1);
    /** The result, or the errno's name. */
    const outcome = (call) => { try { return call(); } catch (error) { return error.code ?? String(error); } };
    ${script}`;
  return JSON.parse(must(process.execPath, ['--input-type=module', '-e', program, '--', ...args])) as T;
}

/** A figure of /proc/PID/status, in bytes where it is of memory. */
export function figureOf(pid: number, name: 'VmRSS' | 'Threads'): number {
  const [, number = '', unit] =
    new RegExp(`^${name}:\\s+(\\d+)( kB)?$`, 'm').exec(run('cat', [`/proc/${pid}/status`]).stdout) ?? [];
  return Number(number) * (unit === undefined ? 1 : 1024);
}
