/**
 * A mount's file system as plain data, which the main thread makes once and every thread turns into its own `CowFs`
 * over the same descriptors and shared memory.
 */
import { Base, type BaseDescriptor } from '../base/base.ts';
import { OverlayFile, type OverlayFileSpec } from '../overlay/file/overlay-file.ts';
import { type OverlayMemory, Sessions } from '../overlay/sessions.ts';
import { StoreDirectory } from '../overlay/store-directory.ts';
import { CowFs } from './cow-fs.ts';
import { Inodes } from './inodes.ts';
import type { CowFsOptions } from './options.ts';

export interface FsSpec {
  readonly base: BaseDescriptor;
  /** Descriptor of the directory in which stores are made. */
  readonly storeDirectoryFd: number;
  readonly overlay: OverlayMemory;
  readonly inodes: SharedArrayBuffer;
  /** Whether fresh disks are clones of the base. */
  readonly clonesBase: boolean;
  /** The file behind the kept disk, if there is one. */
  readonly overlayFile: OverlayFileSpec | undefined;
  readonly options: CowFsOptions;
}

/** The main thread's number; workers follow, then the keeper, then the lanes of a thread that has several. */
export const MAIN_THREAD = 0;

/** Most transfers that one thread has under way at a time: as many as a word has bits. */
export const LANES = 32;

export function keeperThread(workers: number): number {
  return MAIN_THREAD + 1 + workers;
}

export function firstLane(workers: number): number {
  return keeperThread(workers) + 1;
}

/** Numbers that are given out in all. */
export function threadsOf(workers: number): number {
  return firstLane(workers) + LANES;
}

/** @param thread number of the thread that it is for, each its own */
export function openFs(spec: FsSpec, thread: number): CowFs {
  const sessions = new Sessions({
    memory: spec.overlay,
    thread,
    base: new Base(spec.base),
    directory: new StoreDirectory(spec.storeDirectoryFd),
    quotas: spec.options.quotas,
    clonesBase: spec.clonesBase,
    file: spec.overlayFile === undefined ? undefined : new OverlayFile(spec.overlayFile),
  });
  return new CowFs(new Inodes(spec.inodes), sessions, spec.options);
}
