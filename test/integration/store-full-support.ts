/** A mount whose store is small, and writers on it that may hang: each in a process of its own. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { askDaemon } from '../../src/daemon/control.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import { makeBase, makeMountpoint, mountDisk, poll, scratch, start } from '../harness.ts';
import { tmpfs } from './machine-support.ts';

export const MIB = 1024 * 1024;

export interface SmallStore {
  readonly directory: string;
  readonly store: string;
  readonly mountpoint: string;
  readonly disk: string;
  /** Content of the base. */
  readonly original: Buffer;
}

/** A disk of 16 MiB over a store of 4 MiB, a file system of its own. */
export function smallStore(options: readonly string[]): SmallStore {
  const directory = scratch();
  const store = tmpfs(directory, '4M');
  const base = makeBase(directory, 16 * MIB);
  const mount = mountDisk(base, makeMountpoint(directory), ['--store', store, ...options]);
  return { directory, store, ...mount, original: readFileSync(base) };
}

/** Waits until write-backs wait for room. Asks the daemon alone: the command would write back first. */
export async function untilHeld(mountpoint: string, timeoutMs = 20_000): Promise<void> {
  const socket = findEntry(mountpoint)?.socket ?? '';
  await poll(
    'write-backs are held',
    async () => (await askDaemon(socket, { command: 'status' })).store.heldBytes > 0,
    timeoutMs,
  );
}

/** Byte that a test writes at an offset: tells places apart, and writers. */
export function pattern(seed: number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (seed + (index >> 12) * 7) & 0xff));
}

/**
 * Starts a writer that writes `pattern(seed)` in pieces from an offset on, says `written N` with the bytes that
 * write(2) took and the error that ended it, then what `then` says of the open file `fd`.
 */
export function startWriter(disk: string, offset: number, length: number, seed: number, then = ''): ChildProcess {
  const program = `
    const fs = require('node:fs');
    const fd = fs.openSync(${JSON.stringify(disk)}, 'r+');
    const data = Buffer.from(Uint8Array.from({ length: ${length} }, (_, i) => (${seed} + (i >> 12) * 7) & 0xff));
    let done = 0;
    let error = '';
    try {
      while (done < data.length) {
        done += fs.writeSync(fd, data, done, Math.min(65536, data.length - done), ${offset} + done);
      }
    } catch (caught) { error = caught.code; }
    console.log('written ' + done + ' ' + error);
    const attempt = (what, action) => {
      try { action(); console.log(what + ' OK'); } catch (caught) { console.log(what + ' ' + caught.code); }
    };
    ${then}
  `;
  return start(process.execPath, ['-e', program]);
}

/** For `then`: waits, with the file open, until the test kills it. */
export const STAY = 'setInterval(() => {}, 1000);';
export const FSYNC = "attempt('fsync', () => fs.fsyncSync(fd));";
