/**
 * A file system with one file, `base.img`, that obeys a plan (faulty-base.ts says what it can hold): a process of its own,
 * so that nobody waits for himself. Each request looks at the plan anew. Speaks FUSE through the compiled project,
 * with operations of its own and several threads, so that a read that waits holds up no other request.
 *
 * Usage: node faulty-file.mjs CONTENT PLAN GATE MOUNTPOINT; says `ready`, and ends with the mount. Each read that comes to
 * the gate of a plan leaves a file in the directory GATE.
 */
import {
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Counters } from '../../dist/fs/counters.js';
import { DT_DIR, DT_REG, ROOT_NODE, S_IFDIR, S_IFREG } from '../../dist/fs/node.js';
import { emptyAttributes } from '../../dist/fs/stat.js';
import { FuseServer } from '../../dist/fuse/server.js';
import { serveConnection } from '../../dist/transport/kernel/loop.js';
import { mountFuse } from '../../dist/transport/kernel/mount.js';
import { openSession } from '../../dist/transport/kernel/pool.js';

const NAME = 'base.img';
const NODE = 2;
const THREADS = 6;
const LOOK_MS = 5;
const { EISDIR, ENOENT, ENOSYS, EOPNOTSUPP, EROFS } = constants.errno;

/** Blocks this thread. */
function sleep(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** The operations that a base needs (fs/ops.ts, `FsOps`). */
class FaultyFile {
  attributes = emptyAttributes();
  transferred = 0;
  found = 0;
  /** Past the page cache: what is asked for comes here as it is, and a short answer is a short read(2). */
  direct = true;
  keepCache = true;

  #fd;
  #planPath;
  #gate;

  constructor({ content, plan, gate }) {
    this.#fd = openSync(content, 'r+');
    this.#planPath = plan;
    this.#gate = gate;
  }

  get #plan() {
    return JSON.parse(readFileSync(this.#planPath, 'utf8'));
  }

  lookup(parent, name) {
    return parent === ROOT_NODE && name === NAME ? this.getAttributes(NODE) : ENOENT;
  }

  getAttributes(node) {
    const isRoot = node === ROOT_NODE;
    const { size, blocks, mtimeMs } = fstatSync(this.#fd);
    const seconds = Math.floor(mtimeMs / 1000);
    Object.assign(this.attributes, {
      node,
      mode: isRoot ? S_IFDIR | 0o755 : S_IFREG | 0o644,
      nlink: isRoot ? 2 : 1,
      sizeBytes: isRoot ? 0 : size,
      blocks: isRoot ? 0 : blocks,
      mtimeSeconds: seconds,
      ctimeSeconds: seconds,
    });
    return 0;
  }

  setAttributes(node, { sizeBytes }) {
    const { truncate } = this.#plan;
    if (sizeBytes !== undefined && truncate !== undefined) return constants.errno[truncate];
    if (sizeBytes !== undefined) ftruncateSync(this.#fd, sizeBytes);
    return this.getAttributes(node);
  }

  open(node) {
    return node === ROOT_NODE ? EISDIR : 0;
  }

  release() {}

  /** The only file never goes, whatever the kernel knows of it. */
  remember() {
    return true;
  }

  forget() {}

  create() {
    return EROFS;
  }

  makeDirectory() {
    return EROFS;
  }

  remove() {
    return EROFS;
  }

  removeDirectory() {
    return EROFS;
  }

  rename() {
    return EROFS;
  }

  isGenerated() {
    return false;
  }

  read(_node, offset, length, into, at) {
    this.transferred = 0;
    const { bad, mostBytes = length, endBytes = fstatSync(this.#fd).size } = this.#whenLetThrough(offset, length);
    let end = Math.min(offset + Math.min(length, mostBytes), Math.max(offset, endBytes));
    // As a disk with a bad sector: what lies before it comes first.
    if (bad !== undefined && offset < bad.to && end > bad.from) {
      if (offset >= bad.from) return constants.errno[bad.errno];
      end = bad.from;
    }
    this.transferred = end === offset ? 0 : readSync(this.#fd, into, at, end - offset, offset);
    return 0;
  }

  /** As a disk with a bad sector: what lies before it is written. */
  write(_node, offset, length, from, at) {
    const { write, writeFrom = 0 } = this.#plan;
    const most = write === undefined ? length : Math.min(length, Math.max(0, writeFrom - offset));
    this.transferred = most === 0 ? 0 : writeSync(this.#fd, from, at, most, offset);
    return most === 0 && length > 0 ? constants.errno[write] : 0;
  }

  allocate() {
    return EOPNOTSUPP;
  }

  /** All is data. */
  seek() {
    return ENOSYS;
  }

  seekNeedsKernelSize() {
    return false;
  }

  readNeedsKernelSize() {
    return false;
  }

  sync() {
    const { sync } = this.#plan;
    if (sync !== undefined) return constants.errno[sync];
    fsyncSync(this.#fd);
    return 0;
  }

  list(node, cookie, most) {
    if (node !== ROOT_NODE) return undefined;
    const entries = [
      { name: '.', node: ROOT_NODE, type: DT_DIR, cookie: 1 },
      { name: '..', node: ROOT_NODE, type: DT_DIR, cookie: 2 },
      { name: NAME, node: NODE, type: DT_REG, cookie: 3 },
    ];
    return entries.slice(cookie, cookie + most);
  }

  statistics() {
    return { blockBytes: 4096, blocks: 2 ** 20, freeBlocks: 2 ** 19, files: 2, nameMax: 255 };
  }

  nameOf() {
    return NAME;
  }

  /** The plan, once it does not have this read wait any more. */
  #whenLetThrough(offset, length) {
    for (;;) {
      const plan = this.#plan;
      const { gate } = plan;
      if (gate === undefined || offset >= gate.to || offset + length <= gate.from) return plan;
      writeFileSync(join(this.#gate, String(offset)), '');
      sleep(LOOK_MS);
    }
  }
}

async function mountAndServe([content, plan, gate, mountpoint]) {
  const fuseFd = await mountFuse({ mountpoint, source: 'faulty', readOnly: false, allowOther: false });
  const session = openSession(fuseFd, false);
  const counters = Counters.create(THREADS);
  for (let index = 0; index < THREADS; index++) {
    new Worker(new URL(import.meta.url), { workerData: { fuseFd, session, counters, index, content, plan, gate } });
  }
  console.log('ready');
}

function serve({ fuseFd, session, counters, index, ...files }) {
  const nothing = () => {};
  const server = new FuseServer({
    ops: new FaultyFile(files),
    counters: new Counters(counters, index),
    maxTransferBytes: session.maxTransferBytes,
    hold: nothing,
    defer: nothing,
    report: (message, error) => console.error(message, error),
    trace: undefined,
  });
  serveConnection(fuseFd, server);
}

if (isMainThread) await mountAndServe(process.argv.slice(2));
else serve(workerData);
