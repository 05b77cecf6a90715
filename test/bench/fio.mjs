/**
 * One cell on one disk: runs fio(1) and gives the figure. The engine is psync, as a program that knows nothing of
 * FUSE would call read(2) and write(2).
 */
import { spawnSync } from 'node:child_process';

/** Figure of a cell in its unit. */
export function measure(cell, disk, seconds) {
  const args = [
    '--name=cell',
    `--filename=${disk}`,
    '--ioengine=psync',
    '--thread',
    '--group_reporting',
    '--randrepeat=1',
    // Opened as it is: neither laid out nor cut first.
    '--allow_file_create=0',
    '--invalidate=1',
    '--output-format=json',
    ...cell.options,
    ...(cell.timed ? ['--time_based', `--runtime=${seconds}`] : []),
  ];
  const { error, status, stdout, stderr } = spawnSync('fio', args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`fio ${cell.name}: ${stderr || stdout}`);
  const [job] = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs;
  if (job.error !== 0) throw new Error(`fio ${cell.name}: error ${job.error}`);
  const kinds = [job.read, job.write, job.trim];
  const operations = kinds.reduce((sum, kind) => sum + kind.total_ios, 0);
  const bytes = kinds.reduce((sum, kind) => sum + kind.io_bytes, 0);
  // The job's own time, its fsyncs included.
  const runSeconds = Math.max(...kinds.map((kind) => kind.runtime)) / 1000;
  return cell.unit === 'iops' ? operations / runSeconds : bytes / 1e6 / runSeconds;
}
