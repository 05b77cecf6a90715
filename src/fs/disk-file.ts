/**
 * A disk as a file in the mount: its name, its bytes, where they go, and what stat(2) says of it.
 */
import type { Disk } from '../overlay/disk.ts';
import type { Store } from '../overlay/store.ts';
import type { SharedAttributes } from './attributes.ts';

export interface DiskFile {
  readonly name: string;
  readonly disk: Disk;
  readonly store: Store;
  readonly attributes: SharedAttributes;
  /** Blocks of 512 bytes that the base takes on its file system. */
  readonly baseBlocks: number;
}
