/**
 * Pieces of machine that tests set up and take down: small file systems, loop devices, other users, children whose
 * output counts. Skipping with a reason is here, too.
 */
import type { ChildProcess } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { exitOf, isRoot, lacks, makeMountpoint, must, type Result, type RunOptions, run, scratch } from '../harness.ts';

/** Numbers of the user `nobody`, as Debian has them. */
export const NOBODY = 65534;

export function skipUnless(context: TestContext, condition: boolean, reason: string): void {
  if (condition) return;
  console.log(`skipped: ${context.task.name}: ${reason}`);
  context.skip(reason);
}

export function needsRoot(context: TestContext): void {
  skipUnless(context, isRoot(), 'needs root');
}

export function needs(context: TestContext, ...programs: readonly string[]): void {
  const reason = lacks(...programs);
  skipUnless(context, reason === undefined, reason ?? '');
}

/** A file system of its own, so that its free space is exact; `scratch` unmounts it. */
export function tmpfs(directory: string, size: string, name = 'store'): string {
  const path = makeMountpoint(directory, name);
  must('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=1777`, 'cowfs-test', path]);
  return path;
}

type FileSystemType = 'ext4' | 'xfs' | 'btrfs';

/** As `tmpfs`, of another type and 400 MiB, on a loop device. */
export function formatted(directory: string, type: FileSystemType, context: TestContext): string {
  needs(context, `mkfs.${type}`, 'losetup');
  const known = readFileSync('/proc/filesystems', 'utf8');
  skipUnless(context, new RegExp(`\\t${type}\\n`).test(known), `this kernel has no ${type}`);
  return mountFormatted(directory, type);
}

/** The same, where that it can be is known. */
export function mountFormatted(directory: string, type: FileSystemType): string {
  const image = join(directory, 'fs.img');
  writeFileSync(image, '');
  truncateSync(image, 400 * 1024 * 1024);
  must(`mkfs.${type}`, [type === 'ext4' ? '-F' : '-f', '-q', image]);
  const place = makeMountpoint(directory, 'fs');
  must('mount', ['-o', 'loop', image, place]);
  return place;
}

export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Attaches a file to a loop device until the test ends. */
export function loopDevice(file: string, ...options: readonly string[]): string {
  const device = must('losetup', ['--find', '--show', ...options, file]).trim();
  onTestFinished(() => {
    run('losetup', ['--detach', device]);
  });
  return device;
}

/** A user with nothing but a scratch directory: `nobody` when the tests are root's, else whoever runs them. */
export interface Ordinary {
  readonly directory: string;
  readonly mountpoint: string;
  /** Where its daemons leave word. */
  readonly runtime: string;
  /** For `run`, `cowfs` and the like. */
  readonly as: RunOptions;
}

export function ordinaryUser(): Ordinary {
  const directory = scratch();
  const mountpoint = makeMountpoint(directory);
  const xdg = makeMountpoint(directory, 'xdg');
  const runtime = join(xdg, 'cowfs');
  mkdirSync(runtime, { mode: 0o700 });
  const env = { XDG_RUNTIME_DIR: xdg, TMPDIR: undefined };
  if (!isRoot()) return { directory, mountpoint, runtime, as: { env } };
  for (const path of [directory, mountpoint, xdg, runtime]) chownSync(path, NOBODY, NOBODY);
  return { directory, mountpoint, runtime, as: { env, user: 'nobody' } };
}

/** Collects what a child says until it ends. */
export async function finish(child: ChildProcess): Promise<Result> {
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (chunk: string) => {
      text[name] += chunk;
    });
  }
  const closed = new Promise((done) => child.once('close', done));
  const code = await exitOf(child);
  await closed;
  return { status: typeof code === 'number' ? code : null, ...text };
}

/** Waits until a child has said something on standard output; all it said. */
export async function said(child: ChildProcess, words: string | RegExp): Promise<string> {
  let text = '';
  return new Promise((resolve, reject) => {
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (typeof words === 'string' ? text.includes(words) : words.test(text)) resolve(text);
    });
    child.once('exit', () => reject(new Error(`ended without saying ${words}: ${text}`)));
  });
}
