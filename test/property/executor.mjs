/**
 * Runs file operations for a property test, in a process of its own: batches of them as JSON lines on standard input,
 * one line of results for each. Told `plain`, it is the oracle: the same operations on an ordinary file, where
 * O_DIRECT and fsync are left out because they must make no difference. Every test that uses it compares two of these.
 *
 * Knows nothing of cowfs. Plain JavaScript, since Node 20 runs no TypeScript.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import {
  copyFileRange,
  fallocate,
  load,
  lseek,
  MAP_PRIVATE,
  mmap,
  msync,
  munmap,
  PAGE,
  Refused,
  SEEK_DATA,
  SEEK_HOLE,
  store,
} from '../system-calls.mjs';
import { buffer, CHUNK, content, hash, range, readFully, walkExtents } from './file-bytes.mjs';

const { O_RDONLY, O_RDWR, O_APPEND, O_TRUNC, O_DIRECT } = fs.constants;
/** By how much "far" operations exceed what fits a test's disk. */
const FAR = 3 * 2 ** 40;

let path = '';
let plain = false;
/** Open files by `process/slot`: the oracle stands in for all processes at once. */
const handles = new Map();
/** The shared mapping that a process keeps, by process. */
const mappings = new Map();

const FLAGS = {
  cached: O_RDWR,
  direct: O_RDWR | O_DIRECT,
  readonly: O_RDONLY,
  append: O_RDWR | O_APPEND,
  truncate: O_RDWR | O_TRUNC,
};

function openHandle(kind) {
  const flags = plain ? FLAGS[kind] & ~O_DIRECT : FLAGS[kind];
  return { fd: fs.openSync(path, flags), direct: kind === 'direct' };
}

/** Opened on the way if it is not: any part of a sequence has to be one. */
function handleOf({ p, slot }) {
  const key = `${p}/${slot}`;
  if (!handles.has(key)) handles.set(key, openHandle('cached'));
  return handles.get(key);
}

function unmap(p) {
  const mapping = mappings.get(p);
  if (mapping !== undefined) munmap(mapping.address, mapping.length);
  mappings.delete(p);
}

/** Where in the process's mapping an operation falls; never past the end of the file, which would be SIGBUS. */
function mapped({ p, off, len }) {
  const mapping = mappings.get(p);
  if (mapping === undefined) return undefined;
  const inside = (((off - mapping.offset) % mapping.length) + mapping.length) % mapping.length;
  const end = Math.min(inside + len, mapping.length, fs.statSync(path).size - mapping.offset);
  return { address: mapping.address + inside, length: Math.max(0, end - inside) };
}

const OPERATIONS = {
  open(op) {
    const key = `${op.p}/${op.slot}`;
    const old = handles.get(key);
    handles.delete(key);
    if (old !== undefined) fs.closeSync(old.fd);
    handles.set(key, openHandle(op.kind));
  },
  /** All that the process holds. */
  close(op) {
    unmap(op.p);
    for (const [key, { fd }] of handles) {
      if (!key.startsWith(`${op.p}/`)) continue;
      handles.delete(key);
      fs.closeSync(fd);
    }
  },
  read(op) {
    const handle = handleOf(op);
    const [offset, length] = range(handle, op);
    const bytes = readFully(handle.fd, offset, length);
    return { n: bytes.length, hash: hash(bytes) };
  },
  /** For a process that does not know whether others have made the file reach so far: as if it did. */
  readPadded(op) {
    const handle = handleOf(op);
    const [offset, length] = range(handle, op);
    buffer.fill(0, readFully(handle.fd, offset, length).length, length);
    return { hash: hash(buffer.subarray(0, length)) };
  },
  write(op) {
    const handle = handleOf(op);
    const [offset, length] = range(handle, op);
    return { n: fs.writeSync(handle.fd, content(op.seed, length), 0, length, offset) };
  },
  append(op) {
    const handle = openHandle('append');
    try {
      const bytes = content(op.seed, op.len);
      return { n: fs.writeSync(handle.fd, bytes, 0, op.len), hash: hash(bytes) };
    } finally {
      fs.closeSync(handle.fd);
    }
  },
  truncate(op) {
    fs.ftruncateSync(handleOf(op).fd, op.off);
  },
  fallocate(op) {
    fallocate(handleOf(op).fd, op.mode, op.off, op.len);
  },
  extents(op) {
    const handle = handleOf(op);
    const { size } = fs.fstatSync(handle.fd);
    if (op.off >= size) lseek(handle.fd, op.off, op.seed % 2 === 0 ? SEEK_DATA : SEEK_HOLE);
    return { extents: walkExtents(handle, size, op.off) };
  },
  copyRange(op) {
    const { fd } = handleOf(op);
    return { n: copyFileRange(fd, op.off, op.to, op.len) };
  },
  sync(op) {
    if (plain) return;
    if (op.seed % 2 === 0) fs.fsyncSync(handleOf(op).fd);
    else fs.fdatasyncSync(handleOf(op).fd);
  },
  map(op) {
    unmap(op.p);
    const { fd } = handleOf(op);
    const offset = Math.floor(op.off / PAGE) * PAGE;
    const length = Math.ceil((op.off + op.len) / PAGE) * PAGE - offset;
    const address = mmap(fd, offset, length);
    mappings.set(op.p, { address, length, offset });
  },
  unmap(op) {
    unmap(op.p);
  },
  mapRead(op) {
    const place = mapped(op);
    if (place === undefined) return;
    load(buffer, place.address, place.length);
    return { n: place.length, hash: hash(buffer.subarray(0, place.length)) };
  },
  mapWrite(op) {
    const place = mapped(op);
    if (place === undefined) return;
    store(place.address, content(op.seed, place.length), place.length);
    return { n: place.length };
  },
  mapSync(op) {
    const mapping = mappings.get(op.p);
    if (mapping !== undefined && !plain) msync(mapping.address, mapping.length);
  },
  /** A private mapping's bytes are its own: what follows must not see them. */
  mapPrivate(op) {
    const { fd } = handleOf(op);
    const offset = Math.floor(op.off / PAGE) * PAGE;
    const length = Math.ceil((op.off + op.len) / PAGE) * PAGE - offset;
    const usable = Math.min(length, fs.fstatSync(fd).size - offset);
    if (usable <= op.off - offset) return;
    const address = mmap(fd, offset, length, MAP_PRIVATE);
    const part = usable - (op.off - offset);
    store(address + op.off - offset, content(op.seed, part), part);
    load(buffer, address, usable);
    munmap(address, length);
    return { n: usable, hash: hash(buffer.subarray(0, usable)) };
  },
  /** Far beyond the end and back: sparse files have no business with the space between. */
  far(op) {
    const { fd, direct } = handleOf(op);
    const { size } = fs.fstatSync(fd);
    fs.ftruncateSync(fd, FAR + op.off);
    try {
      const at = direct ? FAR - PAGE : FAR - 7;
      const n = fs.writeSync(fd, content(op.seed | 1, PAGE), 0, PAGE, at);
      const bytes = readFully(fd, direct ? at - PAGE : at - 9, 2 * PAGE);
      return { n, bytes: bytes.length, hash: hash(bytes), far: fs.fstatSync(fd).size };
    } finally {
      fs.ftruncateSync(fd, size);
    }
  },
  chmod(op) {
    fs.fchmodSync(handleOf(op).fd, op.mode);
  },
  utimes(op) {
    fs.futimesSync(handleOf(op).fd, op.seconds, op.seconds);
  },
  stat(op) {
    const { mode, mtimeMs } = fs.fstatSync(handleOf(op).fd);
    return { mode: (mode & 0o7777).toString(8), mtimeMs };
  },
  /** The whole file through a handle of its own. */
  content(op) {
    const handle = openHandle(op.kind);
    const whole = createHash('sha1');
    let n = 0;
    try {
      for (;;) {
        const bytes = readFully(handle.fd, n, CHUNK);
        whole.update(bytes);
        n += bytes.length;
        if (bytes.length < CHUNK) break;
      }
    } finally {
      fs.closeSync(handle.fd);
    }
    return { n, hash: whole.digest('base64') };
  },
};

/** Lets go of the file of before, if there is one, and takes on the next. */
function useFile(next) {
  for (const p of [...mappings.keys()]) unmap(p);
  for (const { fd } of handles.values()) fs.closeSync(fd);
  handles.clear();
  path = next.path;
  plain = next.plain === true;
}

function perform(op) {
  let result;
  let errno;
  try {
    result = OPERATIONS[op.op](op);
  } catch (error) {
    if (error instanceof Refused) errno = error.message;
    else if (typeof error.errno === 'number') errno = error.code;
    else throw error;
  }
  return { errno, ...result, size: fs.statSync(path).size };
}

let pending = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (text) => {
  pending += text;
  for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
    const { file, ops } = JSON.parse(pending.slice(0, end));
    pending = pending.slice(end + 1);
    if (file !== undefined) useFile(file);
    fs.writeSync(1, `${JSON.stringify(ops?.map(perform) ?? [])}\n`);
  }
});
