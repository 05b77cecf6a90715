/**
 * Real guests on disks of one mount: two at once that write to the same places, and disks forked, remembered and brought
 * back under a guest that is writing. What it had synced before must be there when another guest boots from them.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import {
  cowfs,
  lacks,
  type Mount,
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
import { needs } from '../integration/machine-support.ts';
import { BOOT_MS, guestImage, MACHINE, markers } from './qemu.ts';

/** Where the image has its root partition (build-image.sh). */
const ROOT_OFFSET = (1 + 24) * 2 ** 20;
/** Files between two looks at the disk of a guest that makes them. */
const MORE_FILES = 10;

let image: string;

beforeAll(() => {
  if (lacks('qemu-system-x86_64') === undefined) image = guestImage();
}, BOOT_MS);

/** A guest that runs beside the test. */
class Guest {
  readonly #qemu: ChildProcess;
  /** Its end, with all that it said. */
  readonly #closed: Promise<unknown>;
  #console = '';
  #stderr = '';

  /** @param task what it is to do (guest-init) */
  constructor(disk: string, task: string) {
    const drive = `file=${disk},format=raw,if=virtio`;
    this.#qemu = start('qemu-system-x86_64', [...MACHINE, '-drive', drive, '-smbios', `type=1,serial=${task}`], {
      stdio: 'pipe',
    });
    this.#closed = once(this.#qemu, 'close');
    this.#qemu.stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.#console += text;
    });
    this.#qemu.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
  }

  /** Whole lines that it has said so far. */
  get said(): string {
    return this.#console.slice(0, this.#console.lastIndexOf('\n') + 1);
  }

  /** Values of a marker that it says more than once: `<file> <sha256>`. */
  files(marker: 'synced' | 'found'): Map<string, string> {
    const lines = [...this.said.matchAll(new RegExp(`^GUEST ${marker}=(\\S+) (\\S+)\\r?$`, 'gm'))];
    return new Map(lines.map(([, file = '', sum = '']) => [file, sum]));
  }

  /** Waits for a condition on what it says, for as long as it lives. */
  async until(what: string, condition: () => boolean): Promise<void> {
    await poll(
      what,
      () => {
        if (condition()) return true;
        const { exitCode, signalCode } = this.#qemu;
        if (exitCode === null && signalCode === null) return false;
        throw new Error(`${what}: QEMU has ended: ${this.#stderr}${this.#console.slice(-500)}`);
      },
      BOOT_MS,
    );
  }

  /** What it waits for. */
  tell(line: string): void {
    this.#qemu.stdin?.write(`${line}\n`);
  }

  /** All that it said, when it has switched itself off. */
  async end(): Promise<Map<string, string>> {
    await this.#closed;
    const said = markers(this.said);
    expect(
      [this.#qemu.exitCode, said.has('done'), said.get('error')],
      this.#console.slice(-500) + this.#stderr,
    ).toEqual([0, true, undefined]);
    return said;
  }
}

/** Says nothing and changes nothing if the file system on the disk is clean and whole. */
function fsck(disk: string): void {
  must('e2fsck', ['-f', '-n', `${disk}?offset=${ROOT_OFFSET}`]);
}

/**
 * What fsck(8) makes of a disk that was taken from under a running guest: it replays the journal, and all is whole. On a
 * copy of the partition, since it forgets an offset when it starts again after the journal.
 */
function fsckReplays(disk: string, directory: string): void {
  const partition = join(directory, 'root.img');
  must('dd', [`if=${disk}`, `of=${partition}`, 'bs=1M', `skip=${ROOT_OFFSET / 2 ** 20}`, 'status=none']);
  const { status, stdout, stderr } = run('e2fsck', ['-f', '-p', partition]);
  // 1: it has corrected something, the journal.
  expect([0, 1], stdout + stderr).toContain(status);
  expect(stdout).toContain('recovering journal');
  must('e2fsck', ['-f', '-n', partition]);
}

/** Boots from a disk that was taken from under a running guest: its journal is replayed, and nothing synced is lost. */
async function bootFrom(disk: string, synced: ReadonlyMap<string, string>): Promise<number> {
  const guest = new Guest(disk, 'check');
  const said = await guest.end();
  expect(Object.fromEntries(said)).toMatchObject({ 'boot-count': '1', verify: 'ok', recovered: '1' });
  const found = guest.files('found');
  const lost = [...synced].filter(([file, sum]) => found.get(file) !== sum);
  expect(lost).toEqual([]);
  fsck(disk);
  return found.size;
}

test('two guests at once on disks of one base see their own writes, and the base stays', {
  timeout: BOOT_MS,
}, async (context) => {
  needs(context, 'qemu-system-x86_64');
  const directory = scratch();
  const before = await sha256(image);
  const { mountpoint } = mountDisk(image, makeMountpoint(directory), ['--name', 'one.raw', '--session', 'two.raw']);
  const guests = ['one.raw', 'two.raw'].map((name) => new Guest(join(mountpoint, name), 'raw'));
  for (const guest of guests) await guest.until('it has written', () => markers(guest.said).has('raw'));
  for (const guest of guests) guest.tell('both have written');
  const [one, two] = await Promise.all(guests.map((guest) => guest.end()));

  expect(one?.get('raw')).toMatch(/^[0-9a-f]{64}$/);
  expect(one?.get('reread')).toBe(one?.get('raw'));
  expect(two?.get('reread')).toBe(two?.get('raw'));
  expect(one?.get('raw')).not.toBe(two?.get('raw'));
  for (const said of [one, two]) {
    expect(Object.fromEntries(said ?? [])).toMatchObject({ 'boot-count': '0', files: 'none', verify: 'ok' });
  }
  expect(one?.get('wrote')).not.toBe(two?.get('wrote'));
  for (const name of ['one.raw', 'two.raw']) fsck(join(mountpoint, name));
  const { disks } = statusOf(mountpoint);
  mustCowfs(['unmount', mountpoint]);
  expect(await sha256(image)).toBe(before);
  console.log(
    `guest: two at once, up after ${one?.get('uptime')} and ${two?.get('uptime')} s, wrote ` +
      `${disks.map(({ writtenBytes }) => writtenBytes).join(' and ')} bytes`,
  );
});

test('disks forked from under a guest that writes hold what it had synced, and it goes on', {
  timeout: BOOT_MS,
}, async (context) => {
  needs(context, 'qemu-system-x86_64');
  const directory = scratch();
  const before = await sha256(image);
  const { mountpoint, disk }: Mount = mountDisk(image, makeMountpoint(directory));
  const guest = new Guest(disk, 'journal');
  /** What it has certainly synced by now; it goes on meanwhile. */
  const syncedBefore = async (action: readonly string[]): Promise<ReadonlyMap<string, string>> => {
    const enough = guest.files('synced').size + MORE_FILES;
    await guest.until(`it has synced ${enough} files`, () => guest.files('synced').size >= enough);
    const synced = guest.files('synced');
    mustCowfs(action);
    return synced;
  };
  const forks = ['first.raw', 'second.raw'].map((name) => join(mountpoint, name));
  const synced: ReadonlyMap<string, string>[] = [];
  for (const fork of forks) synced.push(await syncedBefore(['fork', disk, fork]));
  const atSnapshot = await syncedBefore(['snapshot', disk, 'running']);
  const whileOpen = cowfs(['rollback', disk, 'running']);
  expect([whileOpen.status, whileOpen.stderr]).toEqual([3, expect.stringContaining('while it is open')]);
  await syncedBefore(['status', mountpoint]);

  guest.tell('enough');
  expect(Object.fromEntries(await guest.end())).toMatchObject({ 'boot-count': '0', verify: 'ok', journal: 'ok' });
  fsck(disk);
  const total = guest.files('synced').size;
  for (const fork of forks) fsckReplays(fork, directory);
  const found: number[] = [];
  for (const [index, fork] of forks.entries()) {
    found.push(await bootFrom(fork, synced[index] as ReadonlyMap<string, string>));
  }
  mustCowfs(['rollback', disk, 'running']);
  found.push(await bootFrom(disk, atSnapshot));

  mustCowfs(['unmount', mountpoint]);
  expect(await sha256(image)).toBe(before);
  console.log(
    `guest: made ${total} files; ${synced.map(({ size }) => size).join(' and ')} were synced before each fork, ` +
      `${atSnapshot.size} before the snapshot; ${found.join(', ')} were found by the guests that booted from them`,
  );
});
