/**
 * What a mount must not leave behind, and what a refusal must look like. Shared by the tests of bad input, of endings
 * and of mounts without root.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { runtimeDirectory } from '../../src/daemon/runtime-directory.ts';
import { mountsBelow, poll, type Result } from '../harness.ts';

/** How soon after a daemon's death its mountpoint must be usable again, in milliseconds. */
export const FREE_WITHIN_MS = 2000;

/** In the environment of every process that the tests of this file start. */
const MARK = `COWFS_TEST_RUN=${process.pid}-${Date.now()}`;
process.env['COWFS_TEST_RUN'] = MARK.slice('COWFS_TEST_RUN='.length);

/** All that names a place: mounts at or below it, entries in the runtime directory, processes of cowfs. */
export function leftAt(place: string, runtime: string = runtimeDirectory()): string[] {
  return [
    ...mountsBelow(place).map((mountpoint) => `mount ${mountpoint}`),
    ...entriesNaming(place, runtime).map((file) => `entry ${file}`),
    ...processesNaming(place, runtime).map(({ pid, line }) => `process ${pid}: ${line}`),
  ];
}

/** Waits until nothing is left there; the milliseconds it took. The watcher needs a moment to go home. */
export async function expectNothingLeft(place: string, runtime?: string): Promise<number> {
  return poll('nothing left', () => leftAt(place, runtime).length === 0, FREE_WITHIN_MS).catch(() => {
    expect(leftAt(place, runtime), `left after ${FREE_WITHIN_MS} ms`).toEqual([]);
    return FREE_WITHIN_MS;
  });
}

/** Registry entries that name a place, by content: what an entry's file is called is no business of a test. */
export function entriesNaming(place: string, runtime: string = runtimeDirectory()): string[] {
  return readdirSync(runtime).filter((name) => /\.json/.test(name) && textOf(join(runtime, name)).includes(place));
}

/**
 * Processes of cowfs that belong to a place: commands and watchers have it in their command lines. Daemons have not;
 * those that this file's tests started, and that no entry of another place accounts for, count as well.
 */
export function processesNaming(place: string, runtime: string = runtimeDirectory()): { pid: number; line: string }[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .map((pid) => ({ pid, line: textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim() }))
    .filter(({ pid, line }) => {
      if (/cowfs-watcher|daemon\/main\.js|bin\/cowfs\.js/.test(line) && line.includes(place)) return true;
      const ours = line === 'cowfs' && textOf(`/proc/${pid}/environ`).includes(MARK);
      return ours && !entriesOf(runtime).some((text) => text.includes(`"pid":${pid},`) && !text.includes(place));
    });
}

function entriesOf(runtime: string): string[] {
  return readdirSync(runtime).map((name) => (name.endsWith('.json') ? textOf(join(runtime, name)) : ''));
}

/** The watcher of a mount; found by its command line, as a person would. */
export function watcherOf(mountpoint: string): number {
  const watcher = processesNaming(mountpoint).find(({ line }) => line.includes('cowfs-watcher'));
  if (watcher === undefined) throw new Error(`${mountpoint} has no watcher`);
  return watcher.pid;
}

/**
 * Whether a process still has anything: a zombie has nothing but its number, unless other threads of it are still on
 * their way out, files and memory in hand (proc(5): state and num_threads of /proc/PID/stat).
 */
export function isAlive(pid: number): boolean {
  const fields = /\) (.*)$/s.exec(textOf(`/proc/${pid}/stat`))?.[1]?.split(' ') ?? [];
  return isMainThreadAlive(pid) || Number(fields[17] ?? 0) > 1;
}

/** What `ps` calls alive: not gone and not "defunct". */
export function isMainThreadAlive(pid: number): boolean {
  return /\) [^ZX] /s.test(textOf(`/proc/${pid}/stat`));
}

/** One line that says what, where and what to do, nothing on standard output, and the right exit code. */
export function expectRefusal(result: Result, code: number, ...says: readonly (string | RegExp)[]): void {
  expect(result.stderr).toMatch(/^cowfs: [^\n]+\n$/);
  for (const words of says) {
    if (typeof words === 'string') expect(result.stderr).toContain(words);
    else expect(result.stderr).toMatch(words);
  }
  expect(result.stdout).toBe('');
  expect({ code: result.status }).toEqual({ code });
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // It went in the meantime.
    return '';
  }
}
