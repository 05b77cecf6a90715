/**
 * A file system with one file, `base.img`, that can be written to as long as a plan lets it: a process of its own, so that
 * nobody waits for himself. Speaks FUSE through the compiled project.
 *
 * Usage: node commit-faulty-base.mjs CONTENT PLAN MOUNTPOINT; says `ready`, and ends with the mount. PLAN is a JSON file that
 * is read anew at each request: `write`, `sync` and `truncate` name the errno that these end with; `writeFrom` is the first
 * byte whose writing fails.
 */
import { fstatSync, fsyncSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
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
const { EISDIR, ENOENT, ENOSYS, EOPNOTSUPP, EROFS } = constants.errno;

/** The operations that a base needs (fs/ops.ts, `FsOps`). */
class FaultyFile {
  attributes = emptyAttributes();
  transferred = 0;
  found = 0;
  direct = true;
  keepCache = false;

  #fd;
  #path;

  constructor({ content, plan }) {
    this.#fd = openSync(content, 'r+');
    this.#path = plan;
  }

  get #plan() {
    return JSON.parse(readFileSync(this.#path, 'utf8'));
  }

  lookup(parent, name) {
    return parent === ROOT_NODE && name === NAME ? this.getAttributes(NODE) : ENOENT;
  }

  getAttributes(node) {
    const isRoot = node === ROOT_NODE;
    const { size, blocks, mtimeMs } = fstatSync(this.#fd);
    Object.assign(this.attributes, {
      node,
      mode: isRoot ? S_IFDIR | 0o755 : S_IFREG | 0o644,
      nlink: isRoot ? 2 : 1,
      sizeBytes: isRoot ? 0 : size,
      blocks: isRoot ? 0 : blocks,
      mtimeSeconds: Math.floor(mtimeMs / 1000),
      ctimeSeconds: Math.floor(mtimeMs / 1000),
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
    this.transferred = readSync(this.#fd, into, at, length, offset);
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
}

async function mountAndServe([content, plan, mountpoint]) {
  const fuseFd = await mountFuse({ mountpoint, source: 'faulty', readOnly: false, allowOther: false });
  const session = openSession(fuseFd, false);
  const counters = Counters.create(1);
  new Worker(new URL(import.meta.url), { workerData: { fuseFd, session, counters, content, plan } });
  console.log('ready');
}

function serve({ fuseFd, session, counters, ...files }) {
  const nothing = () => {};
  const server = new FuseServer({
    ops: new FaultyFile(files),
    counters: new Counters(counters, 0),
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
