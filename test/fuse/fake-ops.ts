/**
 * A file system that remembers what it was asked and answers what the test says.
 */
import { vi } from 'vitest';
import type { NodeId } from '../../src/fs/node.ts';
import type { AttributeChange, Attributes, DirectoryEntry, FsOps } from '../../src/fs/ops.ts';

export const ATTRIBUTES: Attributes = {
  node: 2 as NodeId,
  mode: 0o100640,
  nlink: 1,
  uid: 1000,
  gid: 1001,
  sizeBytes: 2 ** 40 + 5,
  blocks: 77,
  atimeSeconds: 1_700_000_001,
  atimeNanoseconds: 1,
  mtimeSeconds: -2,
  mtimeNanoseconds: 999_999_999,
  ctimeSeconds: 2 ** 33 + 3,
  ctimeNanoseconds: 3,
};

const ENTRIES: readonly DirectoryEntry[] = [
  { name: '.', node: 1 as NodeId, type: 4, cookie: 1 },
  { name: '..', node: 1 as NodeId, type: 4, cookie: 2 },
  { name: 'disk.raw', node: 2 as NodeId, type: 8, cookie: 3 },
  // Names between have been removed.
  { name: 'größer', node: 3 as NodeId, type: 8, cookie: 2 ** 40 + 1 },
];

/** Every operation succeeds unless the test tells it otherwise. */
export function fakeOps() {
  const ops = {
    attributes: ATTRIBUTES,
    transferred: 0,
    found: 0,
    direct: false,
    keepCache: true,
    backingFile: 0,
    lookup: vi.fn<FsOps['lookup']>(() => {
      ops.attributes = ATTRIBUTES;
      return 0;
    }),
    getAttributes: vi.fn<FsOps['getAttributes']>((node) => {
      ops.attributes = { ...ATTRIBUTES, node };
      return 0;
    }),
    setAttributes: vi.fn<(node: NodeId, change: AttributeChange) => number>(() => 0),
    create: vi.fn<FsOps['create']>(() => 0),
    makeDirectory: vi.fn<FsOps['makeDirectory']>(() => 0),
    remove: vi.fn<FsOps['remove']>(() => 0),
    removeDirectory: vi.fn<FsOps['removeDirectory']>(() => 0),
    rename: vi.fn<FsOps['rename']>(() => 0),
    remember: vi.fn<FsOps['remember']>(() => true),
    forget: vi.fn<FsOps['forget']>(() => {}),
    open: vi.fn<FsOps['open']>(() => 0),
    release: vi.fn<FsOps['release']>(() => {}),
    read: vi.fn<FsOps['read']>(() => 0),
    write: vi.fn<FsOps['write']>(() => 0),
    allocate: vi.fn<FsOps['allocate']>(() => 0),
    seek: vi.fn<FsOps['seek']>(() => 0),
    readNeedsKernelSize: vi.fn<FsOps['readNeedsKernelSize']>(() => false),
    seekNeedsKernelSize: vi.fn<FsOps['seekNeedsKernelSize']>(() => false),
    sync: vi.fn<FsOps['sync']>(() => 0),
    list: vi.fn<FsOps['list']>((node, cookie, most) =>
      node === 1 ? ENTRIES.filter((entry) => entry.cookie > cookie).slice(0, most) : undefined,
    ),
    isGenerated: vi.fn<FsOps['isGenerated']>(() => false),
    statistics: vi.fn<FsOps['statistics']>(() => ({
      blockBytes: 4096,
      blocks: 2 ** 33 + 1,
      freeBlocks: 2 ** 32 + 2,
      files: 3,
      nameMax: 255,
    })),
    nameOf: vi.fn<FsOps['nameOf']>((node) => (node === 1 ? '/' : `node ${node}`)),
  };
  return ops;
}
