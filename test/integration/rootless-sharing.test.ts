/** Sharing a disk with other users by --allow-other, mounts in a user namespace, and mounts that a parent hands over. */
import { spawn } from 'node:child_process';
import { chmodSync, closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { mount } from '../../src/sys/libc.ts';
import {
  COWFS,
  cowfs,
  makeBase,
  makeMountpoint,
  mountDisk,
  mountsBelow,
  must,
  mustCowfs,
  poll,
  run,
  scratch,
  statusOf,
} from '../harness.ts';
import { finish, needs, needsRoot, ordinaryUser, skipUnless } from './machine-support.ts';
import { expectNothingLeft, isAlive } from './nothing-left-support.ts';

const BASE_BYTES = 1_000_001;

test('root’s --allow-other lets others read and write, within the modes that chmod sets', (context) => {
  needsRoot(context);
  needs(context, 'runuser');
  const directory = scratch();
  const base = makeBase(directory, BASE_BYTES);
  const { disk } = mountDisk(base, makeMountpoint(directory), ['--allow-other']);
  for (const user of ['nobody', 'daemon']) {
    must('cmp', [base, disk], { user });
    must('dd', ['if=/dev/zero', `of=${disk}`, 'bs=1k', 'count=0', 'conv=notrunc', 'status=none'], { user });
  }
  chmodSync(disk, 0o640);
  expect(run('cat', [disk], { user: 'daemon' }).stderr).toContain('Permission denied');
  chmodSync(disk, 0o644);
  expect(run('dd', ['if=/dev/zero', `of=${disk}`, 'count=1', 'conv=notrunc'], { user: 'daemon' }).stderr).toContain(
    'denied',
  );
  must('cmp', [base, disk], { user: 'daemon' });
});

test('without --allow-other root’s disk is root’s alone', (context) => {
  needsRoot(context);
  needs(context, 'runuser');
  const directory = scratch();
  const { mountpoint, disk } = mountDisk(makeBase(directory, BASE_BYTES), makeMountpoint(directory));
  for (const path of [disk, mountpoint]) {
    expect(run('ls', [path], { user: 'nobody', env: { LC_ALL: 'C' } }).stderr).toContain('Permission denied');
  }
});

test('an ordinary user’s --allow-other works where /etc/fuse.conf allows it', async (context) => {
  needsRoot(context);
  needs(context, 'unshare', 'fusermount3');
  const { directory, mountpoint, runtime, as } = ordinaryUser();
  const base = makeBase(directory, BASE_BYTES);
  const conf = join(directory, 'fuse.conf');
  writeFileSync(conf, 'user_allow_other\n');
  const script = `
    set -e
    mount --bind "${conf}" /etc/fuse.conf
    cowfs() { runuser -u nobody -- env XDG_RUNTIME_DIR="${as.env?.['XDG_RUNTIME_DIR']}" "${COWFS}" "$@"; }
    cowfs mount --allow-other "${base}" "${mountpoint}"
    trap 'cowfs unmount "${mountpoint}"' EXIT
    runuser -u daemon -- cmp "${base}" "${mountpoint}/disk.raw"
    cmp "${base}" "${mountpoint}/disk.raw"
    cowfs doctor | grep allow-other`;
  const { stdout, stderr, status } = run('unshare', ['--mount', 'sh', '-c', script]);
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  expect(stdout).toMatch(/^ok +--allow-other/m);
  await expectNothingLeft(mountpoint, runtime);
});

test('in a user namespace: mount, use, list, kill -9, run, unmount', async (context) => {
  needs(context, 'unshare');
  const { directory, mountpoint, as } = ordinaryUser();
  skipUnless(context, run('unshare', ['-Urm', 'true'], as).status === 0, 'no user namespaces for ordinary users here');
  const base = makeBase(directory, BASE_BYTES);
  const script = `
    set -e
    cowfs() { "${COWFS}" "$@"; }
    gone() { i=0; while grep -q " ${mountpoint} " /proc/self/mountinfo; do sleep 0.05; i=$((i+1)); [ $i -lt 40 ]; done; }
    trap 'cowfs unmount --force "${mountpoint}" 2>/dev/null || true' EXIT
    [ "$(id -u)" = 0 ]
    disk=$(cowfs mount "${base}" "${mountpoint}")
    cmp "${base}" "$disk"
    echo changed | dd of="$disk" conv=notrunc status=none
    [ "$(head -c7 "$disk")" = changed ]
    fallocate -p -o 8192 -l 8192 "$disk"
    cowfs list | grep -q "$disk"
    pid=$(cowfs status "${mountpoint}" --json | sed -n 's/^  "pid": \\([0-9]*\\),/\\1/p')
    kill -9 $pid
    gone
    disk=$(cowfs mount "${base}" "${mountpoint}")
    cmp "${base}" "$disk"
    cowfs unmount "${mountpoint}"
    gone
    cowfs run "${base}" -- sh -c 'cmp "$0" "$1" && echo x | dd of="$1" conv=notrunc status=none' "${base}" {}
    [ "$(cowfs list)" = 'nothing is mounted' ]
    cowfs doctor >/dev/null
    echo all done`;
  const { stdout, stderr, status } = run('unshare', ['-Urm', 'sh', '-c', script], as);
  expect({ stderr, status, stdout }).toEqual({ stderr: '', status: 0, stdout: 'all done\n' });
  await poll('no daemon is left', () => run('pgrep', ['-f', `cowfs-watcher.*${mountpoint} `]).status !== 0);
});

/** Mounts as a privileged parent would, and starts cowfs with the connection as a descriptor (libfuse: /dev/fd/N). */
async function mountHandedOver(base: string, mountpoint: string, fd: number): Promise<ReturnType<typeof cowfs>> {
  const device = openSync('/dev/fuse', 'r+');
  const options = `fd=${device},rootmode=40000,user_id=0,group_id=0,default_permissions`;
  expect(mount('handed-over', mountpoint, 'fuse.cowfs', 6, options)).toBe(0);
  onTestFinished(() => {
    cowfs(['unmount', '--force', mountpoint]);
    run('umount', ['-l', mountpoint]);
  });
  const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'pipe', 'pipe'];
  while (stdio.length < fd) stdio.push('ignore');
  const child = spawn(COWFS, ['mount', base, `/dev/fd/${fd}`], { stdio: [...stdio, device] });
  closeSync(device);
  return finish(child);
}

test('mounts that a parent made and hands over as /dev/fd/N are served, several at once', async (context) => {
  needsRoot(context);
  const directory = scratch();
  const base = makeBase(directory, BASE_BYTES);
  const [a = '', b = ''] = ['a', 'b'].map((name) => makeMountpoint(directory, name));
  for (const [mountpoint, fd] of [
    [a, 3],
    [b, 3],
  ] as const) {
    const { stderr, status } = await mountHandedOver(base, mountpoint, fd);
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  }
  for (const mountpoint of [a, b]) {
    const disk = join(mountpoint, 'disk.raw');
    expect(readFileSync(disk).equals(readFileSync(base))).toBe(true);
    writeFileSync(disk, mountpoint, { flag: 'r+' });
  }
  expect(readFileSync(join(a, 'disk.raw')).subarray(0, a.length).toString()).toBe(a);
  const { pid } = statusOf(a);
  must('umount', [a]);
  await poll('its daemon is gone', () => !isAlive(pid));
  await expectNothingLeft(a);
  mustCowfs(['unmount', b]);
  await expectNothingLeft(b);
  expect(mountsBelow(directory)).toEqual([]);
});

test('a descriptor that is no connection is refused', () => {
  const base = makeBase(scratch(), BASE_BYTES);
  const { stderr, stdout, status } = cowfs(['mount', base, '/dev/fd/0']);
  expect(stdout).toBe('');
  expect(stderr).toMatch(/^cowfs: [^\n]*\/dev\/fd\/0[^\n]*\n$/);
  expect(status).not.toBe(0);
});
