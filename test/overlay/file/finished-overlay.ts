/**
 * Overlay files that were closed cleanly, for tests that damage them, and what opening, checking and mending them gives.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { BaseDescriptor } from '../../../src/base/base.ts';
import { OK } from '../../../src/lib/errno.ts';
import { CowfsError } from '../../../src/lib/error.ts';
import { checkOverlay, repairOverlay } from '../../../src/overlay/file/check.ts';
import { decodeHeader, HEADER_BYTES, type Header, MAP_OFFSET, PAGE_BYTES } from '../../../src/overlay/file/layout.ts';
import { openOverlay } from '../../../src/overlay/file/open.ts';
import { nonZeroBytes } from '../random.ts';
import { BASE_BYTES, BASE_DATA, DISK_BYTES, WINDOWS } from './disk-history.ts';
import { basePath, fastScratch, type KeptMount, makeSparseBase, mountKept, openKept, useBase } from './kept-disk.ts';
import { windowsOf } from './kept-life.ts';
import { type FileImage, imageOf } from './power-cut.ts';

const BLOCK = 4096;
export const [FIRST, BORDER] = WINDOWS.map(({ offset }) => offset) as [number, number];

export interface Finished {
  readonly path: string;
  readonly basePath: string;
  readonly base: BaseDescriptor;
  readonly image: FileImage;
  /** Of the windows. */
  readonly content: Buffer;
  readonly header: Header;
  /** Indexes of pages in force. */
  readonly pages: readonly number[];
}

export function change(path: string, act: (fd: number) => void): void {
  const fd = openSync(path, 'r+');
  try {
    act(fd);
  } finally {
    closeSync(fd);
  }
}

export function bytesAt(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, offset);
  return bytes;
}

export function put(path: string, offset: number, bytes: Uint8Array): void {
  change(path, (fd) => writeSync(fd, bytes, 0, bytes.length, offset));
}

export function use<T>(path: string, base: string, act: (mount: KeptMount) => T, sizeBytes?: number): T {
  const mount = mountKept(path, base, sizeBytes);
  try {
    const result = act(mount);
    expect(mount.sessions.kept.finish()).toBe(OK);
    return result;
  } finally {
    mount.close();
  }
}

/** An overlay with all kinds of blocks in four pages, cleanly closed after several syncs. */
export function useFinished(): Finished {
  const directory = fastScratch();
  const path = join(directory, 'vm.cow');
  makeSparseBase(basePath(directory), BASE_BYTES, BASE_DATA);
  const act = (mount: KeptMount): void => {
    const { disk, sessions } = mount;
    for (const [index, { offset, length }] of WINDOWS.entries()) {
      disk.write(offset + 3 * BLOCK + 100, length / 2, nonZeroBytes(length / 2, 50 + index), 0);
      if (index % 2 === 0) sessions.kept.sync();
      disk.discard(offset + BLOCK, 4 * BLOCK);
      if (offset + length < DISK_BYTES) disk.allocate(offset + length - 3 * BLOCK, 2 * BLOCK, true);
    }
    sessions.kept.sync();
    disk.write(FIRST, 10, nonZeroBytes(10, 60), 0);
  };
  use(path, basePath(directory), act, DISK_BYTES);
  return finished(path, basePath(directory), useBase(basePath(directory)));
}

export function finished(path: string, base: string, descriptor: BaseDescriptor): Finished {
  const fd = openSync(path, 'r');
  const image = imageOf(fd, fstatSync(fd).size);
  const header = decodeHeader(bytesAt(fd, 0, HEADER_BYTES)) as Header;
  closeSync(fd);
  const mount = openKept(path, 'read', descriptor);
  const content = windowsOf(mount.disk);
  mount.close();
  const inMap = [...image.pages.keys()].filter((page) => page * 4096 >= MAP_OFFSET && page * 4096 < header.dataOffset);
  const pages = [...new Set(inMap.map((page) => Math.floor((page * 4096 - MAP_OFFSET) / (2 * PAGE_BYTES))))];
  return { path, basePath: base, base: descriptor, image, content, header, pages };
}

/** Runs of equal state: with the same data below them the same content. */
export function statesOf({ disk }: KeptMount): string {
  const { map } = disk.layer;
  const runs: string[] = [];
  for (let block = 0; block < map.blocks; ) {
    const run = map.runAt(block, map.blocks - block);
    runs.push(`${map.runState}x${run}`);
    block += run;
  }
  return `${disk.sizeBytes} ${disk.layer.extent.backingLimit} ${runs.join(' ')}`;
}

/** What opening the file gives: its content, or the error. Any other exception is a failure of the test. */
export function outcomeOf(
  { path, base }: Finished,
  access: 'read' | 'write',
  look: (mount: KeptMount) => string,
): string | CowfsError {
  let mount: KeptMount;
  try {
    mount = openKept(path, access, base);
  } catch (error) {
    if (!(error instanceof CowfsError)) throw error;
    expect(['failed', 'usage']).toContain(error.kind);
    expect(error.message).toContain(path);
    return error;
  }
  try {
    return look(mount);
  } finally {
    mount.close();
  }
}

export const rightOr = (expected: Buffer) => (mount: KeptMount) =>
  windowsOf(mount.disk).equals(expected) ? 'right' : 'wrong bytes';

export function problemsOf(path: string): ReturnType<typeof checkOverlay>['problems'] {
  const opened = openOverlay(path, 'overlay', 'read');
  try {
    return checkOverlay(opened).problems;
  } finally {
    closeSync(opened.fd);
  }
}

export function repair(path: string): string[] {
  const opened = openOverlay(path, 'overlay', 'write');
  try {
    return repairOverlay(opened);
  } finally {
    closeSync(opened.fd);
  }
}
