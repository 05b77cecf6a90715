/**
 * Turns mount options into an opened base, a place for stores and the description of the file system over them. Main
 * thread, before the mount; whatever is refused here leaves nothing behind.
 */
import { closeSync } from 'node:fs';
import { type OpenedBase, openBase } from '../base/open.ts';
import { SharedAttributes } from '../fs/attributes.ts';
import type { CowFs } from '../fs/cow-fs.ts';
import { INODE, Inodes } from '../fs/inodes.ts';
import { ROOT_NODE } from '../fs/node.ts';
import type { KernelCaching } from '../fs/options.ts';
import { type FsSpec, MAIN_THREAD, openFs, threadsOf } from '../fs/spec.ts';
import { errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import { MAX_DISK_BYTES } from '../overlay/block.ts';
import { openFinished } from '../overlay/commit/open-finished.ts';
import type { KeptDisk } from '../overlay/file/keep.ts';
import { Sessions } from '../overlay/sessions.ts';
import { StoreDirectory } from '../overlay/store-directory.ts';
import { checkDirectory, openTempStore } from '../overlay/temp-store.ts';
import type { MountOptions } from './options.ts';
import { checkNotMounted } from './registry.ts';
import { type ChosenStrategy, chooseStrategy } from './store-strategy.ts';

export interface Prepared {
  readonly base: OpenedBase;
  /** Everything but what only the kernel decides. */
  readonly describe: (caching: KernelCaching) => FsSpec;
  readonly strategy: ChosenStrategy;
  /** Behind the first disk, where that is kept. */
  readonly kept: KeptDisk | undefined;
  /** What the user should know. */
  readonly warnings: readonly string[];
}

/** @throws CowfsError that names what is wrong with the base, the store or the size */
export async function prepare(options: MountOptions): Promise<Prepared> {
  if (options.overlay !== undefined) checkNotMounted(options.overlay);
  const { opened: base, finished } = await openFinished(
    options.base,
    () => openBase(options.base, options.force),
    ({ descriptor }) => closeSync(descriptor.fd),
  );
  try {
    const diskBytes = diskSize(options, base);
    const kept = await keep(options, base, diskBytes);
    // Whether it can be written to is found out now, not at the guest's first write. What is kept must come to light
    // although there is no room beside it.
    if (kept === undefined) closeSync(openTempStore(options.storeDirectory));
    else checkDirectory(options.storeDirectory);
    const strategy = chooseStrategy(options, base);
    const storeDirectoryFd = StoreDirectory.open(options.storeDirectory);
    const overlay = Sessions.create(threadsOf(options.threads));
    const inodes = Inodes.create();
    const { cacheMode, readOnly, allowOther, maxStoreBytes, maxSessionStoreBytes } = options;
    const describe = (caching: KernelCaching): FsSpec => ({
      base: base.descriptor,
      storeDirectoryFd,
      overlay,
      inodes,
      clonesBase: strategy.strategy === 'reflink',
      overlayFile: kept?.spec,
      options: {
        ...caching,
        cacheMode,
        readOnly,
        quotas: { maxStoreBytes, maxSessionStoreBytes },
        diskBytes,
        suffixes: options.suffixes,
        allowOther,
      },
    });
    const fs = openFs(
      describe({ coherentDirect: false, sizeMayLag: false, sizelessFiles: false, passthroughFd: undefined }),
      MAIN_THREAD,
    );
    makeDisks(fs, options, diskBytes, base.stats.mtimeMs, kept);
    const warnings = [...(finished === undefined ? [] : [finished]), ...base.warnings, ...(kept?.warnings ?? [])];
    return { base, describe, strategy, kept, warnings };
  } catch (error) {
    closeSync(base.descriptor.fd);
    throw error;
  }
}

/** Most mounts keep nothing: they load nothing for it. */
async function keep(
  { overlay, force }: MountOptions,
  base: OpenedBase,
  diskBytes: number,
): Promise<KeptDisk | undefined> {
  if (overlay === undefined) return undefined;
  return (await import('../overlay/file/keep.ts')).keepIn(overlay, base, diskBytes, force);
}

/**
 * Makes the disks that are there from the start; their times are the base's. Their stores are opened at once, so that
 * the directory may go; those of later disks are at the first write.
 */
function makeDisks(
  { inodes, namespace, sessions }: CowFs,
  options: MountOptions,
  diskBytes: number,
  mtimeMs: number,
  kept: KeptDisk | undefined,
): void {
  const uid = process.geteuid?.() ?? 0;
  const gid = process.getegid?.() ?? 0;
  const file = { mode: modeOf(options), uid, gid };
  for (const [index, name] of options.names.entries()) {
    const errno = namespace.create(ROOT_NODE, name, file, diskBytes);
    if (errno !== OK) throw new CowfsError('usage', `session ${name}: ${errnoName(errno)}; give another name`);
    const node = namespace.found;
    new SharedAttributes(inodes, node).initialise(file.mode, uid, gid, mtimeMs);
    const session = inodes.get(node, INODE.CONTENT);
    if (sessions.cloned.file(session) !== undefined) continue;
    if (index > 0 || kept === undefined) sessions.giveStore(session, openTempStore(options.storeDirectory));
    else keepFirst(sessions, session, kept, options.sizeBytes);
  }
  // Last, as making names has changed its times.
  new SharedAttributes(inodes, ROOT_NODE).initialise(options.allowOther ? 0o755 : 0o700, uid, gid, Date.now());
}

/** Only the first disk is kept: its size is what it was, or larger. */
function keepFirst(sessions: Sessions, session: number, kept: KeptDisk, sizeBytes: number | undefined): void {
  sessions.kept.keep(session, kept.spec.fd, kept.header, (layer) => {
    kept.load(layer.map);
    if (sizeBytes !== undefined) layer.extent.growTo(sizeBytes);
  });
}

function diskSize({ sizeBytes }: MountOptions, base: OpenedBase): number {
  const baseBytes = base.descriptor.sizeBytes;
  if (sizeBytes !== undefined && sizeBytes < baseBytes) {
    throw new CowfsError(
      'usage',
      `--size ${formatBytes(sizeBytes)} is less than the base's ${formatBytes(baseBytes)}; give a larger one, or shrink the disk in the mount`,
    );
  }
  const size = sizeBytes ?? baseBytes;
  if (size > MAX_DISK_BYTES) {
    throw new CowfsError(
      'usage',
      `a disk of ${formatBytes(size)} is too large; ${formatBytes(MAX_DISK_BYTES)} is the most`,
    );
  }
  return size;
}

/** A private disk is its owner's alone; one that others may see is theirs to use, too. `chmod` changes it. */
function modeOf({ allowOther, readOnly }: MountOptions): number {
  return (allowOther ? 0o666 : 0o600) & (readOnly ? 0o444 : 0o777);
}
