/**
 * What a qcow2 image of version 3 consists of: which clusters of the disk are in it, and the bytes that are not data,
 * header, table entries, reference counts. Writes nothing, that is `qcow2.ts`. Names are those of the specification,
 * docs/interop/qcow2.txt of QEMU. Left out: snapshots, bitmaps, encryption, compression, extended L2 entries.
 */
import { CowfsError } from '../../lib/error.ts';
import { BLOCK_BYTES, STORE, ZERO } from '../block.ts';
import type { ExportSource } from './source.ts';

/** QEMU counts disks in these (BDRV_SECTOR_SIZE); a size between two of them would not open. */
const SECTOR_BYTES = 512;

/** Bytes of an entry of the L1 table, an L2 table and the refcount table: a 64-bit number, big endian. */
export const ENTRY_BYTES = 8;

/**
 * Without a backing file: QEMU's own default, and what it is tuned for. With one: a block of the overlay, so that a
 * block that was written takes no more than itself in the image.
 */
const STANDALONE_CLUSTER_BITS = 16;
const BACKED_CLUSTER_BITS = 12;
/** MAX_CLUSTER_BITS of QEMU. A disk as large as 2^53 - 1 bytes does with less. */
const MAX_CLUSTER_BITS = 21;

/**
 * Most bytes of the L1 table. QEMU takes 32 MiB (QCOW_MAX_L1_SIZE), but keeps all of it in memory, as we do, and it is
 * in the file however little was written. Clusters of 4 KiB do for disks of 1 TiB; each doubling of the cluster does
 * for four times that, so that 4 PiB end at 256 KiB. The refcount table, of which QEMU takes 8 MiB, is then below
 * 2 MiB even if all of the disk is in the image.
 */
const MAX_L1_BYTES = 2 ** 22;

export interface Geometry {
  readonly cluster_bits: number;
  readonly clusterBytes: number;
  /** Virtual size in bytes: the disk's, rounded up to whole sectors. */
  readonly size: number;
  /** Clusters of the virtual disk; the last one may be cut off by its end. */
  readonly clusters: number;
  /** Clusters that one L2 table maps. */
  readonly l2_entries: number;
  readonly l1_size: number;
}

/** The smallest clusters that keep the L1 table small. */
export function geometryOf(sizeBytes: number, hasBacking: boolean): Geometry {
  const size = Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
  for (let cluster_bits = hasBacking ? BACKED_CLUSTER_BITS : STANDALONE_CLUSTER_BITS; ; cluster_bits++) {
    const clusterBytes = 2 ** cluster_bits;
    const clusters = Math.ceil(size / clusterBytes);
    const l2_entries = clusterBytes / ENTRY_BYTES;
    const l1_size = Math.ceil(clusters / l2_entries);
    if (l1_size * ENTRY_BYTES <= MAX_L1_BYTES || cluster_bits === MAX_CLUSTER_BITS) {
      return { cluster_bits, clusterBytes, size, clusters, l2_entries, l1_size };
    }
  }
}

/** What becomes of a cluster: the image has nothing of it; or says it is zeros; or has its content. */
export const UNALLOCATED = 0;
export const ZEROS = 1;
export const DATA = 2;

export interface ClusterMap {
  /** What becomes of the clusters of the run that `runAt` found last. */
  readonly kind: typeof UNALLOCATED | typeof ZEROS | typeof DATA;
  /** How many clusters from `cluster` on are of one kind, at least 1, at most up to the end of the disk. */
  runAt(cluster: number): number;
  /** From this cluster on there is no backing file, and what is unallocated reads as zeros. */
  readonly backingEnd: number;
}

/** Stand-alone: a cluster with any data is a data cluster. */
export class DataClusters implements ClusterMap {
  kind: ClusterMap['kind'] = UNALLOCATED;
  readonly backingEnd = 0;
  readonly #source: ExportSource;
  readonly #geometry: Geometry;

  constructor(source: ExportSource, geometry: Geometry) {
    this.#source = source;
    this.#geometry = geometry;
  }

  runAt(cluster: number): number {
    const { clusterBytes, clusters } = this.#geometry;
    const end = this.#source.sizeBytes;
    const data = this.#source.nextData(cluster * clusterBytes, end);
    const first = data < end ? Math.floor(data / clusterBytes) : clusters;
    this.kind = first > cluster ? UNALLOCATED : DATA;
    if (first > cluster) return first - cluster;
    // A file system may change its mind about holes between two questions: never a run of none.
    return Math.max(1, Math.ceil(this.#source.nextHole(data, end) / clusterBytes) - cluster);
  }
}

/** Over a backing file: a cluster that differs in any block is a data cluster, unless all of it is zeros. */
export class WrittenClusters implements ClusterMap {
  kind: ClusterMap['kind'] = UNALLOCATED;
  readonly backingEnd: number;
  readonly #source: ExportSource;
  readonly #clusters: number;
  readonly #clusterBlocks: number;
  readonly #blocks: number;
  /** Whether the rounded up size would show something of the backing file that lies past the disk's end. */
  readonly #showsTail: boolean;

  constructor(source: ExportSource, { clusterBytes, clusters, size }: Geometry, backingBytes: number) {
    this.#source = source;
    this.#clusters = clusters;
    this.#clusterBlocks = clusterBytes / BLOCK_BYTES;
    this.#blocks = Math.ceil(source.sizeBytes / BLOCK_BYTES);
    this.backingEnd = Math.ceil(backingBytes / clusterBytes);
    this.#showsTail = size > source.sizeBytes && backingBytes > source.sizeBytes;
  }

  runAt(cluster: number): number {
    const last = this.#clusters - 1;
    if (this.#showsTail && cluster === last) {
      this.kind = DATA;
      return 1;
    }
    const run = this.#differenceRun(cluster);
    return this.#showsTail ? Math.min(run, last - cluster) : run;
  }

  #differenceRun(cluster: number): number {
    const block = cluster * this.#clusterBlocks;
    const run = this.#source.differenceAt(block, this.#blocks - block);
    const { difference } = this.#source;
    // The last cluster is whole if all of the disk that is in it is.
    const end = block + run === this.#blocks ? this.#clusters : Math.floor((block + run) / this.#clusterBlocks);
    if (end === cluster) {
      this.kind = DATA;
      return 1;
    }
    if (difference === STORE) this.kind = DATA;
    else this.kind = difference === ZERO && cluster < this.backingEnd ? ZEROS : UNALLOCATED;
    return (this.kind === ZEROS ? Math.min(end, this.backingEnd) : end) - cluster;
  }
}

/** Bit 63, of the upper half: the cluster that an L1 or L2 entry names has a refcount of exactly 1. */
export const COPIED = 0x8000_0000;

/** L2 entry of a cluster that reads as zeros whatever the backing file has there, and has no place in the image. */
export const ZERO_ENTRY = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 1]);

/** @param flags of the upper half */
export function putEntry(table: DataView, index: number, offset: number, flags: number): void {
  table.setUint32(index * ENTRY_BYTES, (Math.floor(offset / 2 ** 32) | flags) >>> 0);
  table.setUint32(index * ENTRY_BYTES + 4, offset % 2 ** 32);
}

/** A refcount is 2 to this power bits, 16 of them: the default, and all that version 2 knows. */
const REFCOUNT_ORDER = 4;
const REFCOUNT_BYTES = 2;
/** As big endian: every cluster is referred to once. */
export const REFCOUNT_ONE = new Uint8Array([0, 1]);

export interface Refcounts {
  readonly refcount_block_entries: number;
  readonly refcount_table_clusters: number;
  /** Refcount blocks, a cluster each. */
  readonly blocks: number;
  /** Clusters of the whole image: those before, the table and the blocks. */
  readonly clusters: number;
}

/** What it takes to count the references of an image of so many clusters, and of what counts them. */
export function refcountsOf(clustersBefore: number, clusterBytes: number): Refcounts {
  const refcount_block_entries = clusterBytes / REFCOUNT_BYTES;
  let blocks = 0;
  for (;;) {
    const refcount_table_clusters = Math.ceil((blocks * ENTRY_BYTES) / clusterBytes);
    const clusters = clustersBefore + refcount_table_clusters + blocks;
    const needed = Math.ceil(clusters / refcount_block_entries);
    if (needed === blocks) return { refcount_block_entries, refcount_table_clusters, blocks, clusters };
    blocks = needed;
  }
}

/** Where each field of the header is, in bytes. */
const HEADER = {
  magic: 0,
  version: 4,
  backing_file_offset: 8,
  backing_file_size: 16,
  cluster_bits: 20,
  size: 24,
  crypt_method: 32,
  l1_size: 36,
  l1_table_offset: 40,
  refcount_table_offset: 48,
  refcount_table_clusters: 56,
  nb_snapshots: 60,
  snapshots_offset: 64,
  incompatible_features: 72,
  compatible_features: 80,
  autoclear_features: 88,
  refcount_order: 96,
  header_length: 100,
  BYTES: 104,
} as const;

const MAGIC = 0x514649fb; // QFI\xfb
const VERSION = 3;

/** A header extension: type, length of its data, the data padded to a multiple of 8; type 0 ends them. */
const EXTENSION = { type: 0, length: 4, data: 8 } as const;
const BACKING_FORMAT = 0xe2792aca;
const FORMAT = Buffer.from('raw');
const EXTENSION_BYTES = EXTENSION.data + Math.ceil(FORMAT.length / 8) * 8;
const END_BYTES = EXTENSION.data;

/** Longest name of a backing file, in bytes; QEMU refuses longer ones, too. */
const MAX_BACKING_NAME_BYTES = 1023;

/**
 * The name of a backing file as it is written. QEMU takes what stands before a colon for a protocol, unless a slash
 * comes first.
 *
 * @throws CowfsError when it is too long
 */
export function backingName(path: string): Buffer {
  const name = Buffer.from(/^[^/]*:/.test(path) ? `./${path}` : path);
  if (name.length <= MAX_BACKING_NAME_BYTES) return name;
  throw new CowfsError(
    'usage',
    `a qcow2 image takes a backing file's path of ${MAX_BACKING_NAME_BYTES} bytes, and that of the base has ` +
      `${name.length}; give the base a shorter one (a symlink will do), or export without a backing file`,
  );
}

export interface Header extends Geometry {
  readonly l1_table_offset: number;
  readonly refcount_table_offset: number;
  readonly refcount_table_clusters: number;
  /** Name of the backing file; undefined if there is none. */
  readonly backing: Buffer | undefined;
}

/** The first cluster up to its last byte that is not zero: header, extensions, name of the backing file. */
export function encodeHeader(header: Header): Buffer {
  const { backing } = header;
  const extensionsBytes = backing === undefined ? END_BYTES : EXTENSION_BYTES + END_BYTES;
  const nameAt = HEADER.BYTES + extensionsBytes;
  const bytes = Buffer.alloc(nameAt + (backing?.length ?? 0));
  const put32 = (at: number, value: number): number => bytes.writeUInt32BE(value, at);
  const put64 = (at: number, value: number): void => {
    put32(at, Math.floor(value / 2 ** 32));
    put32(at + 4, value % 2 ** 32);
  };
  put32(HEADER.magic, MAGIC);
  put32(HEADER.version, VERSION);
  put32(HEADER.cluster_bits, header.cluster_bits);
  put64(HEADER.size, header.size);
  put32(HEADER.l1_size, header.l1_size);
  put64(HEADER.l1_table_offset, header.l1_table_offset);
  put64(HEADER.refcount_table_offset, header.refcount_table_offset);
  put32(HEADER.refcount_table_clusters, header.refcount_table_clusters);
  put32(HEADER.refcount_order, REFCOUNT_ORDER);
  put32(HEADER.header_length, HEADER.BYTES);
  if (backing !== undefined) {
    put64(HEADER.backing_file_offset, nameAt);
    put32(HEADER.backing_file_size, backing.length);
    put32(HEADER.BYTES + EXTENSION.type, BACKING_FORMAT);
    put32(HEADER.BYTES + EXTENSION.length, FORMAT.length);
    FORMAT.copy(bytes, HEADER.BYTES + EXTENSION.data);
    backing.copy(bytes, nameAt);
  }
  return bytes;
}
