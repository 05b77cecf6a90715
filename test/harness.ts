/**
 * What the tests on real mounts share: running the command line, scratch directories, bases, mounts that are always
 * taken down, and polling. The daemon under test is always another process: a test that served its own mount would
 * wait for itself.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, createReadStream, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { onTestFinished } from 'vitest';
import type { MountStatus } from '../src/daemon/status.ts';
import { readMounts } from '../src/sys/mountinfo.ts';

export const PROJECT = resolve(import.meta.dirname, '..');
export const COWFS = join(PROJECT, 'bin/cowfs');
/** What that has Node run, for all but a mount in the background. */
export const MAIN = join(PROJECT, 'dist/bundle/start.cjs');

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Run as this user instead of the test's own (needs root). */
  readonly user?: string;
  readonly input?: string | Buffer;
  /** How long it may take; 110 s unless said otherwise. */
  readonly timeoutMs?: number;
}

/** Runs a program to its end. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Result {
  const [command, line] = asUser(file, args, options.user);
  const { error, status, stdout, stderr } = spawnSync(command, line, {
    encoding: 'utf8',
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    input: options.input,
    maxBuffer: 64 * 1024 * 1024,
    timeout: options.timeoutMs ?? 110_000,
  });
  if (error !== undefined) throw error;
  return { status, stdout, stderr };
}

/** Runs a program that must succeed; its output. */
export function must(file: string, args: readonly string[], options: RunOptions = {}): string {
  const { status, stdout, stderr } = run(file, args, options);
  if (status !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${status}: ${stderr || stdout}`);
  return stdout;
}

export function cowfs(args: readonly string[], options: RunOptions = {}): Result {
  return run(COWFS, args, options);
}

export function mustCowfs(args: readonly string[], options: RunOptions = {}): string {
  return must(COWFS, args, options);
}

/** Starts a program and leaves it running; it is killed when the test ends. */
export function start(
  file: string,
  args: readonly string[],
  options: SpawnOptions & { user?: string } = {},
): ChildProcess {
  const [command, line] = asUser(file, args, options.user);
  const child = spawn(command, line, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  onTestFinished(() => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  });
  return child;
}

/** The exit code or signal of a child, when it comes. */
export function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals> {
  return new Promise((done, fail) => {
    const ended = child.signalCode ?? child.exitCode;
    if (ended !== null) done(ended);
    child.once('error', fail);
    child.once('exit', (code, signal) => done(signal ?? code ?? -1));
  });
}

function asUser(file: string, args: readonly string[], user: string | undefined): [string, string[]] {
  return user === undefined ? [file, [...args]] : ['runuser', ['-u', user, '--', file, ...args]];
}

export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/** A directory that goes when the test ends; what is still mounted in it is detached first. */
export function scratch(): string {
  const directory = mkdtempSync(join(process.env['COWFS_TEST_DIR'] ?? '/var/tmp', 'cowfs-test-'));
  // Other users reach their own things in it.
  chmodSync(directory, 0o755);
  onTestFinished(() => {
    for (const mountpoint of mountsBelow(directory).reverse()) run('umount', ['-l', mountpoint]);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** Mountpoints at or below a directory, in mount order. */
export function mountsBelow(directory: string): string[] {
  return readMounts()
    .map(({ mountpoint }) => mountpoint)
    .filter((mountpoint) => mountpoint === directory || mountpoint.startsWith(`${directory}/`));
}

/** A base image of random bytes. */
export function makeBase(directory: string, bytes: number, name = 'base.img'): string {
  const path = join(directory, name);
  writeFileSync(path, randomBytes(bytes));
  return path;
}

export function makeMountpoint(directory: string, name = 'mnt'): string {
  const path = join(directory, name);
  if (!existsSync(path)) mkdirSync(path);
  return path;
}

export interface Mount {
  readonly mountpoint: string;
  /** Path of the disk. */
  readonly disk: string;
}

/** Mounts in the background; unmounted, by force if need be, when the test ends. */
export function mountDisk(
  base: string,
  mountpoint: string,
  options: readonly string[] = [],
  runOptions: RunOptions = {},
): Mount {
  const disk = mustCowfs(['mount', base, mountpoint, ...options], runOptions).trim();
  onTestFinished(() => {
    if (mountsBelow(mountpoint).length === 0) return;
    const { status, stderr } = cowfs(['unmount', '--force', mountpoint], runOptions);
    // The watcher of a daemon that the test has killed may have been faster.
    if (status !== 0 && mountsBelow(mountpoint).length > 0) throw new Error(`${mountpoint} stays mounted: ${stderr}`);
  });
  return { mountpoint, disk };
}

export function statusOf(mountpoint: string, options: RunOptions = {}): MountStatus {
  return JSON.parse(mustCowfs(['status', mountpoint, '--json'], options)) as MountStatus;
}

export function listMounts(options: RunOptions = {}): MountStatus[] {
  return JSON.parse(mustCowfs(['list', '--json'], options)) as MountStatus[];
}

/**
 * Whether a descriptor of a daemon, by what it is open on, may come and go: connections, with those who ask; pipes and
 * events, with the threads that start when requests wait.
 */
export function comesAndGoes(target: string): boolean {
  return /^(socket|pipe):|^anon_inode:\[event(fd|poll)\]/.test(target);
}

/** Waits for a condition; never sleeps for a fixed time. */
export async function poll(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<number> {
  const startMs = performance.now();
  while (!(await condition())) {
    if (performance.now() - startMs > timeoutMs) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
  return performance.now() - startMs;
}

export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, {
    highWaterMark: 1024 * 1024,
  }))
    hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Whether a program is there; tests that need it are skipped with this reason where it is not. */
export function lacks(...programs: readonly string[]): string | undefined {
  const missing = programs.filter((program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0);
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`;
}
