/**
 * Turns mount options into an opened base, a temporary store and the description of the file system over them. Main
 * thread, before the mount; whatever is refused here leaves nothing behind.
 */
import { closeSync } from 'node:fs';
import { type OpenedBase, openBase } from '../base/open.ts';
import { SharedAttributes } from '../fs/attributes.ts';
import type { KernelCaching } from '../fs/options.ts';
import type { FsSpec } from '../fs/spec.ts';
import { CowfsError } from '../lib/error.ts';
import { formatBytes } from '../lib/units.ts';
import { MAX_DISK_BYTES } from '../overlay/block.ts';
import { Disk } from '../overlay/disk.ts';
import { openTempStore } from '../overlay/temp-store.ts';
import type { MountOptions } from './options.ts';

export interface Prepared {
  readonly base: OpenedBase;
  /** Everything but what only the kernel decides. */
  readonly describe: (caching: KernelCaching) => FsSpec;
}

/** @throws CowfsError that names what is wrong with the base, the store or the size */
export function prepare(options: MountOptions): Prepared {
  const base = openBase(options.base, options.force);
  try {
    const sizeBytes = diskSize(options, base);
    const storeFd = openTempStore(options.storeDirectory);
    const uid = process.geteuid?.() ?? 0;
    const gid = process.getegid?.() ?? 0;
    const overlay = Disk.create(base.descriptor.sizeBytes, sizeBytes);
    const attributes = SharedAttributes.create(modeOf(options), uid, gid, base.stats.mtimeMs);
    const baseBlocks = base.kind === 'file' ? base.stats.blocks : Math.ceil(base.descriptor.sizeBytes / 512);
    const disk = {
      name: options.name,
      base: base.descriptor,
      baseBlocks,
      storeFd,
      overlay,
      attributes,
    };
    const mountedAtMs = Date.now();
    return {
      base,
      describe: (caching) => ({
        disks: [disk],
        options: {
          ...caching,
          cacheMode: options.cacheMode,
          readOnly: options.readOnly,
          maxStoreBytes: options.maxStoreBytes,
          uid,
          gid,
          allowOther: options.allowOther,
          mountedAtMs,
        },
      }),
    };
  } catch (error) {
    closeSync(base.descriptor.fd);
    throw error;
  }
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
