/** A base in use: many mounts share it, QEMU may read it, and nobody who respects QEMU's locks may write to it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  makeBase,
  makeMountpoint,
  mountDisk,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  sha256,
  start,
  statusOf,
} from '../harness.ts';
import { needs, needsRoot, said } from './machine-support.ts';

const MIB = 1024 * 1024;

test('two mounts of one base at once are apart from each other and from the base', async () => {
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const before = await sha256(base);
  const [a, b] = ['a', 'b'].map((name) => mountDisk(base, makeMountpoint(directory, name)).disk);
  writeFileSync(a ?? '', 'first', { flag: 'r+' });
  writeFileSync(b ?? '', 'other', { flag: 'r+' });
  expect(
    readFileSync(a ?? '')
      .subarray(0, 5)
      .toString(),
  ).toBe('first');
  expect(
    readFileSync(b ?? '')
      .subarray(0, 5)
      .toString(),
  ).toBe('other');
  mustCowfs(['unmount', `${directory}/a`]);
  expect(
    readFileSync(b ?? '')
      .subarray(0, 5)
      .toString(),
  ).toBe('other');
  expect(await sha256(base)).toBe(before);
});

test('QEMU cannot write to a base in use, nor resize it; it can read it, and write once we are gone', (context) => {
  needs(context, 'qemu-io', 'qemu-img');
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const { mountpoint } = mountDisk(base, makeMountpoint(directory));
  const write = ['-f', 'raw', '-c', 'write -P 1 0 4k', base];
  expect(run('qemu-io', write).stderr).toMatch(/Failed to get .*lock/);
  expect(run('qemu-img', ['resize', '-q', '-f', 'raw', base, '2M']).status).not.toBe(0);
  expect(must('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 4k', base])).toContain('read 4096/4096');
  expect(statusOf(mountpoint).baseChanged).toBeNull();
  mustCowfs(['unmount', mountpoint]);
  expect(must('qemu-io', write)).toContain('wrote 4096/4096');
});

test('the lock goes with a killed daemon', async (context) => {
  needs(context, 'qemu-io');
  const directory = scratch();
  const base = makeBase(directory, MIB);
  const { mountpoint } = mountDisk(base, makeMountpoint(directory));
  process.kill(statusOf(mountpoint).pid, 'SIGKILL');
  await poll('QEMU can write', () => run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', base]).status === 0, 2000);
});

test.for([
  { kind: 'flock(2)', call: 'fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)' },
  { kind: 'fcntl(2)', call: 'fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)' },
])('$kind locks on the disk keep processes apart, as on any file', async ({ call }, context) => {
  needs(context, '/usr/bin/python3');
  const directory = scratch();
  const { disk } = mountDisk(makeBase(directory, MIB), makeMountpoint(directory));
  const python = [
    '-c',
    `import fcntl, os, sys, time\nfd = os.open('${disk}', os.O_RDWR)\n${call}\nprint('held', flush=True)`,
  ];
  const holder = start('/usr/bin/python3', [python[0] ?? '', `${python[1]}\ntime.sleep(600)`]);
  await said(holder, 'held');
  const second = run('/usr/bin/python3', python);
  expect(second.stderr).toContain('BlockingIOError');
  holder.kill();
  await poll('the lock is free', () => run('/usr/bin/python3', python).status === 0);
});

test('a read-only bind mount of the base is enough', (context) => {
  needsRoot(context);
  const directory = scratch();
  const inner = makeMountpoint(directory, 'inner');
  const base = makeBase(directory, 5000);
  writeFileSync(`${inner}/base.img`, '');
  must('mount', ['--bind', base, `${inner}/base.img`]);
  must('mount', ['-o', 'remount,bind,ro', `${inner}/base.img`]);
  const { disk } = mountDisk(`${inner}/base.img`, makeMountpoint(directory));
  writeFileSync(disk, 'x', { flag: 'r+' });
  expect(readFileSync(disk).subarray(1).equals(readFileSync(base).subarray(1))).toBe(true);
});
