import { expect, test } from 'vitest';
import type { NodeId } from '../../../src/fs/node.ts';
import { OpenHandles } from '../../../src/transport/fuse-native/open-handles.ts';

const DISK = { name: 'disk.raw', node: 2 as NodeId, flags: 0o100002 };
const OTHER = { name: 'other', node: 3 as NodeId, flags: 0 };
const LAST = 2 ** 31 - 1;

test('a number stands for its file until it is taken back; 0 is nobody’s', () => {
  const handles = new OpenHandles();
  expect(handles.get(0)).toBe(undefined);
  const [first, second] = [handles.add(DISK), handles.add(OTHER)];
  expect([first, second]).not.toContain(0);
  expect(first).not.toBe(second);
  expect([handles.get(first), handles.get(second), handles.get(0)]).toEqual([DISK, OTHER, undefined]);
  expect(handles.take(first)).toBe(DISK);
  expect([handles.take(first), handles.get(first), handles.get(second)]).toEqual([undefined, undefined, OTHER]);
});

test('the same file opened twice has two numbers, and the first release leaves the second', () => {
  const handles = new OpenHandles();
  const [first, second] = [handles.add(DISK), handles.add(DISK)];
  expect(first).not.toBe(second);
  handles.take(first);
  expect(handles.get(second)).toBe(DISK);
});

test('a number that was given back is not the next one: a late release would hit its successor', () => {
  const handles = new OpenHandles();
  const first = handles.add(DISK);
  handles.take(first);
  expect(handles.add(DISK)).not.toBe(first);
});

test('behind the last number that the addon can carry come those that are free again: never 0, never one in use', () => {
  const handles = new OpenHandles();
  expect([handles.add(DISK), handles.add(OTHER), handles.add(DISK)]).toEqual([1, 2, 3]);
  handles.take(2);
  // A map that claims to hold all the others makes the way there short enough to go.
  const { has } = Map.prototype;
  Map.prototype.has = (number: number) => number < LAST;
  let last: number;
  try {
    last = handles.add(DISK);
  } finally {
    Map.prototype.has = has;
  }
  expect(last).toBe(LAST);
  expect(handles.add(OTHER)).toBe(2);
  expect([1, 2, 3, LAST].map((number) => handles.get(number))).toEqual([DISK, OTHER, DISK, DISK]);
}, 60_000);
