/**
 * A mount's file system as plain data, which the main thread makes once and every worker turns into its own `CowFs`
 * over the same descriptors and shared memory.
 */
import { Base, type BaseDescriptor } from '../base/base.ts';
import { Disk } from '../overlay/disk.ts';
import type { OverlayShared } from '../overlay/shared.ts';
import { Store } from '../overlay/store.ts';
import { SharedAttributes } from './attributes.ts';
import { CowFs } from './cow-fs.ts';
import type { DiskFile } from './disk-file.ts';
import type { CowFsOptions } from './options.ts';

interface DiskSpec {
  readonly name: string;
  readonly base: BaseDescriptor;
  /** Blocks of 512 bytes that the base takes on its file system. */
  readonly baseBlocks: number;
  readonly storeFd: number;
  readonly overlay: OverlayShared;
  readonly attributes: SharedArrayBuffer;
}

export interface FsSpec {
  readonly disks: readonly DiskSpec[];
  readonly options: CowFsOptions;
}

export function openDisks(spec: FsSpec): DiskFile[] {
  return spec.disks.map(({ name, base, baseBlocks, storeFd, overlay, attributes }) => {
    const store = new Store(storeFd);
    const disk = new Disk(new Base(base), store, overlay, spec.options.maxStoreBytes);
    return {
      name,
      disk,
      store,
      baseBlocks,
      attributes: new SharedAttributes(attributes),
    };
  });
}

export function openFs(spec: FsSpec): CowFs {
  return new CowFs(openDisks(spec), spec.options);
}
