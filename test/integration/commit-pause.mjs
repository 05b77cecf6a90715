/**
 * Loaded into a `cowfs commit --json` before it starts (node --import): has it stop or kill itself at a point of choice, so
 * that tests need not hit it by chance. COWFS_TEST_POINT names the point, COWFS_TEST_SIGNAL the signal, COWFS_TEST_LOG the
 * redo log's path. For `naming` that may be the target of another command.
 *
 * Points, in the order in which they come: `logging` (half of the log is written), `written` (all of it, without a name),
 * `naming` (only where it replaces another: it has a name aside),
 * `published` (it has its name), `begun` (and that is durable), `half` (half of the base is written), `synced` (all of it,
 * and durable soon), `applied` (the log says so), `done` (the log is gone).
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { COWFS_TEST_POINT: wanted, COWFS_TEST_SIGNAL: signal = 'SIGKILL', COWFS_TEST_LOG: log = '' } = process.env;
const base = log.replace(/\/\.([^/]*)\.cowfs-redo$/, '/$1');
let isOver = false;

function at(point) {
  if (point !== wanted || isOver) return;
  isOver = true;
  process.kill(process.pid, signal);
}

const { closeSync, fsyncSync, openSync, renameSync, unlinkSync, readlinkSync, existsSync, constants } = fs;
const isThere = () => existsSync(log);

fs.fsyncSync = (fd) => {
  const target = readlinkSync(`/proc/self/fd/${fd}`);
  if (target === base) at('synced');
  else if (!isThere() && target.endsWith(' (deleted)')) at('written');
  return fsyncSync(fd);
};
let directory;
fs.openSync = (path, flags, mode) => {
  if ((flags & constants.O_DIRECTORY) !== 0 && isThere()) {
    at('published');
    directory = openSync(path, flags, mode);
    return directory;
  }
  if (path === log && (flags & constants.O_ACCMODE) === constants.O_RDWR) at('begun');
  return openSync(path, flags, mode);
};
fs.closeSync = (fd) => {
  closeSync(fd);
  if (fd === directory) at('begun');
};
fs.renameSync = (from, to) => {
  if (to === log) at('naming');
  renameSync(from, to);
};
fs.unlinkSync = (path) => {
  if (path !== log) return unlinkSync(path);
  at('applied');
  unlinkSync(path);
  at('done');
};
constants.O_ACCMODE ??= 3;
syncBuiltinESMExports();

// Each piece is told of: the clock runs fast enough.
let now = 0;
performance.now = () => {
  now += 1000;
  return now;
};
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = (text, ...rest) => {
  const { doneBytes = 0, totalBytes = 0 } = String(text).startsWith('{') ? JSON.parse(text) : {};
  if (doneBytes >= totalBytes / 4 && totalBytes > 0) at('logging');
  if (doneBytes >= (totalBytes / 4) * 3 && totalBytes > 0) at('half');
  return write(text, ...rest);
};
