/** `cowfs reset --force` under open handles and mappings: no stale byte is read anywhere, and none comes back. */
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { must, mustCowfs, poll, start } from '../harness.ts';
import { inChild } from './fuse-native-support.ts';
import { said } from './machine-support.ts';
import {
  ALL_MODES,
  diskStatus,
  expectContent,
  filled,
  KERNEL_MODES,
  mountSessions,
  opened,
  patched,
  put,
  WRITEBACK,
} from './sessions-support.ts';

const BASE_BYTES = 300_001;

/** Reads in every way that there is, in a process of its own that has had the disk open and mapped since before. */
const READERS = `
  const [path, mapped] = args;
  const bytes = fs.statSync(path).size;
  const fd = fs.openSync(path, 'r+');
  const direct = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  const address = mapped === 'yes' ? calls.mmap(fd, 0, 65536) : 0;
  const hash = (data) => Buffer.from(data.subarray(0, 12)).toString('hex') + '/' + Buffer.from(data.subarray(61000, 61012)).toString('hex');
  const all = () => {
    const ways = {};
    const plain = Buffer.alloc(65536);
    fs.readSync(fd, plain, 0, 65536, 0);
    ways.read = hash(plain);
    const page = calls.aligned(65536);
    fs.readSync(direct, page, 0, 65536, 0);
    ways.direct = hash(page);
    if (mapped === 'yes') {
      const copy = Buffer.alloc(65536);
      calls.load(copy, address);
      ways.mapped = hash(copy);
    }
    const again = fs.openSync(path, 'r');
    fs.readSync(again, plain, 0, 65536, 0);
    fs.closeSync(again);
    ways.opened = hash(plain);
    ways.size = fs.fstatSync(fd).size;
    return ways;
  };
  console.log('before ' + JSON.stringify(all()));
  process.stdin.once('data', () => { console.log('after ' + JSON.stringify(all())); process.exit(0); });
`;

test.for(ALL_MODES)(
  '$name: --force under open handles and mappings: no way of reading finds a stale byte',
  async (mode, context) => {
    const { disk, original } = mountSessions(mode, context);
    const written = filled(7, 280_000);
    put(disk, 0, written);
    const mapped = mode.name === 'fuse-native, none' ? 'no' : 'yes';
    const reader = startReader(disk, mapped);
    const before = await said(reader, /before .*\n/);
    const mark = (content: Buffer): string =>
      `${content.subarray(0, 12).toString('hex')}/${content.subarray(61_000, 61_012).toString('hex')}`;
    expect(before).toContain(mark(written));
    const here = opened(disk);
    expectContent(here, patched(original, [0, written]));
    mustCowfs(['reset', '--force', disk]);
    reader.stdin?.write('go\n');
    const after = await said(reader, /after .*\n/);
    const ways = { read: mark(original), direct: mark(original), opened: mark(original), size: BASE_BYTES };
    expect(JSON.parse(after.slice(after.indexOf('{')))).toEqual(
      mapped === 'yes' ? { ...ways, mapped: mark(original) } : ways,
    );
    expectContent(here, original);
    expectContent(disk, original);
    must('cmp', [disk, disk]);
    writeSync(here, Buffer.from('goes on'), 0, 7, 100_000);
    fsyncSync(here);
    expectContent(disk, patched(original, [100_000, Buffer.from('goes on')]));
  },
);

function startReader(disk: string, mapped: string): ReturnType<typeof start> {
  const calls = new URL('../system-calls.mjs', import.meta.url).href;
  const program = `
    import * as fs from 'node:fs';
    const calls = await import(${JSON.stringify(calls)});
    const args = process.argv.slice(1);
    ${READERS}`;
  return start(process.execPath, ['--input-type=module', '-e', program, '--', disk, mapped], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

test.for(KERNEL_MODES)('$name: --force throws away what write(2) took and nobody has synced', (mode, context) => {
  const { disk, original } = mountSessions(mode, context);
  const fd = opened(disk);
  writeSync(fd, filled(4, 100_000), 0, 100_000, 10);
  writeSync(fd, filled(5, 100_000), 0, 100_000, 290_000);
  expect(fstatSync(fd).size).toBe(390_000);
  mustCowfs(['reset', '--force', disk]);
  expect(fstatSync(fd).size).toBe(BASE_BYTES);
  expectContent(fd, original);
  fsyncSync(fd);
  expectContent(disk, original);
  ftruncateSync(fd, 310_000);
  expectContent(disk, patched(Buffer.alloc(310_000), [0, original]));
  closeSync(fd);
  expectContent(disk, patched(Buffer.alloc(310_000), [0, original]));
});

test.for(KERNEL_MODES)('$name: dirty pages of a mapping do not come back after --force', (mode, context) => {
  const { disk, original } = mountSessions(mode, context);
  const seen = inChild<string[]>(
    `const { execFileSync } = await import('node:child_process');
     const [path, cli] = args;
     const fd = fs.openSync(path, 'r+');
     const address = calls.mmap(fd, 0, 65536);
     for (let at = 0; at < 65536; at += 4096) calls.store(address + at + 5, Buffer.from('dirty'));
     execFileSync(cli, ['reset', '--force', path]);
     const texts = [];
     const look = () => { const into = Buffer.alloc(5); calls.load(into, address + 40965); texts.push(into.toString('hex')); };
     look();
     calls.msync(address, 65536);
     fs.fsyncSync(fd);
     look();
     calls.store(address + 8192, Buffer.from('fresh'));
     calls.msync(address, 65536);
     console.log(JSON.stringify(texts));`,
    disk,
    new URL('../../bin/cowfs', import.meta.url).pathname,
  );
  const expected = original.subarray(40_965, 40_970).toString('hex');
  expect(seen).toEqual([expected, expected]);
  expectContent(disk, patched(original, [8192, Buffer.from('fresh')]));
});

test('writers go on while their disk is reset again and again: what is written after the last one is there', async () => {
  const { disk, original } = mountSessions(WRITEBACK, undefined);
  const writer = start('sh', [
    '-c',
    'while dd if=/dev/zero of="$0" bs=4k count=20 conv=notrunc status=none; do echo round; done',
    disk,
  ]);
  await said(writer, 'round');
  for (let round = 0; round < 8; round++) mustCowfs(['reset', '--force', disk]);
  writer.kill('SIGKILL');
  await poll('the writer is gone', () => writer.exitCode !== null || writer.signalCode !== null);
  mustCowfs(['reset', '--force', disk]);
  // A dd that the shell left behind may end a moment later.
  await poll('nothing is open', async () => diskStatus(disk.replace('/disk.raw', ''), 'disk.raw').openHandles === 0);
  mustCowfs(['reset', disk]);
  expectContent(disk, original);
  const fd = openSync(disk, 'r');
  const into = Buffer.alloc(100);
  readSync(fd, into, 0, 100, 0);
  closeSync(fd);
  expect(into.equals(original.subarray(0, 100))).toBe(true);
});
