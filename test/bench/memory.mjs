/**
 * What serving a disk costs in memory: the proportional set size (proc(5), smaps_rollup) of a subject's processes, idle
 * and after a GiB of random 4 KiB writes. Bytes.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { DISK_MIB } from './cells.mjs';
import { measure } from './fio.mjs';
import { inPlace } from './places.mjs';

/** A GiB, each block once. */
const LOAD = {
  name: 'a GiB of random 4k writes',
  unit: 'iops',
  timed: false,
  options: ['--rw=randwrite', '--bs=4k', `--size=${DISK_MIB}M`, '--end_fsync=1'],
};

function pssOf(pids) {
  return pids.reduce((sum, pid) => {
    const [, kib = '0'] = /^Pss:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')) ?? [];
    return sum + Number(kib) * 1024;
  }, 0);
}

export function memory(subjects, place) {
  return inPlace(place, async (root) => {
    const base = join(root, 'base.img');
    fs.writeFileSync(base, '');
    fs.truncateSync(base, DISK_MIB * 2 ** 20);
    const figures = [];
    for (const subject of subjects.filter(({ ceiling }) => ceiling !== true)) {
      const directory = join(root, 'run');
      fs.mkdirSync(directory);
      const { disk, pids, stop } = await subject.start(base, directory);
      const idleBytes = pssOf(pids);
      measure(LOAD, disk, 0);
      figures.push({ name: subject.name, idleBytes, loadedBytes: pssOf(pids) });
      await stop();
      fs.rmSync(directory, { recursive: true });
    }
    return figures;
  });
}
