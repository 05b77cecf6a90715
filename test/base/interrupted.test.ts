/** Reads of the base that a signal, or a base in user space, interrupts. */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Base } from '../../src/base/base.ts';
import { EINTR } from '../../src/lib/errno.ts';
import { scratch } from '../harness.ts';

const calls = vi.hoisted(() => ({ count: 0 }));

/** Every other read is interrupted, and none gives more than 3 bytes. */
vi.mock('node:fs', async (original) => {
  const actual = await original<typeof import('node:fs')>();
  const readSync = (fd: number, into: Uint8Array, at: number, length: number, position: number): number => {
    if (calls.count++ % 2 === 0) throw Object.assign(new Error('EINTR'), { errno: -EINTR, code: 'EINTR' });
    return actual.readSync(fd, into, at, Math.min(length, 3), position);
  };
  return { ...actual, readSync };
});

test('they go on where they were', () => {
  const path = join(scratch(), 'base.img');
  writeFileSync(path, 'abcdefghij');
  const fd = openSync(path, 'r');
  const into = Buffer.alloc(10);
  expect(new Base({ fd, sizeBytes: 10, hasHoles: false }).read(1, 9, into, 1)).toBe(0);
  expect(into.toString()).toBe('\0bcdefghij');
  expect(calls.count).toBe(6);
  closeSync(fd);
});
