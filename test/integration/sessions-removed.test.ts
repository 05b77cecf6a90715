/** Disks that are removed while they are open: they live on without a name, to the last close, and then leave nothing. */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { mustCowfs, poll, run, scratch, start } from '../harness.ts';
import { inChild } from './fuse-native-support.ts';
import { freeBytes, needsRoot, said, tmpfs } from './machine-support.ts';
import { expectNothingLeft, FREE_WITHIN_MS } from './nothing-left-support.ts';
import {
  ALL_MODES,
  diskStatus,
  expectContent,
  filled,
  KERNEL_MODES,
  MIB,
  make,
  mountSessions,
  opened,
  patched,
  put,
  statusNow,
  TRANSPORT_MODES,
  untilOnly,
  untilStores,
} from './sessions-support.ts';

const { O_CREAT, O_RDWR } = constants;

/** All of an open file, past the page cache of nobody: through its own descriptor. */
function contentOf(fd: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  for (let done = 0; done < bytes.length; ) done += readSync(fd, bytes, done, bytes.length - done, done);
  return bytes;
}

test.for(ALL_MODES)(
  '$name: reads, writes, fsync and ftruncate go on; its name is free at once',
  async (mode, context) => {
    const { mountpoint, original, at, pid } = mountSessions(mode, context, ['--empty']);
    const fd = opened(at('a.raw'), O_CREAT | O_RDWR);
    const before = fstatSync(fd).ino;
    writeSync(fd, filled(1, 10_000), 0, 10_000, 5000);
    unlinkSync(at('a.raw'));
    expect(readdirSync(mountpoint)).not.toContain('a.raw');
    if (mode.transport === 'kernel') expect(fstatSync(fd)).toMatchObject({ nlink: 0, ino: before });

    make(at('a.raw'));
    expectContent(at('a.raw'), original);
    put(at('a.raw'), 0, filled(9, 5000));
    writeSync(fd, filled(2, 70_000), 0, 70_000, 290_000);
    fsyncSync(fd);
    const first = patched(original, [5000, filled(1, 10_000)], [290_000, filled(2, 70_000)]);
    expect(contentOf(fd).equals(first)).toBe(true);
    ftruncateSync(fd, 100_000);
    fdatasyncSync(fd);
    ftruncateSync(fd, 200_000);
    expect(contentOf(fd).equals(patched(Buffer.alloc(200_000), [0, first.subarray(0, 100_000)]))).toBe(true);
    expectContent(at('a.raw'), patched(original, [0, filled(9, 5000)]));
    if (mode.transport === 'kernel') {
      expect(statSync(at('a.raw')).ino).not.toBe(before);
      const gone = (await statusNow(mountpoint)).disks.filter(({ removed }) => removed);
      expect(gone).toMatchObject([{ openHandles: 1, size: 200_000, removed: true }]);
    }

    closeSync(fd);
    await untilOnly(mountpoint, ['a.raw'], 8192);
    await untilStores(pid, 1);
    unlinkSync(at('a.raw'));
    await untilOnly(mountpoint, [], 0);
    await untilStores(pid, 0);
  },
);

test.for(KERNEL_MODES)('$name: mappings of it go on, and are seen by reads of other handles', async (mode, context) => {
  const { mountpoint, original, at } = mountSessions(mode, context, ['--empty']);
  make(at('m.raw'));
  const result = inChild<{ seen: string; far: string; after: string; nlink: number }>(
    `const [path] = args;
     const fd = fs.openSync(path, 'r+');
     const second = fs.openSync(path, 'r');
     const address = calls.mmap(fd, 0, 65536);
     fs.unlinkSync(path);
     calls.store(address + 5000, Buffer.from('mapped'));
     calls.msync(address, 65536);
     const seen = Buffer.alloc(6);
     fs.readSync(second, seen, 0, 6, 5000);
     const far = Buffer.alloc(6);
     calls.load(far, address + 60000);
     const { nlink } = fs.fstatSync(fd);
     fs.closeSync(fd);
     fs.closeSync(second);
     calls.store(address + 9000, Buffer.from('closed'));
     calls.msync(address, 65536);
     const after = Buffer.alloc(6);
     calls.load(after, address + 9000);
     const text = (bytes) => bytes.toString('latin1');
     console.log(JSON.stringify({ seen: text(seen), far: text(far), after: text(after), nlink }));`,
    at('m.raw'),
  );
  const far = original.subarray(60_000, 60_006).toString('latin1');
  expect(result).toEqual({ seen: 'mapped', far, after: 'closed', nlink: 0 });
  await untilOnly(mountpoint, [], 0);
});

test.for(KERNEL_MODES)(
  '$name: SEEK_DATA and SEEK_HOLE after cached appends past the end of the removed disk',
  (mode, context) => {
    const { original, at } = mountSessions(mode, context, ['--empty']);
    make(at('s.raw'));
    const end = original.length + 200_000;
    const result = inChild<Record<string, number | string>>(
      `const [path, last, end] = args.map((arg, index) => (index === 0 ? arg : Number(arg)));
       const fd = fs.openSync(path, 'r+');
       fs.unlinkSync(path);
       fs.writeSync(fd, Buffer.alloc(100_000, 7), 0, 100_000, end - 100_000);
       const results = {
         size: fs.fstatSync(fd).size,
         first: outcome(() => calls.lseek(fd, 0, calls.SEEK_DATA)),
         data: outcome(() => calls.lseek(fd, end - 10, calls.SEEK_DATA)),
         hole: outcome(() => calls.lseek(fd, end - 10, calls.SEEK_HOLE)),
         past: outcome(() => calls.lseek(fd, end, calls.SEEK_DATA)),
         blocks: fs.fstatSync(fd).blocks > 0,
       };
       const into = Buffer.alloc(50);
       results.bytes = fs.readSync(fd, into, 0, 50, end - 20) + ' ' + into[19];
       console.log(JSON.stringify(results));`,
      at('s.raw'),
      String(original.length),
      String(end),
    );
    expect(result).toEqual({
      size: end,
      first: 0,
      data: end - 10,
      hole: end,
      past: 'ENXIO',
      blocks: true,
      bytes: '20 7',
    });
  },
);

test.for(TRANSPORT_MODES)(
  '$name: another process has it open; its last close gives the space back',
  async (mode, context) => {
    needsRoot(context);
    const store = tmpfs(scratch(), '64M');
    const { mountpoint, at } = mountSessions(mode, context, ['--empty', '--store', store], 8 * MIB);
    const free = freeBytes(store);
    make(at('a.raw'));
    put(at('a.raw'), 0, filled(1, 4 * MIB));
    expect(free - freeBytes(store)).toBeGreaterThanOrEqual(4 * MIB);
    expect(diskStatus(mountpoint, 'a.raw').storeBytes).toBeGreaterThanOrEqual(4 * MIB);
    const holder = start('sh', [
      '-c',
      'exec 3<>"$0"; exec 4<"$0"; rm "$0"; exec 3<&-; echo ready; read line <&4; exec sleep 600',
      at('a.raw'),
    ]);
    await said(holder, 'ready');
    expect(run('ls', ['-A', mountpoint]).stdout).toMatch(mode.transport === 'kernel' ? /^$/ : /^\.fuse_hidden\w+\n$/);
    await poll('one handle is left', async () => (await statusNow(mountpoint)).disks[0]?.openHandles === 1);
    expect(free - freeBytes(store)).toBeGreaterThanOrEqual(4 * MIB);
    holder.kill('SIGKILL');
    await untilOnly(mountpoint, [], 0);
    expect(freeBytes(store)).toBe(free);
  },
);

test.for(TRANSPORT_MODES)(
  '$name: kill -9 of the daemon with removed disks open leaves nothing',
  async (mode, context) => {
    needsRoot(context);
    const store = tmpfs(scratch(), '64M');
    const before = freeBytes(store);
    const { mountpoint, at, pid } = mountSessions(mode, context, ['--empty', '--store', store], 8 * MIB);
    for (const [index, name] of ['a.raw', 'b.raw', 'c.raw'].entries()) {
      make(at(name));
      const fd = opened(at(name));
      writeSync(fd, filled(index, MIB), 0, MIB, 0);
      if (name !== 'c.raw') fsyncSync(fd);
      unlinkSync(at(name));
    }
    expect(before - freeBytes(store)).toBeGreaterThanOrEqual(2 * MIB);
    process.kill(pid, 'SIGKILL');
    await expectNothingLeft(mountpoint);
    await poll('the space is back', () => freeBytes(store) === before, FREE_WITHIN_MS);
  },
);

test('a removed disk does not come back: not by its number, not as a name that was never there', async () => {
  const { mountpoint, at } = mountSessions(KERNEL_MODES[0], undefined, ['--empty']);
  make(at('a.raw'));
  const fd = openSync(at('a.raw'), 'r+');
  unlinkSync(at('a.raw'));
  const [gone] = (await statusNow(mountpoint)).disks;
  expect(statSync(gone?.pathByNumber ?? '').nlink).toBe(0);
  expect(run('ln', [gone?.pathByNumber ?? '', at('again.raw')]).status).not.toBe(0);
  expect(run('mv', [gone?.pathByNumber ?? '', at('again.raw')]).status).not.toBe(0);
  closeSync(fd);
  await untilOnly(mountpoint, [], 0);
  expect(run('cat', [gone?.pathByNumber ?? '']).status).not.toBe(0);
});

test.for(['status', 'fork', 'list'])(
  '`cowfs %s` while it is open does not keep it beyond its last close',
  async (command) => {
    const { mountpoint, at } = mountSessions(KERNEL_MODES[0], undefined, ['--empty']);
    make(at('a.raw'));
    const fd = openSync(at('a.raw'), 'r+');
    writeSync(fd, filled(1, 100_000), 0, 100_000, 0);
    // The command has the kernel write back by the disk's number, which must not stay a name of it.
    if (command === 'fork') mustCowfs(['fork', at('a.raw'), at('b.raw')]);
    unlinkSync(at('a.raw'));
    if (command !== 'fork') mustCowfs([command, ...(command === 'status' ? [mountpoint] : [])]);
    else unlinkSync(at('b.raw'));
    closeSync(fd);
    await untilOnly(mountpoint, [], 0);
  },
);
