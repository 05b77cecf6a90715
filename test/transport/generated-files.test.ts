import { constants } from 'node:os';
import { describe, expect, test, vi } from 'vitest';
import { GeneratedFiles } from '../../src/transport/generated-files.ts';

const { EBADF, EIO, ENOSPC } = constants.errno;

function newFiles(generate: () => Promise<string>) {
  const report = vi.fn<(error: unknown) => void>();
  return { files: new GeneratedFiles(generate, report), report };
}

function textOf(files: GeneratedFiles, handle: number, offset: number, length: number): string | undefined {
  const bytes = files.read(handle, offset, length);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('utf8');
}

test('each open has the content of its moment, and keeps it', async () => {
  let moment = 0;
  const { files, report } = newFiles(async () => `moment ${++moment}`);
  const [first, second] = [await files.open(), await files.open()];
  expect([first.errno, second.errno, first.handle > 0, first.handle === second.handle]).toEqual([0, 0, true, false]);
  expect([textOf(files, first.handle, 0, 99), textOf(files, second.handle, 0, 99)]).toEqual(['moment 1', 'moment 2']);
  expect(files.release(first.handle)).toBe(0);
  expect([textOf(files, first.handle, 0, 99), textOf(files, second.handle, 0, 99)]).toEqual([undefined, 'moment 2']);
  expect(report).not.toHaveBeenCalled();
});

describe('a part', () => {
  test.each([
    [0, 3, 'grö'.slice(0, 2)],
    [4, 100, 'ßer'],
    [8, 100, ''],
    [100, 100, ''],
    [Number.POSITIVE_INFINITY, 100, ''],
    [0, 0, ''],
  ])('from %d on, at most %d bytes: %j', async (offset, length, expected) => {
    const { files } = newFiles(async () => 'größer');
    const { handle } = await files.open();
    const bytes = Buffer.from(files.read(handle, offset, length) ?? 'none');
    // A part of a character is a part of one.
    expect(bytes.toString('utf8').replace('\ufffd', '')).toBe(expected);
    expect(bytes.length).toBeLessThanOrEqual(length);
  });
});

test('a handle that is none, or was released, is EBADF', async () => {
  const { files } = newFiles(async () => 'x');
  const { handle } = await files.open();
  files.release(handle);
  for (const stale of [handle, 0, -1, 77, Number.POSITIVE_INFINITY]) {
    expect([files.read(stale, 0, 1), files.release(stale)]).toEqual([undefined, EBADF]);
  }
});

test.each<[string, unknown, number]>([
  ['a bug', new TypeError('x is not a function'), EIO],
  ['a system error', Object.assign(new Error('no space'), { errno: -ENOSPC }), ENOSPC],
])('%s while it is written is its errno, told once, and leaves no handle', async (_, error, errno) => {
  const { files, report } = newFiles(() => Promise.reject(error));
  expect(await files.open()).toEqual({ errno, handle: 0 });
  expect(report).toHaveBeenCalledExactlyOnceWith(error);
  expect(files.read(0, 0, 1)).toBe(undefined);
});
