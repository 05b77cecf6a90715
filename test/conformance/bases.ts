/**
 * The base images of the suite, made once for all its cases, and how they are now: nothing may change one.
 */
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { must } from '../harness.ts';

const NAMES = ['even', 'odd', 'far'] as const;
type BaseName = (typeof NAMES)[number];

/** All of the smaller ones; of the largest, a hole for the most part, its first and last data. */
const CHUNK_BYTES = 4 * 1024 * 1024;

export interface SuiteBases {
  readonly pathOf: (name: BaseName) => string;
  /** Size, times, mode and bytes. */
  readonly stateOf: (name: BaseName) => object;
}

/**
 * @param main the suite's program
 * @param place a directory to have them in, when they are made
 */
export function suiteBases(main: string, place: () => string): SuiteBases {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(place(), 'cowfs-test-bases-'));
    for (const name of NAMES) must(process.execPath, [main, 'base', name, join(directory, name)]);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const pathOf = (name: BaseName): string => join(directory, name);
  return {
    pathOf,
    stateOf: (name) => {
      const { size, mtimeNs, ctimeNs, mode } = statSync(pathOf(name), { bigint: true });
      return { size, mtimeNs, ctimeNs, mode, digest: digestOf(pathOf(name), Number(size)) };
    },
  };
}

function digestOf(path: string, size: number): string {
  const hash = createHash('sha1');
  const fd = openSync(path, 'r');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (const offset of [0, Math.max(0, size - CHUNK_BYTES)]) {
    hash.update(chunk.subarray(0, readSync(fd, chunk, 0, CHUNK_BYTES, offset)));
  }
  closeSync(fd);
  return hash.digest('hex');
}
