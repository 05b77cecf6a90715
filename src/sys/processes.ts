/**
 * Looks through /proc for processes: who is alive, and who holds a file or a file system open. For messages that name
 * the culprit; what this user may not see is left out. Main thread and commands only; it never opens the files
 * themselves, so that it is safe on our own mount.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface ProcessUse {
  readonly pid: number;
  readonly command: string;
}

/** The start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), or undefined if it is gone. */
export function startTimeOf(pid: number): number | undefined {
  const fields = statFields(pid);
  // A zombie has let go of everything but its number; one with threads left (num_threads) has not.
  if (fields === undefined || (fields[0] === 'Z' && Number(fields[17]) <= 1)) return undefined;
  return Number(fields[19]);
}

/** Whether we are in the foreground process group of a terminal: its keys then signal our children too. */
export function isTerminalForeground(): boolean {
  const fields = statFields(process.pid);
  return fields !== undefined && fields[2] === fields[5];
}

/** The fields of /proc/PID/stat from the state on; the command name before them may hold anything. */
function statFields(pid: number): string[] | undefined {
  const text = readOrUndefined(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
}

export function commandOf(pid: number): string {
  return readOrUndefined(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim()) ?? '?';
}

/**
 * Processes other than this one that hold this file open, by its path as the kernel shows it.
 *
 * @param inode if the file may have been made without a name, which the kernel goes on to show (d_tmpfile)
 */
export function usersOfFile(path: string, inode?: number): ProcessUse[] {
  const unnamed = inode === undefined ? undefined : join(dirname(path), `#${inode} (deleted)`);
  return usersWhere((link) => link === path || link === unnamed);
}

/** For a message: `qemu, pid 12; fio, pid 13`; empty for nobody. */
export function namesOf(users: readonly ProcessUse[]): string {
  return users.map(({ pid, command }) => `${command}, pid ${pid}`).join('; ');
}

/** Processes that hold open, map, run or stand in anything at or below `directory`, by the links in /proc. */
export function usersBelow(directory: string): ProcessUse[] {
  const prefix = directory.endsWith('/') ? directory : `${directory}/`;
  const below = (path: string): boolean => path === directory || path.startsWith(prefix);
  const users = usersWhere(below);
  for (const device of loopDevicesOn(below)) users.push({ pid: 0, command: device });
  return users;
}

/** Loop devices have their backing file open in the kernel, where no process shows it. */
function loopDevicesOn(matches: (path: string) => boolean): string[] {
  return (readOrUndefined(() => readdirSync('/sys/block')) ?? []).filter((name) => {
    if (!name.startsWith('loop')) return false;
    const backing = readOrUndefined(() => readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim());
    return backing !== undefined && matches(backing);
  });
}

function usersWhere(matches: (link: string) => boolean): ProcessUse[] {
  const users: ProcessUse[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    if (linksOf(pid).some(matches)) users.push({ pid, command: commandOf(pid) });
  }
  return users;
}

/** What a descriptor of this process is open on, as /proc names it; undefined for one that is closed. */
export function openFileOf(fd: number): string | undefined {
  return readOrUndefined(() => readlinkSync(`/proc/self/fd/${fd}`, 'utf8'));
}

function linksOf(pid: number): string[] {
  const links = ['cwd', 'root', 'exe'].map((name) => readOrUndefined(() => readlinkSync(`/proc/${pid}/${name}`)));
  for (const fd of readOrUndefined(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
    links.push(readOrUndefined(() => readlinkSync(`/proc/${pid}/fd/${fd}`)));
  }
  const maps = readOrUndefined(() => readFileSync(`/proc/${pid}/maps`, 'utf8')) ?? '';
  for (const line of maps.split('\n')) {
    const path = line.indexOf('/');
    if (path > 0) links.push(line.slice(path));
  }
  return links.filter((link) => link !== undefined);
}

/** Processes come and go while we look, and others' links are not ours to read: both mean "nothing to see". */
function readOrUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
