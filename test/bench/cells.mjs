/**
 * What is measured: each cell is one load of fio(1) on one disk, fresh for it. Plain data, for main.mjs.
 */

/** Of the disk that every cell runs on. */
export const DISK_MIB = 1024;
/** Of the part that the cells with a fixed amount of work write or read. */
const WORK_MIB = 256;

/** The load goes on for as long as the run says. */
const timed = (options) => ({ timed: true, options });
/** So many MiB, whatever it takes. */
const work = (mib, options) => ({ timed: false, options: [...options, `--size=${mib}M`] });
/** A final fsync that counts, as fio leaves one at the end of the file out of its figures. */
const synced = (mib, blockKib, options) =>
  work(mib, [...options, `--bs=${blockKib}k`, `--fsync=${(mib * 1024) / blockKib}`]);

/**
 * `unit` is `iops` or `MB/s`; `needs` names what not every subject carries. Reads that are not direct find the page
 * cache of the mount cold, as the mount is new, and the base's hot.
 */
export const CELLS = [
  {
    name: 'random read 4k, direct, 1 job',
    unit: 'iops',
    ...timed(['--rw=randread', '--bs=4k', '--direct=1']),
  },
  {
    name: 'random read 4k, direct, 16 jobs',
    unit: 'iops',
    ...timed(['--rw=randread', '--bs=4k', '--direct=1', '--numjobs=16']),
  },
  { name: 'sequential read 1M, direct', unit: 'MB/s', ...timed(['--rw=read', '--bs=1M', '--direct=1']) },
  {
    name: 'random write 4k, direct, 1 job',
    unit: 'iops',
    ...timed(['--rw=randwrite', '--bs=4k', '--direct=1']),
  },
  {
    name: 'random write 4k, direct, 16 jobs',
    unit: 'iops',
    ...timed(['--rw=randwrite', '--bs=4k', '--direct=1', '--numjobs=16']),
  },
  { name: 'sequential write 1M, direct', unit: 'MB/s', ...timed(['--rw=write', '--bs=1M', '--direct=1']) },
  { name: 'random write 4k, buffered, fsync at the end', unit: 'iops', ...synced(WORK_MIB, 4, ['--rw=randwrite']) },
  { name: 'sequential write 64k, buffered, fsync at the end', unit: 'iops', ...synced(DISK_MIB, 64, ['--rw=write']) },
  { name: 'sequential read 64k, buffered', unit: 'iops', ...work(DISK_MIB, ['--rw=read', '--bs=64k']) },
  { name: 'random read 4k, buffered', unit: 'iops', ...work(64, ['--rw=randread', '--bs=4k', '--filesize=1G']) },
  {
    name: '70/30 mix 4k, buffered, 4 jobs, fsync every 32',
    unit: 'iops',
    ...timed(['--rw=randrw', '--rwmixread=70', '--bs=4k', '--numjobs=4', '--fsync=32']),
  },
  {
    name: 'first write to clean blocks, 4k aligned, direct',
    unit: 'iops',
    ...work(WORK_MIB, ['--rw=randwrite', '--bs=4k', '--direct=1']),
  },
  {
    name: 'first write to clean blocks, 1k of each, buffered',
    unit: 'iops',
    // Each block once, and never from its start.
    ...work(WORK_MIB / 4, ['--rw=randwrite', '--bs=1k', '--blockalign=4k', '--offset=1k', '--fsync=65536']),
  },
  {
    name: 'trim 64k',
    unit: 'iops',
    needs: 'trim',
    ...work(DISK_MIB, ['--ioengine=falloc', '--rw=randtrim', '--bs=64k']),
  },
];
