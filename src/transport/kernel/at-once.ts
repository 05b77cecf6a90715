/**
 * Which files a thread with a ring reads or writes by itself, at once: those for which the ring would have a thread of the
 * kernel's do it, although it takes no time. Found out before the thread serves, since the question itself may have to wait
 * for the file system.
 */
import { statfsSync } from 'node:fs';
import type { FsSpec } from '../../fs/spec.ts';

/** File systems by what statfs(2) calls them (linux/magic.h). */
const TMPFS = 0x0102_1994;
const RAMFS = 0x8584_58f6;
const EXT4 = 0xef53;

const NOTHING = 0;
const WRITES = 1;
const READS_AND_WRITES = 2;

export class AtOnce {
  readonly #baseFd: number;
  readonly #base: number;
  readonly #keptFd: number;
  readonly #kept: number;
  /** Every other descriptor is a store's, and those are all in one directory. */
  readonly #stores: number;

  constructor({ base, storeDirectoryFd, overlayFile }: FsSpec) {
    this.#baseFd = base.fd;
    this.#base = kindOf(base.fd);
    this.#keptFd = overlayFile?.fd ?? -1;
    this.#kept = overlayFile === undefined ? NOTHING : kindOf(overlayFile.fd);
    this.#stores = kindOf(storeDirectoryFd);
  }

  reads(fd: number): boolean {
    return this.#of(fd) === READS_AND_WRITES;
  }

  writes(fd: number): boolean {
    return this.#of(fd) !== NOTHING;
  }

  #of(fd: number): number {
    if (fd === this.#baseFd) return this.#base;
    return fd === this.#keptFd ? this.#kept : this.#stores;
  }
}

/** Files in memory are there; writes to ext4 go to memory, but it cannot say beforehand whether they will have to wait. */
function kindOf(fd: number): number {
  const { type } = statfsSync(`/proc/self/fd/${fd}`);
  if (type === TMPFS || type === RAMFS) return READS_AND_WRITES;
  return type === EXT4 ? WRITES : NOTHING;
}
