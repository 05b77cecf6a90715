/**
 * What the status tells of disks. Main thread of the daemon.
 */
import { closeSync, openSync } from 'node:fs';
import { SharedAttributes } from '../fs/attributes.ts';
import { pathByNumber } from '../fs/control-directory.ts';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, KIND } from '../fs/inodes.ts';
import { NO_NODE, type NodeId } from '../fs/node.ts';
import { unsharedBytes } from '../overlay/clones.ts';
import type { DiskAccess } from './disk-access.ts';
import type { DiskStatus, SnapshotStatus } from './status.ts';

type Usage = Pick<DiskStatus, 'writtenBytes' | 'storeBytes'>;

interface Found {
  readonly disk: Omit<DiskStatus, keyof Usage>;
  readonly usage: () => Usage;
}

/** @param overlay file that keeps one of the disks */
export function statusOfDisks(fs: CowFs, access: DiskAccess, overlay: string | undefined): DiskStatus[] {
  const { inodes } = fs;
  const found = inodes.locked(() => inodes.all(KIND.DISK).map((node) => statusOf(fs, access, overlay, node)));
  return found.map(({ disk, usage }) => ({ ...disk, ...usage() }));
}

function statusOf(fs: CowFs, access: DiskAccess, overlay: string | undefined, node: NodeId): Found {
  const { inodes, namespace, sessions } = fs;
  const name = namespace.pathLocked(node);
  const session = inodes.get(node, INODE.CONTENT);
  const top = sessions.top(session);
  const fd = sessions.cloned.file(session);
  return {
    disk: {
      name,
      path: access.full(name),
      pathByNumber: access.full(pathByNumber(node)),
      removed: inodes.parent(node) === NO_NODE,
      size: sessions.sizeBytes(session),
      openHandles: inodes.get(node, INODE.OPEN_HANDLES),
      layers: sessions.layers.depth(top),
      snapshots: snapshotsOf(fs, node),
      overlay: session === sessions.kept.session ? (overlay ?? null) : null,
      storeFile: fd === undefined ? null : `/proc/${process.pid}/fd/${fd}`,
    },
    usage: fd === undefined ? constant(layersUsage(fs, top)) : fileUsage(fd),
  };
}

function layersUsage({ sessions: { layers } }: CowFs, top: number): Usage {
  return { writtenBytes: layers.writtenBytes(top), storeBytes: layers.usedBytes(top) };
}

function constant<T>(value: T): () => T {
  return () => value;
}

/** Found out later, without the lock: a file in many pieces takes a while. The disk may be gone by then, its file is not. */
function fileUsage(fd: number): () => Usage {
  const own = openSync(`/proc/self/fd/${fd}`, 'r');
  return () => {
    try {
      const bytes = unsharedBytes(own);
      return { writtenBytes: bytes, storeBytes: bytes };
    } finally {
      closeSync(own);
    }
  };
}

function snapshotsOf({ inodes, sessions }: CowFs, node: NodeId): SnapshotStatus[] {
  const snapshots: SnapshotStatus[] = [];
  for (let child = inodes.childAfter(node, 0); child !== NO_NODE; child = inodes.next(child)) {
    snapshots.push({
      name: inodes.name(child),
      size: sessions.layerBytes(inodes.get(child, INODE.CONTENT)),
      createdAt: new Date(new SharedAttributes(inodes, child).seconds('CTIME') * 1000).toISOString(),
    });
  }
  return snapshots;
}
