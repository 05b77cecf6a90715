/** What a mount writes down: a log as JSON lines, requests with --trace, readable words on the terminal. */
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { COWFS, cowfs, exitOf, makeBase, makeMountpoint, mountDisk, mustCowfs, scratch, start } from '../harness.ts';
import { said } from './machine-support.ts';

interface LogLine {
  readonly level: number;
  readonly time: number;
  readonly pid: number;
  readonly msg: string;
}

function logLines(file: string): LogLine[] {
  const text = readFileSync(file, 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as LogLine);
}

test('--log-file holds JSON lines from the mount to the unmount, for this user alone, and is appended to', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const log = join(directory, 'cowfs.log');
  for (const round of [1, 2]) {
    const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--log-file', log]);
    readFileSync(disk);
    mustCowfs(['unmount', mountpoint]);
    const lines = logLines(log);
    for (const line of lines) {
      expect(line).toMatchObject({ level: expect.any(Number), time: expect.any(Number), pid: expect.any(Number) });
      expect(line.msg).toMatch(/\w/);
    }
    expect(lines.filter(({ msg }) => msg.includes(base) && msg.includes(disk))).toHaveLength(round);
    expect(lines.filter(({ msg }) => msg === 'unmounted')).toHaveLength(round);
    expect(lines.some(({ level }) => level < 30)).toBe(false);
  }
  expect(statSync(log).mode & 0o777).toBe(0o600);
});

test('--log-level says how much is logged', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const log = join(directory, 'cowfs.log');
  const { mountpoint } = mountDisk(base, makeMountpoint(directory), ['--log-file', log, '--log-level', 'warn']);
  mustCowfs(['unmount', mountpoint]);
  expect(readFileSync(log, 'utf8')).toBe('');
});

test('--trace logs each request and its reply as a person would read them', () => {
  const directory = scratch();
  const base = makeBase(directory, 1_000_000);
  const log = join(directory, 'trace.log');
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), ['--trace', '--log-file', log]);
  const fd = openSync(disk, 'r');
  readSync(fd, Buffer.alloc(4096), 0, 4096, 40_960);
  closeSync(fd);
  expect(() => readFileSync(join(mountpoint, 'none'))).toThrow('ENOENT');
  mustCowfs(['unmount', mountpoint]);
  const messages = logLines(log).map(({ msg }) => msg);
  const read = messages.find((message) => / READ /.test(message)) ?? '';
  const [, number] = /^rx (\d+) READ disk\.raw off=\d+ len=\d+$/.exec(read) ?? [];
  expect(number, read).toBeDefined();
  const reply = messages.find((message) => message.startsWith(`tx ${number} `)) ?? '';
  expect(reply).toMatch(/^tx \d+ OK \d+ B \d+(\.\d+)? ms$/);
  expect(messages.some((message) => /^rx \d+ LOOKUP \/ name="none"$/.test(message))).toBe(true);
  expect(messages.some((message) => /^tx \d+ ENOENT /.test(message))).toBe(true);
  // Every request that wants a reply has one, and no reply came unasked.
  const numbers = (direction: string): string[] =>
    messages
      .filter((message) => message.startsWith(`${direction} `) && !/FORGET|INTERRUPT|DESTROY/.test(message))
      .map((message) => message.split(' ')[1] ?? '');
  expect(new Set(numbers('tx'))).toEqual(new Set([...numbers('tx'), ...numbers('rx')]));
});

test('in the foreground the log is words on standard error, and the disk alone on standard output', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const child = start(COWFS, ['mount', '--foreground', '--trace', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  expect(await said(child, '\n')).toBe(`${mountpoint}/disk.raw\n`);
  readFileSync(`${mountpoint}/disk.raw`);
  const ended = exitOf(child);
  mustCowfs(['unmount', mountpoint]);
  expect(await ended).toBe(0);
  expect(errors).toMatch(/\d\d:\d\d:\d\d.*rx \d+ READ disk\.raw off=0 len=\d+/);
  expect(errors).not.toMatch(/^\{/m);
});

test('a background mount says nothing and keeps no pipe of its caller open', () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const mountpoint = makeMountpoint(directory);
  const startMs = performance.now();
  // Ends only when every holder of the pipe has closed it.
  const { stdout, stderr } = cowfs(['mount', base, mountpoint]);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
  });
  expect(performance.now() - startMs).toBeLessThan(20_000);
  expect({ stdout, stderr }).toEqual({ stdout: `${mountpoint}/disk.raw\n`, stderr: '' });
});
