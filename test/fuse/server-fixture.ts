/**
 * Servers for tests: over operations of the test's own, or over a real file system on a real disk.
 */
import { expect, onTestFinished, vi } from 'vitest';
import { SharedAttributes } from '../../src/fs/attributes.ts';
import { Counters } from '../../src/fs/counters.ts';
import type { CowFs } from '../../src/fs/cow-fs.ts';
import { INODE, Inodes, KIND } from '../../src/fs/inodes.ts';
import { ROOT_NODE } from '../../src/fs/node.ts';
import type { FsOps } from '../../src/fs/ops.ts';
import type { CowFsOptions } from '../../src/fs/options.ts';
import { type FsSpec, openFs } from '../../src/fs/spec.ts';
import type { DeferredRequest, HeldWrite } from '../../src/fuse/call.ts';
import { FuseServer } from '../../src/fuse/server.ts';
import { Trace } from '../../src/fuse/trace.ts';
import { closeStores } from '../../src/overlay/layers.ts';
import { type DiskFixture, type FixtureOptions, openOverlay } from '../overlay/disk-fixture.ts';
import { openSessions } from '../overlay/thread-jobs.ts';

export const MAX_TRANSFER = 131_072;

export function newServer(ops: FsOps, maxTransferBytes = MAX_TRANSFER) {
  const held: HeldWrite[] = [];
  const deferred: DeferredRequest[] = [];
  const report = vi.fn<(message: string, error: unknown) => void>();
  const lines: string[] = [];
  const counters = Counters.create(1);
  const server = new FuseServer({
    ops,
    counters: new Counters(counters, 0),
    maxTransferBytes,
    hold: (write) => held.push(write),
    defer: (request) => deferred.push(request),
    report,
    trace: new Trace((line) => lines.push(line)),
  });
  return { server, held, deferred, report, lines, counters };
}

const FS_OPTIONS: CowFsOptions = {
  cacheMode: 'writeback',
  readOnly: false,
  coherentDirect: true,
  sizeMayLag: true,
  sizelessFiles: true,
  passthroughFd: undefined,
  quotas: { maxStoreBytes: undefined, maxSessionStoreBytes: undefined },
  diskBytes: 0,
  suffixes: ['.raw', '.img'],
  allowOther: false,
};

/** Owner and permissions of `disk.raw`. */
const OWNER = { mode: 0o640, uid: 1000, gid: 1001 };

export interface FsFixture extends DiskFixture {
  readonly fs: CowFs;
  readonly attributes: SharedAttributes;
  /** The file system as another thread has it. */
  another(): CowFs;
}

/** `disk.raw`, node 2, mode 0640 of 1000:1001, over the content; more of them can be made. */
export function useFs(fixture: FixtureOptions, given: Partial<CowFsOptions> = {}): FsFixture {
  const overlay = openOverlay(fixture);
  const { quotas, ...task } = overlay.task();
  const diskBytes = fixture.sizeBytes ?? fixture.content.length;
  const options = { ...FS_OPTIONS, diskBytes, quotas, ...given };
  const inodes = Inodes.create();
  const spec: FsSpec = { ...task, overlay: task.memory, inodes, overlayFile: undefined, clonesBase: false, options };
  const fs = openFs(spec, task.thread);
  expect(fs.namespace.create(ROOT_NODE, 'disk.raw', OWNER, diskBytes)).toBe(0);
  const node = fs.namespace.found;
  const attributes = new SharedAttributes(fs.inodes, node);
  attributes.initialise(OWNER.mode, OWNER.uid, OWNER.gid, 1_600_000_000_500);
  const rootMode = options.allowOther ? 0o755 : 0o700;
  new SharedAttributes(fs.inodes, ROOT_NODE).initialise(rootMode, OWNER.uid, OWNER.gid, 1_700_000_000_123);
  const session = fs.inodes.get(node, INODE.CONTENT);
  const disk = fs.sessions.open(session);
  const close = (): void => {
    const { inodes: table, sessions } = fs;
    for (const each of table.all(KIND.DISK)) closeStores(sessions.discard(table.get(each, INODE.CONTENT)));
    for (const each of table.all(KIND.SNAPSHOT)) closeStores(sessions.layers.release(table.get(each, INODE.CONTENT)));
    overlay.close();
  };
  onTestFinished(close);
  return {
    ...overlay,
    sessions: fs.sessions,
    close,
    disk,
    session,
    store: disk.layer.store,
    task: () => ({ ...overlay.task(), session }),
    second: () => openSessions(overlay.task()).open(session),
    fs,
    attributes,
    another: () => openFs(spec, overlay.task().thread),
  };
}
