/** What write(2) took before a command was called is seen by it, although the kernel has not written it back yet. */
import { fstatSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { MountStatus } from '../../src/daemon/status.ts';
import { COWFS, listMounts, must, mustCowfs, poll, start, statusOf } from '../harness.ts';
import { said } from './machine-support.ts';
import {
  BLOCK,
  expectContent,
  filled,
  KERNEL_MODES,
  make,
  mountSessions,
  opened,
  patched,
  statusNow,
  WRITEBACK,
} from './sessions-support.ts';

function statusFile(mountpoint: string): MountStatus {
  return JSON.parse(readFileSync(join(mountpoint, '.cowfs/status.json'), 'utf8')) as MountStatus;
}

test.for(KERNEL_MODES)('$name: status, list and status.json count it, and know the end', (mode, context) => {
  const { mountpoint, at } = mountSessions(mode, context, ['--empty']);
  const ways: [name: string, ask: () => MountStatus | undefined][] = [
    ['status', () => statusOf(mountpoint)],
    ['list', () => listMounts().find((mount) => mount.mountpoint === mountpoint)],
    ['status.json', () => statusFile(mountpoint)],
    ['cat', () => JSON.parse(must('cat', [at('.cowfs/status.json')])) as MountStatus],
  ];
  for (const [index, [name, ask]] of ways.entries()) {
    const path = at(`${index}.raw`);
    make(path);
    const fd = opened(path);
    writeSync(fd, filled(1, 20 * BLOCK), 0, 20 * BLOCK, 3 * BLOCK);
    writeSync(fd, filled(2, 5000), 0, 5000, 500_000);
    const seen = ask()?.disks.find((disk) => disk.path === path);
    const blocks = 20 + Math.ceil(505_000 / BLOCK) - Math.floor(500_000 / BLOCK);
    expect({ name, ...seen }).toMatchObject({ name: `${index}.raw`, size: 505_000, openHandles: 1 });
    // The block of the old end may have been filled up with zeros.
    expect(seen?.writtenBytes).toBeGreaterThanOrEqual(blocks * BLOCK);
    expect(seen?.writtenBytes).toBeLessThanOrEqual((blocks + 1) * BLOCK);
    expect(fstatSync(fd).size, name).toBe(505_000);
  }
});

test('of a disk that was removed while open, too', () => {
  const { mountpoint, at } = mountSessions(WRITEBACK, undefined, ['--empty']);
  make(at('a.raw'));
  const fd = opened(at('a.raw'));
  unlinkSync(at('a.raw'));
  writeSync(fd, filled(1, 20 * BLOCK), 0, 20 * BLOCK, 0);
  expect(statusOf(mountpoint).disks).toMatchObject([{ removed: true, writtenBytes: 20 * BLOCK }]);
  writeSync(fd, filled(1, 10 * BLOCK), 0, 10 * BLOCK, 30 * BLOCK);
  expect(statusFile(mountpoint).disks).toMatchObject([{ removed: true, writtenBytes: 30 * BLOCK }]);
});

test.for(['fork', 'snapshot'])(
  '%s amid writes: all that a writer was told of before is in it, and nothing torn',
  async (verb) => {
    const { disk, at, original } = mountSessions(WRITEBACK, undefined);
    // Numbers the blocks in turn, again and again; says each number after write(2) took it.
    const writer = start(process.execPath, [
      '-e',
      `const fs = require('node:fs');
       const fd = fs.openSync(${JSON.stringify(disk)}, 'r+');
       let number = 0;
       (function next() {
         for (let count = 0; count < 50; count++) {
           number += 1;
           const block = Buffer.alloc(4096);
           for (let at = 0; at < 4096; at += 4) block.writeUInt32LE(number, at);
           fs.writeSync(fd, block, 0, 4096, (number % 64) * 4096);
         }
         fs.writeSync(1, number + '\\n');
         setTimeout(next, 1);
       })();`,
    ]);
    let told = 0;
    let rest = '';
    writer.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      told = Math.max(told, ...lines.map(Number));
    });
    await poll('it has been once round', () => told > 200);
    for (let round = 0; round < 5; round++) {
      const before = told;
      const name = `${round}.raw`;
      if (verb === 'fork') await poll('forked', () => runsWell(['fork', disk, at(name)]));
      else mustCowfs(['snapshot', disk, name]);
      await poll('it goes on', () => told > before + 200);
      if (verb === 'fork') expectNumbers(readFileSync(at(name)), before);
      else {
        mustCowfs(['fork', disk, at(`present-${name}`)]);
        // Only a disk that is closed goes back: one with the same snapshot cannot be made, so it is checked at the end.
        expectNumbers(readFileSync(at(`present-${name}`)), before);
      }
      expect((await statusNow(disk.replace('/disk.raw', ''))).disks.length).toBe(round + 2);
    }
    const last = told;
    writer.kill('SIGKILL');
    await poll('it is gone', () => writer.signalCode !== null);
    expectNumbers(readFileSync(disk), last);
    if (verb === 'snapshot') {
      for (let round = 4; round >= 0; round--) {
        mustCowfs(['rollback', disk, `${round}.raw`]);
        expectNumbers(readFileSync(disk), 200);
      }
      mustCowfs(['reset', disk]);
      expectContent(disk, original);
    }
  },
);

function runsWell(args: readonly string[]): boolean {
  mustCowfs(args);
  return true;
}

/** Every block has one number throughout, and none is older than what was there a round before `told`. */
function expectNumbers(content: Buffer, told: number): void {
  const numbers: number[] = [];
  for (let block = 0; block < 64; block++) {
    const first = content.readUInt32LE(block * BLOCK);
    for (let at = 4; at < BLOCK; at += 4) {
      if (content.readUInt32LE(block * BLOCK + at) !== first) expect.unreachable(`block ${block} is torn at ${at}`);
    }
    expect(first % 64).toBe(block);
    numbers.push(first);
  }
  expect(Math.min(...numbers)).toBeGreaterThan(told - 64);
}

test('of two commands at once on one disk that is written to, both see all of it', async () => {
  const { disk, at, original } = mountSessions(WRITEBACK, undefined);
  const fd = opened(disk);
  writeSync(fd, filled(1, 100_000), 0, 100_000, 10);
  const children = ['a.raw', 'b.raw', 'c.raw'].map((name) => start(COWFS, ['fork', disk, at(name)]));
  await poll('they are done', () => children.every((child) => child.exitCode !== null), 60_000);
  expect(children.map((child) => child.exitCode)).toEqual([0, 0, 0]);
  for (const name of ['a.raw', 'b.raw', 'c.raw']) expectContent(at(name), patched(original, [10, filled(1, 100_000)]));
});

test('a fork waits for the kernel, not for its writers: a full store that holds writes is told, in one line or waited for', async () => {
  const { disk, at, mountpoint } = mountSessions(WRITEBACK, undefined, [
    '--max-store',
    '64K',
    '--enospc-timeout',
    '2s',
  ]);
  const writer = start(process.execPath, [
    '-e',
    `const fs = require('node:fs');
     const fd = fs.openSync(${JSON.stringify(disk)}, 'r+');
     fs.writeSync(fd, Buffer.alloc(200_000, 1), 0, 200_000, 0);
     console.log('written');
     setInterval(() => {}, 1000);`,
  ]);
  await said(writer, 'written');
  const child = start(COWFS, ['fork', disk, at('b.raw')]);
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await poll('it is done', () => child.exitCode !== null, 60_000);
  await poll('all is said', () => child.stderr?.readableEnded === true);
  expect(child.exitCode).toBe(1);
  expect(stderr).toMatch(/^cowfs: [^\n]+\n$/);
  expect((await statusNow(mountpoint)).disks.map(({ name }) => name)).toEqual(['disk.raw']);
});
