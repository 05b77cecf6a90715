/**
 * Runs steps on the disks of a mount for a property test, in a process of its own: batches of them as JSON lines on
 * standard input, one line of results for each. Told `plain`, it is the oracle: the same steps on ordinary files in an
 * ordinary directory, where a new disk is a copy of the base and the commands (`cowfs fork` and so on, which the test
 * itself gives on the mount) copy files. Fast or slow, one order of steps has one result.
 *
 * Knows nothing of cowfs. Plain JavaScript, since Node 20 runs no TypeScript.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { fallocate, load, mmap, msync, munmap, PAGE, Refused, store } from '../system-calls.mjs';
import { buffer, CHUNK, content, hash, range, readFully, walkExtents } from './file-bytes.mjs';

const { O_RDONLY, O_RDWR, O_APPEND, O_TRUNC, O_CREAT, O_DIRECT } = fs.constants;
const [AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE] = [-100, 1, 2];
const cRename = koffi
  .load(null)
  .func('int renameat2(int fromAt, const char *from, int toAt, const char *to, uint32_t flags)');

/** Where the disks are. */
let directory = '';
let plain = false;
/** Content of a fresh disk, for the oracle. */
let fresh = Buffer.alloc(0);
/** Open files by `process/slot`: the oracle stands in for all processes at once. */
const handles = new Map();
/** The shared mapping that a process keeps, by process; a handle of its own stays open beside it. */
const mappings = new Map();
/** The oracle's snapshots: contents by name, by the inode of their disk. */
const snapshots = new Map();

const FLAGS = {
  cached: O_RDWR,
  direct: O_RDWR | O_DIRECT,
  readonly: O_RDONLY,
  append: O_RDWR | O_APPEND,
  truncate: O_RDWR | O_TRUNC,
  create: O_RDWR | O_CREAT,
  createEmpty: O_RDWR | O_CREAT | O_TRUNC,
};

const at = (name) => join(directory, name);
const inodeOf = (fd) => fs.fstatSync(fd).ino;
const isDisk = (name) => fs.statSync(at(name), { throwIfNoEntry: false })?.isFile() === true;
/** Of process `p`, or of all for -1. */
const isOf = (key, p) => p < 0 || key.startsWith(`${p}/`);

function openAt(name, kind) {
  const flags = plain ? FLAGS[kind] & ~O_DIRECT : FLAGS[kind];
  const isNew = plain && (flags & O_CREAT) !== 0 && !fs.existsSync(at(name));
  const fd = fs.openSync(at(name), flags, 0o644);
  if (isNew) {
    snapshots.delete(inodeOf(fd));
    if ((flags & O_TRUNC) === 0) fs.writeSync(fd, fresh, 0, fresh.length, 0);
  }
  return { fd, direct: kind === 'direct' };
}

/** Opened on the way if it is not: any part of a sequence has to be one. */
function handleOf({ p, slot, name }) {
  const key = `${p}/${slot}`;
  if (!handles.has(key)) handles.set(key, openAt(name, 'cached'));
  return handles.get(key);
}

function closeHandle(key) {
  const handle = handles.get(key);
  handles.delete(key);
  if (handle !== undefined) fs.closeSync(handle.fd);
}

function unmap(p) {
  const mapping = mappings.get(p);
  mappings.delete(p);
  if (mapping === undefined) return;
  munmap(mapping.address, mapping.length);
  fs.closeSync(mapping.fd);
}

/** Where in the process's mapping a step falls; never past the end of the file, which would be SIGBUS. */
function mapped({ p, off, len }) {
  const mapping = mappings.get(String(p));
  if (mapping === undefined) return undefined;
  const inside = off % mapping.length;
  const end = Math.min(inside + len, mapping.length, fs.fstatSync(mapping.fd).size - mapping.offset);
  return { address: mapping.address + inside, length: Math.max(0, end - inside) };
}

/** Size and content of an open file, and whether what it calls holes is none. */
function describe(handle, holes) {
  const { size } = fs.fstatSync(handle.fd);
  const whole = createHash('sha1');
  let n = 0;
  for (;;) {
    const bytes = readFully(handle.fd, n, CHUNK);
    whole.update(bytes);
    n += bytes.length;
    if (bytes.length < CHUNK) break;
  }
  const extents = holes ? walkExtents(handle, size, 0) : '';
  return `${size} ${n} ${whole.digest('base64').slice(0, 12)} ${extents}`;
}

/** Names below a directory of the mount; libfuse 2 keeps what was removed while it was open under one of its own. */
function list(under) {
  const names = fs.readdirSync(at(under)).filter((name) => !name.startsWith('.fuse_hidden'));
  return names.sort().flatMap((name) => {
    const path = under === '' ? name : `${under}/${name}`;
    return fs.statSync(at(path)).isDirectory() ? [`${path}/`, ...list(path)] : [path];
  });
}

const OPERATIONS = {
  open(step) {
    closeHandle(`${step.p}/${step.slot}`);
    handles.set(`${step.p}/${step.slot}`, openAt(step.name, step.kind));
  },
  close({ p, slot }) {
    closeHandle(`${p}/${slot}`);
  },
  /** All that the process has, or the oracle for all. */
  closeAll({ p }) {
    for (const key of [...handles.keys()]) if (isOf(key, p)) closeHandle(key);
    for (const owner of [...mappings.keys()]) if (isOf(`${owner}/`, p)) unmap(owner);
  },
  /** All that the process has of one disk. */
  letGo({ p, name }) {
    const { ino } = fs.statSync(at(name));
    for (const [key, { fd }] of [...handles]) if (isOf(key, p) && inodeOf(fd) === ino) closeHandle(key);
    for (const [owner, { fd }] of [...mappings]) if (isOf(`${owner}/`, p) && inodeOf(fd) === ino) unmap(owner);
  },
  read(step) {
    const handle = handleOf(step);
    const [offset, length] = range(handle, step);
    const bytes = readFully(handle.fd, offset, length);
    return { n: bytes.length, hash: hash(bytes) };
  },
  write(step) {
    const handle = handleOf(step);
    const [offset, length] = range(handle, step);
    return { n: fs.writeSync(handle.fd, content(step.seed, length), 0, length, offset) };
  },
  truncate(step) {
    fs.ftruncateSync(handleOf(step).fd, step.off);
  },
  fallocate(step) {
    fallocate(handleOf(step).fd, step.mode, step.off, step.len);
  },
  sync(step) {
    const { fd } = handleOf(step);
    if (!plain) fs.fsyncSync(fd);
  },
  map(step) {
    unmap(String(step.p));
    const fd = fs.openSync(at(step.name), O_RDWR);
    const offset = Math.floor(step.off / PAGE) * PAGE;
    const length = Math.ceil((step.off + step.len) / PAGE) * PAGE - offset;
    mappings.set(String(step.p), { fd, address: mmap(fd, offset, length), length, offset });
  },
  mapRead(step) {
    const place = mapped(step);
    if (place === undefined) return undefined;
    load(buffer, place.address, place.length);
    return { n: place.length, hash: hash(buffer.subarray(0, place.length)) };
  },
  mapWrite(step) {
    const place = mapped(step);
    if (place === undefined) return undefined;
    store(place.address, content(step.seed, place.length), place.length);
    return { n: place.length };
  },
  mapSync({ p }) {
    const mapping = mappings.get(String(p));
    if (mapping !== undefined && !plain) msync(mapping.address, mapping.length);
  },
  stat(step) {
    const { nlink } = fs.fstatSync(handleOf(step).fd);
    return { n: nlink };
  },
  /** Opens the new file, cuts it to nothing, and writes. */
  copy({ name, to }) {
    const isNew = plain && !fs.existsSync(at(to));
    fs.copyFileSync(at(name), at(to));
    if (isNew) snapshots.delete(fs.statSync(at(to)).ino);
  },
  /** cp(1) expects a file that it makes to be empty, and leaves holes out. */
  cp({ name, to }) {
    const isNew = plain && !fs.existsSync(at(to));
    const { status } = spawnSync('cp', ['--', at(name), at(to)], { stdio: 'ignore' });
    if (isNew && status === 0) snapshots.delete(fs.statSync(at(to)).ino);
    return { n: status };
  },
  rename({ name, to }) {
    fs.renameSync(at(name), at(to));
  },
  renameNoReplace({ name, to }) {
    if (cRename(AT_FDCWD, at(name), AT_FDCWD, at(to), RENAME_NOREPLACE) < 0) throw new Refused(koffi.errno());
  },
  exchange({ name, to }) {
    if (cRename(AT_FDCWD, at(name), AT_FDCWD, at(to), RENAME_EXCHANGE) < 0) throw new Refused(koffi.errno());
  },
  unlink({ name }) {
    fs.unlinkSync(at(name));
  },
  mkdir({ name }) {
    fs.mkdirSync(at(name));
  },
  rmdir({ name }) {
    fs.rmdirSync(at(name));
  },
  /** Until libfuse, too, has removed what was closed just now. */
  removeAll() {
    const patience = { maxRetries: 500, retryDelay: 1 };
    for (const name of fs.readdirSync(directory)) fs.rmSync(at(name), { recursive: true, force: true, ...patience });
  },
  /** All disks below `name` through handles of its own, and what the process has open, by the handles it has. */
  check({ p, name, kind }) {
    const names = list(name);
    const disks = names.filter((path) => !path.endsWith('/'));
    const contents = disks.map((path) => {
      const handle = openAt(path, kind);
      try {
        return `${path}: ${describe(handle, true)}`;
      } finally {
        fs.closeSync(handle.fd);
      }
    });
    const own = [...handles].filter(([key]) => isOf(key, p)).sort(([a], [b]) => (a < b ? -1 : 1));
    return { names, contents, own: own.map(([key, handle]) => `${key}: ${describe(handle, false)}`) };
  },
  /** What the command line does before a command that looks at a disk past the kernel. */
  flush({ name }) {
    const fd = fs.openSync(at(name), O_RDONLY);
    fs.fsyncSync(fd);
    fs.closeSync(fd);
  },
};

/** The commands, as the oracle carries them out; they refuse as the command line does, by the kind of its errors. */
const COMMANDS = {
  fork({ name, to }) {
    const parent = to.includes('/') ? to.split('/')[0] : '';
    if (!isDisk(name) || !fs.existsSync(at(parent))) return { refusal: 'usage' };
    if (fs.existsSync(at(to))) return { refusal: 'refused' };
    fs.copyFileSync(at(name), at(to));
    snapshots.delete(fs.statSync(at(to)).ino);
    return undefined;
  },
  snapshot({ name, snap }) {
    if (!isDisk(name)) return { refusal: 'usage' };
    const own = snapshotsOf(name);
    if (own.has(snap)) return { refusal: 'refused' };
    own.set(snap, fs.readFileSync(at(name)));
    return undefined;
  },
  deleteSnapshot({ name, snap }) {
    return isDisk(name) && snapshotsOf(name).delete(snap) ? undefined : { refusal: 'usage' };
  },
  rollback({ name, snap }) {
    if (!isDisk(name)) return { refusal: 'usage' };
    if (isOpen(name)) return { refusal: 'refused' };
    const bytes = snapshotsOf(name).get(snap);
    if (bytes === undefined) return { refusal: 'usage' };
    fs.writeFileSync(at(name), bytes);
    return undefined;
  },
  reset({ name, force }) {
    if (!isDisk(name)) return { refusal: 'usage' };
    if (isOpen(name) && force !== true) return { refusal: 'refused' };
    fs.writeFileSync(at(name), fresh);
    return undefined;
  },
  snapshots({ name }) {
    if (!isDisk(name)) return { refusal: 'usage' };
    return { names: [...snapshotsOf(name).keys()].sort() };
  },
};

function snapshotsOf(name) {
  const { ino } = fs.statSync(at(name));
  if (!snapshots.has(ino)) snapshots.set(ino, new Map());
  return snapshots.get(ino);
}

function isOpen(name) {
  const { ino } = fs.statSync(at(name));
  return [...handles.values(), ...mappings.values()].some(({ fd }) => inodeOf(fd) === ino);
}

/** Lets go of all of before, and takes on another directory. */
function use(next) {
  OPERATIONS.closeAll({ p: -1 });
  snapshots.clear();
  directory = next.path;
  plain = next.plain === true;
  if (!plain) return;
  fresh = Buffer.alloc(next.diskBytes);
  fs.readFileSync(next.base).copy(fresh);
}

function perform(step) {
  let result;
  let errno;
  try {
    result = (OPERATIONS[step.op] ?? (plain ? COMMANDS[step.op] : undefined))(step);
  } catch (error) {
    if (error instanceof Refused) errno = error.message;
    else if (typeof error.errno === 'number') errno = error.code;
    else throw error;
  }
  const handle = handles.get(`${step.p}/${step.slot}`);
  return { errno, ...result, ...(handle === undefined ? {} : { size: fs.fstatSync(handle.fd).size }) };
}

let pending = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (text) => {
  pending += text;
  for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
    const { file, ops } = JSON.parse(pending.slice(0, end));
    pending = pending.slice(end + 1);
    if (file !== undefined) use(file);
    const answer = Buffer.from(`${JSON.stringify(ops?.map(perform) ?? [])}\n`);
    for (let done = 0; done < answer.length; ) done += fs.writeSync(1, answer, done);
  }
});
