/** What a guest wrote to a disk, exported as qcow2, boots from the image: with the base below it, and alone. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { lacks, makeMountpoint, mountDisk, must, mustCowfs, run, scratch, sha256, statusOf } from '../harness.ts';
import { needs } from '../integration/machine-support.ts';
import { BOOT_MS, guestImage, MACHINE, markers } from './qemu.ts';

let image: string;

beforeAll(() => {
  if (lacks('qemu-system-x86_64') === undefined) image = guestImage();
}, BOOT_MS);

/** Boots from a drive to the end. */
function boot(file: string, format: 'raw' | 'qcow2'): Map<string, string> {
  const drive = `file=${file},format=${format},if=virtio`;
  const { stdout, stderr } = run('qemu-system-x86_64', [...MACHINE, '-drive', drive], { timeoutMs: BOOT_MS });
  const said = markers(stdout);
  expect([said.has('done'), said.get('error')], stdout.slice(-500) + stderr).toEqual([true, undefined]);
  return said;
}

test('a guest’s disk as qcow2, over the base and alone, and as an overlay file', {
  timeout: BOOT_MS,
}, async (context) => {
  needs(context, 'qemu-system-x86_64', 'qemu-img');
  const directory = scratch();
  const before = await sha256(image);
  const overlay = join(directory, 'vm.cow');
  const mountpoint = makeMountpoint(directory);
  const { disk } = mountDisk(image, mountpoint);
  const first = boot(disk, 'raw');
  expect(first.get('boot-count')).toBe('0');
  const { writtenBytes = 0 } = statusOf(mountpoint).disks[0] ?? {};

  const path = (name: string): string => join(directory, name);
  mustCowfs(['export', disk, path('backed.qcow2'), '--backing']);
  mustCowfs(['export', disk, path('flat.qcow2'), '--flat']);
  mustCowfs(['export', disk, path('copy.raw')]);
  mustCowfs(['unmount', mountpoint]);
  must('qemu-img', ['check', '-q', path('backed.qcow2')]);
  const { size } = statSync(path('backed.qcow2'));
  expect(size).toBeLessThan(writtenBytes * 1.1 + 2 ** 20);

  mustCowfs(['run', image, '--overlay', overlay, '--', 'cp', '--sparse=never', path('copy.raw'), '{}']);
  mustCowfs(['export', overlay, path('kept.qcow2')]);
  const uptimes: string[] = [];
  for (const [name, format] of [
    ['backed.qcow2', 'qcow2'],
    ['flat.qcow2', 'qcow2'],
    ['copy.raw', 'raw'],
    ['kept.qcow2', 'qcow2'],
  ] as const) {
    const said = boot(path(name), format);
    // It finds what the first one wrote, and can write itself.
    expect({ name, ...Object.fromEntries(said) }).toMatchObject({ name, 'boot-count': '1', verify: 'ok' });
    expect(said.get('files')).not.toBe('none');
    expect(said.get('wrote')).toMatch(/^[0-9a-f]{64}$/);
    if (format === 'qcow2') must('qemu-img', ['check', '-q', path(name)]);
    uptimes.push(`${name} ${said.get('uptime')} s`);
  }
  const again = boot(path('backed.qcow2'), 'qcow2');
  expect(Object.fromEntries(again)).toMatchObject({ 'boot-count': '2', verify: 'ok' });
  expect(await sha256(image)).toBe(before);
  console.log(
    `guest: ${writtenBytes} bytes written, ${size} bytes of qcow2 over the base; booted from ${uptimes.join(', ')}`,
  );
});
