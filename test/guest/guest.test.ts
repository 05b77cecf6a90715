import { existsSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import {
  COWFS,
  lacks,
  listMounts,
  makeMountpoint,
  mountDisk,
  mustCowfs,
  run,
  scratch,
  sha256,
  statusOf,
} from '../harness.ts';
import { BOOT_MS, guestImage, MACHINE, markers } from './qemu.ts';

const missing = lacks('qemu-system-x86_64');
let image: string;

beforeAll(() => {
  if (missing === undefined) image = guestImage();
}, BOOT_MS);

function boot(disk: string): Map<string, string> {
  const { stdout, stderr } = run('qemu-system-x86_64', [...MACHINE, '-hda', disk], { timeoutMs: BOOT_MS });
  const said = markers(stdout);
  expect(said.has('done'), `the guest did not finish: ${stdout.slice(-500)} ${stderr}`).toBe(true);
  return said;
}

test.skipIf(missing !== undefined)(
  `a guest boots from the disk, keeps what it wrote until the unmount, and the base stays${missing ? ` (${missing})` : ''}`,
  async () => {
    const directory = scratch();
    const mountpoint = makeMountpoint(directory);
    const before = await sha256(image);

    const { disk } = mountDisk(image, mountpoint);
    const first = boot(disk);
    expect(first.get('boot-count')).toBe('0');
    expect(first.get('files')).toBe('none');
    const second = boot(disk);
    expect(second.get('boot-count')).toBe('1');
    expect(second.get('files')).not.toBe('none');
    expect(second.get('verify')).toBe('ok');
    const { disks, io } = statusOf(mountpoint);
    mustCowfs(['unmount', mountpoint]);

    mountDisk(image, mountpoint);
    const third = boot(disk);
    expect(third.get('boot-count')).toBe('0');
    expect(third.get('files')).toBe('none');
    mustCowfs(['unmount', mountpoint]);

    expect(await sha256(image)).toBe(before);
    console.log(
      `guest: 3 boots, up after ${first.get('uptime')}, ${second.get('uptime')}, ${third.get('uptime')} s; two boots wrote ` +
        `${disks[0]?.writtenBytes} bytes in ${io.writes} writes and read ${io.reads} times; sha256 of the base unchanged`,
    );
  },
  BOOT_MS,
);

test.skipIf(missing !== undefined)(
  `a guest boots through \`cowfs run\`, and nothing is left${missing ? ` (${missing})` : ''}`,
  async () => {
    const before = await sha256(image);
    const { status, stdout, stderr } = run(
      COWFS,
      ['run', image, '--', 'qemu-system-x86_64', ...MACHINE, '-hda', '{}'],
      { timeoutMs: BOOT_MS },
    );
    expect(stderr).not.toContain('cowfs:');
    expect(status).toBe(0);
    const said = markers(stdout);
    expect(said.get('boot-count')).toBe('0');
    expect(said.get('verify')).toBe('ok');
    expect(said.has('done')).toBe(true);
    expect(await sha256(image)).toBe(before);
    expect(listMounts().filter(({ base }) => base === image)).toEqual([]);
    expect(existsSync(image)).toBe(true);
  },
  BOOT_MS,
);
