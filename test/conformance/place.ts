/**
 * Where the suite has its files: the directory of all tests, or a file system of its own, where blocks can be shared.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { must } from '../harness.ts';
import { mountFormatted } from '../integration/machine-support.ts';

export function testDirectory(): string {
  return process.env['COWFS_TEST_DIR'] ?? '/var/tmp';
}

/** Called while tests are collected, before what uses it. */
export function xfsPlace(): () => string {
  let directory: string | undefined;
  let place = '';
  beforeAll(() => {
    directory = mkdtempSync(join(testDirectory(), 'cowfs-test-xfs-'));
    place = mountFormatted(directory, 'xfs');
  });
  afterAll(() => {
    if (place !== '') must('umount', ['--lazy', place]);
    if (directory !== undefined) rmSync(directory, { recursive: true });
  });
  return () => place;
}
