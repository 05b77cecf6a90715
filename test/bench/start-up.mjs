/**
 * How long until a disk can be read: from the start of `cowfs mount` to the first block, beside a Node that does
 * nothing, by turns. Milliseconds.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { COWFS, must } from './subjects.mjs';

function timed(action) {
  const startMs = performance.now();
  action();
  return performance.now() - startMs;
}

function readBlock(path) {
  const fd = fs.openSync(path, 'r');
  fs.readSync(fd, Buffer.alloc(4096), 0, 4096, 0);
  fs.closeSync(fd);
}

export function startUp(times) {
  const root = fs.mkdtempSync('/dev/shm/cowfs-bench-');
  const [base, mountpoint] = [join(root, 'base.img'), join(root, 'mnt')];
  fs.writeFileSync(base, Buffer.alloc(2 ** 20, 7));
  fs.mkdirSync(mountpoint);
  const [mount, node] = [[], []];
  try {
    for (let count = 0; count < times; count++) {
      // As cowfs starts it: without more certificates than its own.
      const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
      node.push(timed(() => spawnSync(process.execPath, ['-e', '0'], { env })));
      mount.push(
        timed(() => {
          const disk = must(COWFS, ['mount', base, mountpoint, '--store', root]).trim();
          readBlock(disk);
        }),
      );
      must(COWFS, ['unmount', mountpoint]);
    }
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
  return { mountToFirstReadMs: mount, nodeMs: node };
}
