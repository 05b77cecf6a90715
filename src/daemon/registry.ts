/**
 * Which mounts there are: one file a mountpoint in the runtime directory. Made exclusively before mounting, so that
 * two mounts of one place cannot both win; removed by the daemon, or after its death by its watcher, or by whoever
 * finds it (`reap.ts`).
 */
import { createHash } from 'node:crypto';
import { linkSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EEXIST, ENOENT, errnoOf } from '../lib/errno.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { canonicalOverlay } from '../overlay/file/open.ts';
import { startTimeOf } from '../sys/processes.ts';
import { runtimeDirectory } from './runtime-directory.ts';

export interface RegistryEntry {
  readonly mountpoint: string;
  readonly base: string;
  readonly pid: number;
  /** Tells a daemon from a later process with its number (clock ticks since boot). */
  readonly startTime: number;
  /** Path of the control socket. */
  readonly socket: string;
  /** File that keeps the first disk; null for a mount that keeps nothing. */
  readonly overlay: string | null;
  /** The mountpoint was made for this mount alone and goes with it. */
  readonly privateMountpoint: boolean;
  /** The process that cleans up after the daemon; 0 until it runs. */
  readonly watcherPid: number;
  readonly watcherStartTime: number;
}

export type Claim = Pick<RegistryEntry, 'mountpoint' | 'base' | 'overlay' | 'privateMountpoint'>;

/** Longest path of a Unix socket (unix(7), sun_path with its NUL). */
const SOCKET_PATH_MAX = 107;

export function isAlive(entry: RegistryEntry): boolean {
  return startTimeOf(entry.pid) === entry.startTime;
}

/**
 * Claims a mountpoint for this process.
 *
 * @param reap clears away what a dead holder left
 * @throws CowfsError of kind `refused` when another live daemon has it
 */
export function claimMountpoint(
  { mountpoint, base, overlay, privateMountpoint }: Claim,
  reap: (dead: RegistryEntry) => void,
): RegistryEntry {
  const file = fileOf(mountpoint);
  const socket = file.replace(/json$/, 'sock');
  if (Buffer.byteLength(socket) > SOCKET_PATH_MAX) {
    throw new CowfsError('usage', `${socket} is too long for a socket; set XDG_RUNTIME_DIR to a shorter path`);
  }
  const { pid } = process;
  const startTime = startTimeOf(pid) ?? 0;
  const entry = {
    mountpoint,
    base,
    pid,
    startTime,
    socket,
    overlay,
    privateMountpoint,
    watcherPid: 0,
    watcherStartTime: 0,
  };
  for (;;) {
    try {
      linkWhole(file, entry);
      return entry;
    } catch (error) {
      if (errnoOf(error) !== EEXIST) throw new CowfsError('failed', `${file}: ${reasonOf(error)}`, error);
      const holder = findEntry(mountpoint);
      // It went in between: try again.
      if (holder === undefined) continue;
      if (isAlive(holder)) {
        throw new CowfsError(
          'refused',
          `${mountpoint} is mounted already, by cowfs with pid ${holder.pid}; unmount it first: cowfs unmount ${mountpoint}`,
        );
      }
      reap(holder);
    }
  }
}

/** Adds the watcher to our own entry. */
export function nameWatcher(entry: RegistryEntry, watcherPid: number): void {
  const file = fileOf(entry.mountpoint);
  const named: RegistryEntry = { ...entry, watcherPid, watcherStartTime: startTimeOf(watcherPid) ?? 0 };
  renameSync(writeAside(file, named), file);
}

/** Makes the file appear with all its content, or not at all (EEXIST): nobody ever reads half an entry. */
function linkWhole(file: string, entry: RegistryEntry): void {
  const aside = writeAside(file, entry);
  try {
    linkSync(aside, file);
  } finally {
    rmSync(aside);
  }
}

function writeAside(file: string, entry: RegistryEntry): string {
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, JSON.stringify(entry), { mode: 0o600 });
  return aside;
}

export function removeEntry(entry: RegistryEntry): void {
  rmSync(entry.socket, { force: true });
  rmSync(fileOf(entry.mountpoint), { force: true });
}

/** The path of an entry's file, for the watcher. */
export function fileOf(mountpoint: string): string {
  const key = createHash('sha256').update(mountpoint).digest('hex').slice(0, 16);
  return join(runtimeDirectory(), `${key}.json`);
}

/** The entry of a mountpoint, dead or alive. */
export function findEntry(mountpoint: string): RegistryEntry | undefined {
  return readEntry(fileOf(mountpoint));
}

/** All entries, of the living and the dead, by mountpoint. Files that a process died over while writing are removed. */
export function allEntries(): RegistryEntry[] {
  const directory = runtimeDirectory();
  const names = readdirSync(directory);
  for (const name of names) {
    const writer = /\.json\.(\d+)$/.exec(name)?.[1];
    if (writer !== undefined && startTimeOf(Number(writer)) === undefined)
      rmSync(join(directory, name), { force: true });
  }
  return names
    .filter((name) => name.endsWith('.json'))
    .map((name) => readEntry(join(directory, name)))
    .filter((entry) => entry !== undefined)
    .sort((a, b) => a.mountpoint.localeCompare(b.mountpoint));
}

/** @throws CowfsError of kind `refused` where a live mount of this user keeps a disk in that file */
export function checkNotMounted(overlay: string): void {
  const entry = allEntries().find((each) => each.overlay === canonicalOverlay(overlay) && isAlive(each));
  if (entry === undefined) return;
  const { mountpoint } = entry;
  throw new CowfsError(
    'refused',
    `overlay ${overlay} is mounted at ${mountpoint}, by cowfs with pid ${entry.pid}; unmount it first: cowfs unmount ${mountpoint}`,
  );
}

function readEntry(file: string): RegistryEntry | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === ENOENT) return undefined;
    throw new CowfsError('failed', `${file}: ${reasonOf(error)}`, error);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (isEntry(value)) return value;
  } catch {
    // Entries appear whole, so this is none of ours, or of another version: worth nothing.
  }
  rmSync(file, { force: true });
  return undefined;
}

function isEntry(value: unknown): value is RegistryEntry {
  if (typeof value !== 'object' || value === null) return false;
  const entry = value as Record<keyof RegistryEntry, unknown>;
  return (
    [entry.mountpoint, entry.base, entry.socket].every((field) => typeof field === 'string') &&
    [entry.pid, entry.startTime, entry.watcherPid, entry.watcherStartTime].every(
      (field) => typeof field === 'number',
    ) &&
    (entry.overlay === null || typeof entry.overlay === 'string') &&
    typeof entry.privateMountpoint === 'boolean'
  );
}
