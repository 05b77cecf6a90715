/** Status and list, for programs and for people: stable keys, exact figures. */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import type { MountStatus } from '../../src/daemon/status.ts';
import {
  cowfs,
  listMounts,
  makeBase,
  makeMountpoint,
  mountDisk,
  mustCowfs,
  poll,
  scratch,
  statusOf,
} from '../harness.ts';

const BASE_BYTES = 100_001;

/** Every key of every object in a value, as paths. */
function keysOf(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((item: unknown) => keysOf(item, `${path}[]`));
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [`${path}.${key}`, ...keysOf(inner, `${path}.${key}`)]);
}

/** What programs rely on: more may come, none of these may go or change its type. */
const STABLE: Record<string, unknown> = {
  mountpoint: expect.any(String),
  pid: expect.any(Number),
  base: expect.any(String),
  baseSize: BASE_BYTES,
  baseChanged: null,
  transport: 'kernel',
  cache: 'writeback',
  aio: expect.stringMatching(/^(io_uring|threads)$/),
  threads: expect.any(Number),
  readOnly: false,
  upSince: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/),
  warnings: [],
  store: { directory: expect.any(String), freeBytes: expect.any(Number), maxBytes: null, heldBytes: 0 },
  disks: [
    {
      name: 'disk.raw',
      path: expect.any(String),
      size: BASE_BYTES,
      writtenBytes: 0,
      storeBytes: expect.any(Number),
      openHandles: 0,
    },
  ],
  io: {
    reads: expect.any(Number),
    readBytes: expect.any(Number),
    readLatencyMs: expect.any(Number),
    writes: 0,
    writeBytes: 0,
    writeLatencyMs: 0,
    otherRequests: expect.any(Number),
    ioErrors: 0,
  },
};

test('`list --json` and `status --json` have stable keys in camel case', () => {
  const directory = scratch();
  const base = makeBase(directory, BASE_BYTES);
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory));
  const status = statusOf(mountpoint);
  const listed = listMounts().filter((mount) => mount.mountpoint === mountpoint);
  expect(listed).toHaveLength(1);
  const all = JSON.parse(mustCowfs(['status', '--json'])) as MountStatus[];
  const [amongAll] = all.filter((mount) => mount.mountpoint === mountpoint);
  for (const found of [status, listed[0], amongAll]) {
    expect(found).toMatchObject({ ...STABLE, mountpoint, base });
    expect(found?.disks[0]?.path).toBe(disk);
    for (const key of keysOf(found)) expect(key).toMatch(/^(\.[a-z][a-zA-Z]*(\[\])*)+$/);
  }
  expect(keysOf(listed[0])).toEqual(keysOf(status));
  expect(Date.now() - Date.parse(status.upSince)).toBeLessThan(60_000);
  expect(readFileSync(`/proc/${status.pid}/comm`, 'utf8')).toMatch(/node|cowfs/);
});

test('written bytes are exact after a write(2) that nobody synced, while the file is still open', () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, BASE_BYTES), makeMountpoint(directory));
  const fd = openSync(disk, 'r+');
  onTestFinished(() => closeSync(fd));
  const written = (): number => statusOf(mountpoint).disks[0]?.writtenBytes ?? -1;
  writeSync(fd, Buffer.alloc(10_000, 1), 0, 10_000, 5000);
  // Bytes 5000 to 14999: blocks 1, 2 and 3.
  expect(written()).toBe(3 * 4096);
  writeSync(fd, Buffer.alloc(1, 2), 0, 1, 9000);
  expect(written()).toBe(3 * 4096);
  writeSync(fd, Buffer.alloc(10, 2), 0, 10, BASE_BYTES - 5);
  expect(statusOf(mountpoint).disks[0]).toMatchObject({ writtenBytes: 4 * 4096, size: BASE_BYTES + 5 });
  writeSync(fd, Buffer.alloc(4096, 2), 0, 4096, 12_288);
  const [listed] = listMounts().filter((mount) => mount.mountpoint === mountpoint);
  expect(listed?.disks[0]).toMatchObject({ writtenBytes: 4 * 4096 });
  expect(listed?.disks[0]?.storeBytes).toBeGreaterThanOrEqual(4 * 4096);
  expect(listed?.disks[0]?.storeBytes).toBeLessThanOrEqual(8 * 4096);
});

test('open handles are counted, ours alone', async () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, BASE_BYTES), makeMountpoint(directory));
  const handles = (): number => statusOf(mountpoint).disks[0]?.openHandles ?? -1;
  expect(handles()).toBe(0);
  const fds = ['r', 'r+', 'r'].map((flags) => openSync(disk, flags));
  expect(handles()).toBe(3);
  for (const fd of fds.splice(1)) closeSync(fd);
  // The kernel tells of a close in its own time.
  await poll('one is left', () => handles() === 1);
  expect(mustCowfs(['status', mountpoint])).toContain('open 1 times');
  closeSync(fds[0] ?? -1);
  await poll('none is left', () => handles() === 0);
});

test('reads and writes are counted', () => {
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, BASE_BYTES), makeMountpoint(directory), [
    '--cache',
    'none',
  ]);
  const fd = openSync(disk, 'r+');
  for (let i = 0; i < 5; i++) readSync(fd, Buffer.alloc(1000), 0, 1000, i * 10_000);
  for (let i = 0; i < 3; i++) writeSync(fd, Buffer.alloc(2000), 0, 2000, i * 10_000);
  closeSync(fd);
  const { io, disks } = statusOf(mountpoint);
  expect(io).toMatchObject({ reads: 5, readBytes: 5000, writes: 3, writeBytes: 6000, ioErrors: 0 });
  expect(io.readLatencyMs).toBeGreaterThan(0);
  expect(io.readLatencyMs).toBeLessThan(1000);
  expect(io.writeLatencyMs).toBeGreaterThan(0);
  // 2000 bytes at 0, 10000 (blocks 2) and 20000 (blocks 4 and 5).
  expect(disks[0]?.writtenBytes).toBe(4 * 4096);
});

test('the tables for people hold the figures', () => {
  const directory = scratch();
  const base = makeBase(directory, 3 * 1024 * 1024);
  const options = ['--max-store', '2M', '--threads', '3', '--cache', 'writethrough', '--store', directory];
  const { mountpoint, disk } = mountDisk(base, makeMountpoint(directory), options);
  const fd = openSync(disk, 'r+');
  onTestFinished(() => closeSync(fd));
  writeSync(fd, Buffer.alloc(1024 * 1024), 0, 1024 * 1024, 0);
  const { pid } = statusOf(mountpoint);
  const list = mustCowfs(['list']).split('\n');
  const row = list.find((line) => line.includes(disk)) ?? '';
  expect(list[0]).toMatch(/DISK.*BASE.*SIZE.*WRITTEN.*OPEN.*PID/);
  for (const figure of [base, '3.0 MiB', '1.0 MiB', String(pid)]) expect(row).toContain(figure);
  expect(row).toMatch(/ 1 +\d+$/);

  const status = mustCowfs(['status', mountpoint]);
  const rows: Record<string, RegExp> = {
    mountpoint: new RegExp(`^${mountpoint}$`),
    base: /3\.0 MiB/,
    'base changed': /^no$/,
    disk: /disk\.raw \(3\.0 MiB\), open 1 times/,
    written: /^1\.0 MiB, taking 1\.\d MiB/,
    store: new RegExp(`^${directory}, .*free, at most 2\\.0 MiB`),
    strategy: /^sparse \(.+\)$/,
    reads: /^\d+ \(/,
    writes: /^[1-9]\d* \(1\.0 MiB\), \d+\.\d+ ms each/,
    transport: /kernel.*writethrough.*3 threads/,
    daemon: new RegExp(`pid ${pid}, up \\d+ s`),
  };
  for (const [name, value] of Object.entries(rows)) {
    const line = status.split('\n').find((text) => text.startsWith(`${name} `)) ?? '';
    expect.soft(line.slice(name.length).trim(), name).toMatch(value);
  }
});

test('nothing mounted is an empty array, and says so to people', () => {
  const env = { XDG_RUNTIME_DIR: scratch() };
  const isRoot = process.geteuid?.() === 0;
  const { stdout, status } = cowfs(['list', '--json'], { env });
  expect(status).toBe(0);
  // Root's place is fixed, and others may have mounts there.
  if (!isRoot) expect(JSON.parse(stdout)).toEqual([]);
  expect(Array.isArray(JSON.parse(stdout))).toBe(true);
  if (!isRoot) expect(cowfs(['list'], { env }).stdout).toBe('nothing is mounted\n');
});
