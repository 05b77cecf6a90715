/**
 * Disks that are kept in overlay files, in the test's own process: as the daemon makes them ready (`daemon/prepare.ts`),
 * and the same with less ceremony for tests that open thousands of files.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Base, type BaseDescriptor } from '../../../src/base/base.ts';
import { openBase } from '../../../src/base/open.ts';
import type { Disk } from '../../../src/overlay/disk.ts';
import { keepIn } from '../../../src/overlay/file/keep.ts';
import type { Header } from '../../../src/overlay/file/layout.ts';
import { loadMap, specOf } from '../../../src/overlay/file/load.ts';
import { type Access, openOverlay } from '../../../src/overlay/file/open.ts';
import { OverlayFile, type OverlayFileSpec } from '../../../src/overlay/file/overlay-file.ts';
import type { Layer } from '../../../src/overlay/layer.ts';
import { closeStores } from '../../../src/overlay/layers.ts';
import { type OverlayMemory, Sessions } from '../../../src/overlay/sessions.ts';
import { StoreDirectory } from '../../../src/overlay/store-directory.ts';
import { scratch } from '../../harness.ts';

const NO_QUOTAS = { maxStoreBytes: undefined, maxSessionStoreBytes: undefined };
/** linux/magic.h */
const TMPFS_MAGIC = 0x01021994;

export interface KeptMount {
  readonly sessions: Sessions;
  readonly session: number;
  readonly disk: Disk;
  readonly spec: OverlayFileSpec;
  readonly base: BaseDescriptor;
  readonly memory: OverlayMemory;
  /** Without a last sync, as when the daemon is killed. */
  close(): void;
}

/** Where thousands of files can be made fast: in memory, if there is such a place. */
export function fastScratch(): string {
  if (process.env['COWFS_TEST_DIR'] !== undefined) return scratch();
  try {
    if (statfsSync('/dev/shm').type !== TMPFS_MAGIC) return scratch();
    const directory = mkdtempSync('/dev/shm/cowfs-test-');
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  } catch {
    return scratch();
  }
}

/** A sparse base with data in places. */
export function makeSparseBase(path: string, sizeBytes: number, data: readonly (readonly [number, Buffer])[]): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  for (const [offset, bytes] of data) writeSync(fd, bytes, 0, Math.min(bytes.length, sizeBytes - offset), offset);
  closeSync(fd);
}

/** Opens or makes the overlay file as `cowfs mount --overlay` does. */
export function mountKept(overlay: string, basePath: string, sizeBytes?: number): KeptMount {
  const base = openBase(basePath, false);
  const kept = keepIn(overlay, base, sizeBytes ?? base.descriptor.sizeBytes, false);
  const load = (layer: Layer): void => {
    kept.load(layer.map);
    if (sizeBytes !== undefined) layer.extent.growTo(sizeBytes);
  };
  const memory = Sessions.create(8);
  const mount = serve({ ...kept, base: base.descriptor, memory, load, closesBase: true });
  kept.publish();
  return mount;
}

/** Of all disks that `openKept` opens, one after the other. */
let shared: OverlayMemory | undefined;

/** Opens an overlay file without a look at what the base is. */
export function openKept(overlay: string, access: Access, base: BaseDescriptor): KeptMount {
  shared ??= Sessions.create(1);
  const opened = openOverlay(overlay, 'overlay', access);
  const { header } = opened;
  const spec = specOf(opened);
  const load = ({ map }: Layer): void => loadMap(opened, spec, map);
  return serve({ header, spec, base, memory: shared, load, closesBase: false });
}

interface Served {
  readonly header: Header;
  readonly spec: OverlayFileSpec;
  readonly base: BaseDescriptor;
  readonly memory: OverlayMemory;
  readonly load: (layer: Layer) => void;
  readonly closesBase: boolean;
}

function serve({ header, spec, base, memory, load, closesBase }: Served): KeptMount {
  const directoryFd = StoreDirectory.open('/');
  const sessions = sessionsOf(memory, 0, base, directoryFd, spec);
  const session = sessions.create(header.diskBytes);
  const close = (): void => {
    closeStores(sessions.discard(session));
    closeSync(spec.fd);
    if (closesBase) closeSync(base.fd);
    StoreDirectory.close(directoryFd);
  };
  try {
    sessions.kept.keep(session, spec.fd, header, load);
    return { sessions, session, disk: sessions.open(session), spec, base, memory, close };
  } catch (error) {
    close();
    throw error;
  }
}

function sessionsOf(
  memory: OverlayMemory,
  thread: number,
  base: BaseDescriptor,
  directoryFd: number,
  spec: OverlayFileSpec,
): Sessions {
  return new Sessions({
    memory,
    thread,
    base: new Base(base),
    directory: new StoreDirectory(directoryFd),
    quotas: NO_QUOTAS,
    file: new OverlayFile(spec),
  });
}

/** A base that stays open until the test ends, for `openKept`. */
export function useBase(path: string): BaseDescriptor {
  const { descriptor } = openBase(path, false);
  onTestFinished(() => closeSync(descriptor.fd));
  return descriptor;
}

/** Of the base in a directory. */
export function basePath(directory: string): string {
  return join(directory, 'base.img');
}
