/**
 * Servers for tests: over operations of the test's own, or over a real file system on a real disk.
 */
import { vi } from 'vitest';
import { SharedAttributes } from '../../src/fs/attributes.ts';
import { Counters } from '../../src/fs/counters.ts';
import { CowFs } from '../../src/fs/cow-fs.ts';
import type { FsOps } from '../../src/fs/ops.ts';
import type { CowFsOptions } from '../../src/fs/options.ts';
import type { DeferredRequest, HeldWrite } from '../../src/fuse/call.ts';
import { FuseServer } from '../../src/fuse/server.ts';
import { Trace } from '../../src/fuse/trace.ts';
import { type DiskFixture, type FixtureOptions, useDisk } from '../overlay/disk-fixture.ts';

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

export const FS_OPTIONS: CowFsOptions = {
  cacheMode: 'writeback',
  readOnly: false,
  coherentDirect: true,
  maxStoreBytes: undefined,
  sizeMayLag: true,
  uid: 1000,
  gid: 1001,
  allowOther: false,
  mountedAtMs: 1_700_000_000_123,
};

export interface FsFixture extends DiskFixture {
  readonly fs: CowFs;
  readonly attributes: SharedAttributes;
}

/** `disk.raw`, mode 0640 of 1000:1001, over the content. */
export function useFs(disk: FixtureOptions, options: Partial<CowFsOptions> = {}): FsFixture {
  const fixture = useDisk(disk);
  const attributes = new SharedAttributes(SharedAttributes.create(0o640, 1000, 1001, 1_600_000_000_500));
  const file = { name: 'disk.raw', disk: fixture.disk, store: fixture.store, attributes, baseBlocks: 8 };
  return { ...fixture, attributes, fs: new CowFs([file], { ...FS_OPTIONS, ...options }) };
}
