import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { HANGUP_INTERVAL_MS, untilHangup } from '../../../src/transport/fuse-native/hangup.ts';
import { must, scratch } from '../../harness.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A descriptor whose other side is there until it is told to leave: a pipe with a name, as both ends are needed. */
function pipeEnds(): { fd: number; leave: () => void } {
  const path = join(scratch(), 'pipe');
  must('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const other = openSync(path, 'w');
  onTestFinished(() => closeSync(fd));
  return { fd, leave: () => closeSync(other) };
}

test('resolves when the other side is gone, not before, and looks no more', async () => {
  const { fd, leave } = pipeEnds();
  const resolved = vi.fn<() => void>();
  untilHangup(fd).then(resolved);
  await vi.advanceTimersByTimeAsync(20 * HANGUP_INTERVAL_MS);
  expect(resolved).not.toHaveBeenCalled();
  leave();
  await vi.advanceTimersByTimeAsync(HANGUP_INTERVAL_MS);
  expect(resolved).toHaveBeenCalledOnce();
  expect(vi.getTimerCount()).toBe(0);
});

test('a descriptor that is closed is gone', async () => {
  const resolved = vi.fn<() => void>();
  untilHangup(1_000_000).then(resolved);
  await vi.advanceTimersByTimeAsync(HANGUP_INTERVAL_MS);
  expect(resolved).toHaveBeenCalledOnce();
});

test('a number that is another file’s by now is gone, too', async () => {
  const directory = scratch();
  writeFileSync(join(directory, 'old'), '');
  writeFileSync(join(directory, 'new'), '');
  const fd = openSync(join(directory, 'old'), 'r');
  const resolved = vi.fn<() => void>();
  untilHangup(fd).then(resolved);
  await vi.advanceTimersByTimeAsync(2 * HANGUP_INTERVAL_MS);
  expect(resolved).not.toHaveBeenCalled();
  closeSync(fd);
  expect(openSync(join(directory, 'new'), 'r')).toBe(fd);
  onTestFinished(() => closeSync(fd));
  await vi.advanceTimersByTimeAsync(HANGUP_INTERVAL_MS);
  expect(resolved).toHaveBeenCalledOnce();
});
