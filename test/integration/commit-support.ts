/**
 * What the tests of `cowfs commit` share: disks that are changed at random together with a picture of what they must
 * contain, commits that are watched, stopped or killed at a moment of choice, and what must be left of them.
 */
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, onTestFinished } from 'vitest';
import { OK } from '../../src/lib/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from '../../src/sys/libc.ts';
import {
  COWFS,
  exitOf,
  MAIN,
  type Mount,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  run,
  scratch,
  start,
} from '../harness.ts';
import { leftAt } from './nothing-left-support.ts';
import { BLOCK, MIB, randomOf, SEED } from './overlay-support.ts';

const MEMORY = '/dev/shm';

/** A scratch directory in memory, where there is some; it goes when the test ends. */
export function fastScratch(): string {
  const directory = mkdtempSync(join(isUsable(MEMORY) ? MEMORY : '/var/tmp', 'cowfs-test-'));
  chmodSync(directory, 0o755);
  onTestFinished(() => {
    for (const mountpoint of mountsBelow(directory).reverse()) run('umount', ['-l', mountpoint]);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

function isUsable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Where the redo log of a base lies. */
export function redoLogOf(base: string): string {
  return join(dirname(base), `.${basename(base)}.cowfs-redo`);
}

/** Of a whole file, in this process, which serves no mount. */
export function hashOf(path: string): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  const piece = Buffer.allocUnsafe(4 * MIB);
  try {
    for (let got = readSync(fd, piece); got > 0; got = readSync(fd, piece)) hash.update(piece.subarray(0, got));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

function hashOfBytes(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A name for each content that a base may have. */
export function contentOf(path: string, contents: Readonly<Record<string, string>>): string {
  const hash = hashOf(path);
  return Object.keys(contents).find((name) => contents[name] === hash) ?? `neither (${hash})`;
}

/** What a commit must not change of a base's file, whatever else it does. */
export function fileOf(path: string): Record<string, number> {
  const { ino, dev, mode, uid, gid, nlink } = statSync(path);
  return { ino, dev, mode, uid, gid, nlink };
}

/** That, and the times and content: of a base that nobody has written to. */
export function untouched(path: string): Record<string, unknown> {
  const { mtimeNs, size } = statSync(path, { bigint: true });
  return { ...fileOf(path), mtimeNs, size, content: hashOf(path) };
}

export function names(directory: string): string[] {
  return readdirSync(directory).sort();
}

/** Bytes that no other place has, quickly. */
function randomBytesOf(random: (below: number) => number, length: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = random(2 ** 31) | 1;
  for (let at = 0; at < words.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}

/** Random bytes with holes of random places. */
export function makeHoledBase(path: string, random: (below: number) => number, bytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, bytes);
  for (let at = 0; at < bytes; at += MIB) {
    if (random(4) === 0) continue;
    writeSync(fd, randomBytesOf(random, Math.min(MIB, bytes - at)), 0, undefined, at);
  }
  fsyncSync(fd);
  closeSync(fd);
}

/** What a disk must contain, changed together with the disk. */
export class Picture {
  content: Buffer;
  readonly #random: (below: number) => number;

  constructor(content: Buffer, random: (below: number) => number) {
    this.content = content;
    this.#random = random;
  }

  get hash(): string {
    return hashOfBytes(this.content);
  }

  /** Writes at odd and even places, `bytes` in all. */
  write(disk: string, bytes: number): void {
    const random = this.#random;
    const fd = openSync(disk, 'r+');
    for (let left = bytes; left > 0; ) {
      const isOdd = random(3) === 0;
      const length = isOdd ? 1 + random(3 * BLOCK) : BLOCK * (1 + random(256));
      const most = Math.max(1, this.content.length - length);
      const offset = isOdd ? random(most) : Math.floor(random(most) / BLOCK) * BLOCK;
      this.put(fd, offset, randomBytesOf(random, Math.min(length, this.content.length - offset)));
      left -= length;
    }
    closeSync(fd);
  }

  put(fd: number, offset: number, bytes: Buffer): void {
    if (offset + bytes.length > this.content.length) this.#resize(offset + bytes.length);
    bytes.copy(this.content, offset);
    expect(writeSync(fd, bytes, 0, bytes.length, offset)).toBe(bytes.length);
  }

  /** Punches some holes. */
  trim(disk: string, count: number): void {
    const random = this.#random;
    const fd = openSync(disk, 'r+');
    for (let left = count; left > 0; left--) {
      const offset = random(Math.max(1, this.content.length - BLOCK));
      const length = 1 + random(64 * BLOCK);
      expect(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)).toBe(OK);
      this.content.fill(0, offset, Math.min(this.content.length, offset + length));
    }
    closeSync(fd);
  }

  truncate(disk: string, size: number): void {
    truncateSync(disk, size);
    this.#resize(size);
  }

  #resize(size: number): void {
    const next = Buffer.alloc(size);
    this.content.copy(next);
    this.content = next;
  }
}

/** `cowfs commit`, running. */
export function startCommit(...args: readonly string[]): ChildProcess {
  return start(COWFS, ['commit', ...args], { stdio: 'ignore' });
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Whether a process writes a file that has no name yet, beside this base. */
export function writesUnnamed(pid: number, directory: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`);
      return target.startsWith(`${directory}/`) && target.endsWith(' (deleted)');
    });
  } catch {
    // It, or a descriptor of it, went in the meantime.
    return false;
  }
}

/** Looks again and again, without a pause, while a command runs; whether it came to be. */
export async function untilTrue(child: ChildProcess, condition: () => boolean): Promise<boolean> {
  while (!hasEnded(child)) {
    if (condition()) return true;
    await nextTurn();
  }
  return condition();
}

async function untilMs(deadlineMs: number, child?: ChildProcess): Promise<void> {
  while (performance.now() < deadlineMs && (child === undefined || !hasEnded(child))) await nextTurn();
}

/** When things happen in a commit that nobody disturbs, in milliseconds from its start. */
export interface Phases {
  readonly writing: number;
  readonly logged: number;
  readonly applied: number;
  readonly ended: number;
}

export async function measured(base: string, ...args: readonly string[]): Promise<Phases> {
  const log = redoLogOf(base);
  const from = performance.now();
  const child = startCommit(...args);
  await untilTrue(child, () => writesUnnamed(child.pid ?? 0, dirname(base)) || existsSync(log));
  const writing = performance.now() - from;
  await untilTrue(child, () => existsSync(log));
  const logged = performance.now() - from;
  await untilTrue(child, () => !existsSync(log));
  const applied = performance.now() - from;
  expect(await exitOf(child)).toBe(0);
  return { writing, logged, applied, ended: performance.now() - from };
}

/** Instants spread over all of a commit: from its start, from when it writes its log, from when the log has its name. */
export async function randomInstant(
  child: ChildProcess,
  base: string,
  phases: Phases,
  random: (below: number) => number,
): Promise<void> {
  const from = performance.now();
  const share = random(1000) / 1000;
  const { writing, logged, applied, ended } = phases;
  const way = random(10);
  if (way < 3) return untilMs(from + share * ended * 1.15, child);
  if (way < 6) {
    await untilTrue(child, () => writesUnnamed(child.pid ?? 0, dirname(base)) || existsSync(redoLogOf(base)));
    return untilMs(performance.now() + share * (logged - writing) * 1.2, child);
  }
  await untilTrue(child, () => existsSync(redoLogOf(base)));
  return untilMs(performance.now() + share * (applied - logged) * 1.3, child);
}

/** Where a commit can be stopped or killed for certain, in the order in which they come (commit-pause.mjs). */
export const POINTS = ['logging', 'written', 'published', 'begun', 'half', 'synced', 'applied', 'done'] as const;
export type Point = (typeof POINTS)[number];
/** One that comes only where a log replaces another. */
export const NAMING = 'naming';

function pausing(
  point: Point | typeof NAMING,
  signal: NodeJS.Signals,
  log: string,
  command: readonly string[],
): ChildProcess {
  const pause = join(import.meta.dirname, 'commit-pause.mjs');
  const env = {
    ...process.env,
    COWFS_TEST_POINT: point,
    COWFS_TEST_SIGNAL: signal,
    COWFS_TEST_LOG: log,
  };
  return start(process.execPath, ['--import', pause, MAIN, ...command], {
    stdio: 'ignore',
    env,
  });
}

/** Starts a commit that stops itself: it is under way until it goes on (SIGCONT) or is killed. */
export async function stoppedCommit(
  point: Point | typeof NAMING,
  base: string,
  ...args: readonly string[]
): Promise<ChildProcess> {
  return untilStopped(pausing(point, 'SIGSTOP', redoLogOf(base), ['commit', '--json', ...args]));
}

/** Starts a command that stops itself just before its new file takes the place of another. */
export async function stoppedNaming(path: string, ...command: readonly string[]): Promise<ChildProcess> {
  return untilStopped(pausing(NAMING, 'SIGSTOP', path, command));
}

/** One that kills itself then. */
export async function killedNaming(path: string, ...command: readonly string[]): Promise<void> {
  expect(await exitOf(pausing(NAMING, 'SIGKILL', path, command))).toBe('SIGKILL');
}

async function untilStopped(child: ChildProcess): Promise<ChildProcess> {
  await untilTrue(child, () => isStopped(child.pid ?? 0));
  expect({ ended: hasEnded(child) }).toEqual({ ended: false });
  return child;
}

function isStopped(pid: number): boolean {
  return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** Starts a commit that kills itself. */
export async function interruptedCommit(point: Point, base: string, ...args: readonly string[]): Promise<void> {
  await interrupted(point, base, 'commit', '--json', ...args);
  const log = POINTS.indexOf(point) >= 2 && point !== 'done';
  expect({ point, log: existsSync(redoLogOf(base)) }).toEqual({ point, log });
}

/** The same of another command, which finishes a commit. */
export async function interrupted(
  point: Point | typeof NAMING,
  base: string,
  ...command: readonly string[]
): Promise<void> {
  expect(await exitOf(pausing(point, 'SIGKILL', redoLogOf(base), command))).toBe('SIGKILL');
}

/** A copy of a file with its times and holes, in place of another. */
export function restore(from: string, to: string): void {
  rmSync(to, { force: true });
  must('cp', ['-p', '--sparse=auto', from, to]);
}

/** Fails unless that is all that a directory has. */
export function expectNames(directory: string, ...expected: readonly string[]): void {
  expect(names(directory)).toEqual([...expected].sort());
}

/** Whether the one mount of a place is gone, with all that belongs to it. */
export function isGone(mountpoint: string): boolean {
  return leftAt(mountpoint).length === 0;
}

export interface CommitDisk extends Mount {
  readonly directory: string;
  readonly base: string;
  readonly picture: Picture;
}

/** A disk over a base with holes, mounted until the test ends. */
export function commitDisk(
  directory: string,
  random: (below: number) => number,
  bytes: number,
  options: readonly string[] = [],
): CommitDisk {
  const base = join(directory, 'base.img');
  makeHoledBase(base, random, bytes);
  const picture = new Picture(readFileSync(base), random);
  const mount = mountDisk(base, makeMountpoint(directory), options);
  return { ...mount, directory, base, picture };
}

export const SMALL_BYTES = 4 * MIB + 77;

/** Small, and with something to commit. */
export function smallDisk(options: readonly string[] = []): CommitDisk {
  const disk = commitDisk(scratch(), randomOf(SEED), SMALL_BYTES, options);
  disk.picture.write(disk.disk, MIB);
  return disk;
}
