/**
 * What is measured against what: cowfs, its peers, and a plain copy. Each shows a base as a disk, with what is written
 * in a directory of its own; a peer that is not installed is left out, and said.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join, resolve } from 'node:path';

export const COWFS = resolve(new URL('.', import.meta.url).pathname, '../../bin/cowfs');
const READY_MS = 20_000;

export function must(file, args, options = {}) {
  const { error, status, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8', ...options });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${status}: ${stderr || stdout}`);
  return stdout;
}

async function until(what, condition) {
  const deadline = performance.now() + READY_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${READY_MS} ms`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

const sizeOf = (path) => fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0;

/** Starts a server that stays in the foreground; its end is awaited after the unmount. */
function serve(file, args, env = {}) {
  const child = spawn(file, args, { stdio: 'ignore', env: { ...process.env, ...env } });
  const ended = new Promise((done) => child.once('exit', done));
  return { child, ended };
}

function cowfs(name, options, extra = {}) {
  return {
    name,
    ours: true,
    needs: [],
    carries: ['trim'],
    ...extra,
    async start(base, directory) {
      const mountpoint = join(directory, 'mnt');
      fs.mkdirSync(mountpoint);
      const disk = must(COWFS, ['mount', base, mountpoint, '--store', directory, ...options]).trim();
      const { pid } = JSON.parse(must(COWFS, ['status', mountpoint, '--json']));
      return { disk, pids: [pid], stop: async () => void must(COWFS, ['unmount', mountpoint]) };
    },
  };
}

export const SUBJECTS = [
  {
    name: 'plain copy',
    ceiling: true,
    needs: [],
    carries: ['trim'],
    async start(base, directory) {
      const disk = join(directory, 'copy.img');
      must('cp', ['--reflink=never', base, disk]);
      // Its own write-back is no part of what is measured, as the base's is not.
      must('sync', [disk]);
      return { disk, pids: [], stop: async () => fs.rmSync(disk) };
    },
  },
  cowfs('cowfs', ['--store-strategy', 'sparse']),
  cowfs('cowfs, reflink', ['--store-strategy', 'reflink'], { secondary: true, isClone: true }),
  cowfs('cowfs, fuse-native', ['--transport', 'fuse-native'], { carries: [], secondary: true }),
  {
    name: 'qemu-storage-daemon',
    needs: ['qemu-storage-daemon', 'qemu-img'],
    carries: ['trim'],
    async start(base, directory) {
      const [overlay, disk] = [join(directory, 'overlay.qcow2'), join(directory, 'disk.raw')];
      must('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', overlay]);
      fs.writeFileSync(disk, '');
      const { child, ended } = serve('qemu-storage-daemon', [
        ...['--blockdev', `driver=file,node-name=file,filename=${overlay},discard=unmap`],
        ...['--blockdev', 'driver=qcow2,node-name=disk,file=file,discard=unmap'],
        ...['--export', `type=fuse,id=export,node-name=disk,mountpoint=${disk},writable=on`],
      ]);
      await until('qemu-storage-daemon shows the disk', () => sizeOf(disk) > 0);
      return {
        disk,
        pids: [child.pid],
        stop: async () => {
          child.kill('SIGTERM');
          await ended;
          fs.rmSync(overlay);
        },
      };
    },
  },
  {
    name: 'nbdkit cow + nbdfuse',
    needs: ['nbdkit', 'nbdfuse'],
    carries: ['trim'],
    async start(base, directory) {
      const [socket, mountpoint] = [join(directory, 'socket'), join(directory, 'mnt')];
      fs.mkdirSync(mountpoint);
      const disk = join(mountpoint, 'disk.raw');
      const server = serve('nbdkit', ['-f', '-U', socket, '--filter=cow', 'file', base, 'cow-block-size=4096'], {
        TMPDIR: directory,
      });
      await until('nbdkit listens', () => fs.existsSync(socket));
      const fuse = serve('nbdfuse', [disk, '--unix', socket]);
      await until('nbdfuse shows the disk', () => sizeOf(disk) > 0);
      return {
        disk,
        pids: [server.child.pid, fuse.child.pid],
        stop: async () => {
          must('fusermount3', ['-u', mountpoint]);
          await fuse.ended;
          server.child.kill('SIGTERM');
          await server.ended;
        },
      };
    },
  },
  {
    name: 'xmount',
    needs: ['xmount'],
    carries: [],
    async start(base, directory) {
      const [cache, mountpoint] = [join(directory, 'cache'), join(directory, 'mnt')];
      fs.mkdirSync(mountpoint);
      must('xmount', ['-o', 'default_permissions', '--in', 'raw', base, '--cache', cache, '--out', 'raw', mountpoint]);
      const shown = () => fs.readdirSync(mountpoint).find((name) => name.endsWith('.dd'));
      await until('xmount shows the disk', () => shown() !== undefined);
      const pid = Number(must('pgrep', ['-nx', 'xmount']));
      return {
        disk: join(mountpoint, shown()),
        pids: [pid],
        stop: async () => {
          must('fusermount3', ['-u', mountpoint]);
          await until('xmount ends', () => !fs.existsSync(`/proc/${pid}`));
          fs.rmSync(cache);
        },
      };
    },
  },
];

export const hasProgram = (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;

/** The programs that a subject needs and this machine lacks. */
export const missing = ({ needs }) => needs.filter((program) => !hasProgram(program));
