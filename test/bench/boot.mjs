/**
 * The test guest from QEMU's start to its first word, on a disk of cowfs and with `qemu -snapshot` on the image itself,
 * by turns. Milliseconds; undefined where there is no QEMU.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { COWFS, must } from './subjects.mjs';
import { turned } from './turns.mjs';

const MACHINE = ['-accel', 'tcg', '-cpu', 'max', '-m', '256', '-nodefaults', '-display', 'none', '-serial', 'stdio'];
/** What guest-init says first. */
const UP = 'GUEST boot-count';

function bootMs(drive) {
  return new Promise((done, fail) => {
    const startMs = performance.now();
    const qemu = spawn('qemu-system-x86_64', [...MACHINE, '-no-reboot', ...drive], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    let upMs;
    qemu.stdout.on('data', (chunk) => {
      text += chunk;
      if (upMs === undefined && text.includes(UP)) upMs = performance.now() - startMs;
    });
    qemu.once('error', fail);
    qemu.once('exit', () => (upMs === undefined ? fail(new Error(`the guest did not come up: ${text}`)) : done(upMs)));
  });
}

export async function boot(times) {
  const script = resolve(new URL('.', import.meta.url).pathname, '../guest/build-image.sh');
  const image = must('bash', [script]).trim().split('\n').at(-1);
  const root = fs.mkdtempSync('/dev/shm/cowfs-bench-');
  const mountpoint = join(root, 'mnt');
  fs.mkdirSync(mountpoint);
  const [cowfsMs, snapshotMs] = [[], []];
  try {
    const onCowfs = async () => {
      const disk = must(COWFS, ['mount', image, mountpoint, '--store', root]).trim();
      cowfsMs.push(await bootMs(['-drive', `file=${disk},format=raw`]));
      must(COWFS, ['unmount', mountpoint]);
    };
    const snapshot = ['-drive', `file=${image},format=raw,snapshot=on`];
    const onSnapshot = async () => {
      snapshotMs.push(await bootMs(snapshot));
    };
    // The first of all finds nothing in memory, neither QEMU nor the image.
    await bootMs(snapshot);
    for (let count = 0; count < times; count++) {
      for (const run of turned([onCowfs, onSnapshot], count)) await run();
    }
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
  return { cowfsMs, snapshotMs };
}
