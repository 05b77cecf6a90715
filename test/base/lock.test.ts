import { closeSync, openSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { lockBase } from '../../src/base/lock.ts';
import { CowfsError } from '../../src/lib/error.ts';
import { lockHeldByOther, lockShared } from '../../src/sys/libc.ts';
import { makeBase, scratch } from '../harness.ts';

/** Bytes that QEMU locks: 100 and the permission that is used, 200 and the one that nobody else may use. */
const USES = { read: 100, write: 101, resize: 103 } as const;
const FORBIDS = { read: 200, write: 201, resize: 203 } as const;

function open(path: string): number {
  const fd = openSync(path, 'r');
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** Another program's open file description, with these bytes locked. */
function otherProgram(path: string, ...bytes: readonly number[]): number {
  const fd = open(path);
  for (const byte of bytes) expect(lockShared(fd, byte, 1)).toBe(0);
  return fd;
}

function refusalOf(act: () => unknown): CowfsError | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof CowfsError) return error;
    throw error;
  }
  return undefined;
}

test('says what we use and what nobody may do, byte by byte', () => {
  const path = makeBase(scratch(), 4097);
  expect(lockBase(path, open(path), false)).toEqual([]);
  const other = open(path);
  const held = Array.from({ length: 400 }, (_, byte) => byte).filter((byte) => lockHeldByOther(other, byte, 1) === 1);
  expect(held).toEqual([USES.read, FORBIDS.write, FORBIDS.resize]);
});

describe('who has the base already', () => {
  test.each([
    ['a writer', [USES.read, USES.write, FORBIDS.write], true],
    ['one that resizes it', [USES.resize], true],
    ['one whose data is not consistent until it is done', [FORBIDS.read], true],
    ['a reader, such as another cowfs', [USES.read, FORBIDS.write, FORBIDS.resize], false],
    ['one that uses other permissions', [102, 104, 202, 204, 99, 105, 199, 205], false],
  ])('%s', (_, bytes, refused) => {
    const path = makeBase(scratch(), 4097);
    otherProgram(path, ...bytes);
    const refusal = refusalOf(() => lockBase(path, open(path), false));
    expect(refusal?.kind).toBe(refused ? 'refused' : undefined);
    if (refused) {
      expect(refusal?.message).toBe(
        `${path} is in use for writing (another program); stop it first, or insist with --force`,
      );
    }
    const warnings = lockBase(path, open(path), true);
    expect(warnings).toEqual(
      refused
        ? [
            `${path} is in use for writing (another program); going on because of --force: ` +
              'what it writes may show through',
          ]
        : [],
    );
  });
});

test('a writer that comes later finds us: it may neither write nor resize', () => {
  const path = makeBase(scratch(), 4097);
  const fd = openSync(path, 'r');
  lockBase(path, fd, false);
  const writer = open(path);
  // As raw_check_lock_bytes asks.
  expect([lockHeldByOther(writer, FORBIDS.write, 1), lockHeldByOther(writer, FORBIDS.resize, 1)]).toEqual([1, 1]);
  closeSync(fd);
  expect([lockHeldByOther(writer, FORBIDS.write, 1), lockHeldByOther(writer, FORBIDS.resize, 1)]).toEqual([0, 0]);
});

test('a file that cannot be locked is a warning, no refusal', () => {
  expect(lockBase('base.img', 1_000_000, false)).toEqual([
    'base.img: the file system has no locks (EBADF); make sure that nothing writes to it',
  ]);
});
