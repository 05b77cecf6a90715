/** What a mount through fuse-native writes down, and by it the size of the requests that the kernel sends. */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { makeBase, makeMountpoint, mountDisk, must, mustCowfs, scratch } from '../harness.ts';
import { FUSE_NATIVE, needsFuseNative } from './fuse-native-support.ts';

const KIB = 1024;

beforeEach(needsFuseNative);

/** What is logged of a mount of 1 MiB while it is used. */
function messagesOf(options: readonly string[], use: (disk: string) => void): string[] {
  const directory = scratch();
  const log = join(directory, 'cowfs.log');
  const base = makeBase(directory, 1024 * KIB);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), [
    ...FUSE_NATIVE,
    '--log-file',
    log,
    ...options,
  ]);
  use(disk);
  mustCowfs(['unmount', mountpoint]);
  expect(statSync(log).mode & 0o777).toBe(0o600);
  const text = readFileSync(log, 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

/** Requests of a kind as `offset+length`. */
function ranges(messages: readonly string[], name: string): string[] {
  const pattern = new RegExp(`^rx \\d+ ${name} disk\\.raw off=(\\d+) len=(\\d+)$`);
  return messages.flatMap((message) => {
    const [, offset, length] = pattern.exec(message) ?? [];
    return offset === undefined ? [] : [`${offset}+${length}`];
  });
}

test('the log goes from the mount to the unmount', () => {
  const messages = messagesOf([], (disk) => readFileSync(disk));
  expect(messages[0]).toMatch(/base\.img.*disk\.raw|disk\.raw.*base\.img/);
  expect(messages.at(-1)).toBe('unmounted');
  expect(messages.some((message) => message.startsWith('rx '))).toBe(false);
});

test('--trace logs each request and its answer as a person would read them', () => {
  const messages = messagesOf(['--trace'], (disk) => {
    readFileSync(disk);
    expect(() => readFileSync(`${disk}2`)).toThrow('ENOENT');
  });
  const [read = ''] = messages.filter((message) => / READ /.test(message));
  const [, number] = /^rx (\d+) READ disk\.raw off=0 len=131072$/.exec(read) ?? [];
  expect(number, read).toBeDefined();
  expect(messages.find((message) => message.startsWith(`tx ${number} `))).toMatch(/^tx \d+ OK 131072 B \d+\.\d ms$/);
  const lookup = messages.find((message) => /^rx \d+ GETATTR disk\.raw2$/.test(message)) ?? '';
  const [, asked] = /^rx (\d+)/.exec(lookup) ?? [];
  expect(messages.some((message) => message.startsWith(`tx ${asked} ENOENT `))).toBe(true);
  // Served one at a time, so each answer follows its request.
  const requests = messages.filter((message) => /^[rt]x /.test(message));
  requests.forEach((message, index) => {
    expect(message).toMatch(new RegExp(`^${index % 2 === 0 ? 'rx' : 'tx'} ${Math.floor(index / 2) + 1} `));
  });
});

test('writes arrive in requests of 128 KiB, not page by page', () => {
  const messages = messagesOf(['--trace'], (disk) => {
    const fd = openSync(disk, 'r+');
    writeSync(fd, Buffer.alloc(512 * KIB, 7), 0, 512 * KIB, 128 * KIB);
    closeSync(fd);
  });
  expect(ranges(messages, 'WRITE')).toEqual(['131072+131072', '262144+131072', '393216+131072', '524288+131072']);
});

test('reads without the page cache arrive in requests of 128 KiB', () => {
  // dd(1) reads into whole pages; memory that begins within one would take a request more.
  const messages = messagesOf(['--trace', '--cache', 'none'], (disk) => {
    must('dd', [`if=${disk}`, 'of=/dev/null', 'bs=256k', 'count=1', 'status=none']);
  });
  expect(ranges(messages, 'READ')).toEqual(['0+131072', '131072+131072']);
});

test('a small write is a small request, written through at once', () => {
  const messages = messagesOf(['--trace'], (disk) => {
    const fd = openSync(disk, 'r+');
    writeSync(fd, Buffer.alloc(10, 7), 0, 10, 5000);
    closeSync(fd);
  });
  expect(ranges(messages, 'WRITE')).toEqual(['5000+10']);
});
