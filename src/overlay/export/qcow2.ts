/**
 * Writes a disk as a qcow2 image, in one pass from front to back: data clusters as they come, each L2 table behind its
 * own, then the L1 table and the reference counts, whose sizes are known only then, and the header last. So nothing
 * has to be the same in two passes (where a file system sees holes may change under us), clusters that turn out to be
 * zeros need no place, and half of an image is not taken for one. Runs in a command's process. Memory, however large
 * the disk: `BUFFER_BYTES`, a few clusters (256 KiB at most each), the L1 and the refcount table (4 and 2 MiB at most).
 *
 * Measured on 2 cores, ext4, into the page cache: 1 GiB written in one piece 0.2 to 0.4 s (`qemu-img convert` of the
 * same 0.26 s), 131072 single blocks 0.4 s, two blocks of 64 GiB 4 ms, 1 TiB trimmed from end to end 0.6 s.
 */
import { type Errno, OK } from '../../lib/errno.ts';
import { writeAll } from '../../sys/file-bytes.ts';
import { readError, writeError } from './copy.ts';
import {
  backingName,
  type ClusterMap,
  COPIED,
  DATA,
  DataClusters,
  ENTRY_BYTES,
  encodeHeader,
  type Geometry,
  geometryOf,
  putEntry,
  REFCOUNT_ONE,
  refcountsOf,
  UNALLOCATED,
  WrittenClusters,
  ZERO_ENTRY,
  ZEROS,
} from './qcow2-layout.ts';
import type { ExportSource, OnProgress } from './source.ts';

export interface Qcow2Options {
  /** What the file is called in messages. */
  readonly what: string;
  /** The base as qcow2 backing file (format raw); undefined: stand-alone, everything is in the file. */
  readonly backing: { readonly path: string; readonly sizeBytes: number } | undefined;
  readonly onProgress: OnProgress;
}

/**
 * Writes the image from offset 0 of an empty file. Does not fsync or close.
 *
 * A size that is no multiple of 512 bytes, QEMU's sector, is rounded up, with zeros in what that adds. With a backing
 * file the image has the clusters in which something was written, and marks as zeros those that were trimmed or are
 * full of zeros (8 bytes each, so a base trimmed from end to end costs 1/512 of its size at 4 KiB a cluster).
 * Without one it has all clusters with data, but for those that read as zeros.
 *
 * @throws CowfsError: the path of the backing file is too long, reading the disk failed, or writing the image
 */
export function exportQcow2(source: ExportSource, fd: number, options: Qcow2Options): void {
  new Qcow2Export(source, fd, options).run();
}

/** As much as is read or written at once. At least a cluster. */
const BUFFER_BYTES = 2 ** 20;

/** The image from its start to its end, through one buffer. */
class Appender {
  readonly bytes = Buffer.allocUnsafe(BUFFER_BYTES);
  /** Where in `bytes` the next byte goes; before it is what has not been written yet. */
  fill = 0;
  readonly #what: string;
  readonly #fd: number;
  readonly #onWritten: () => void;
  #written = 0;

  constructor(what: string, fd: number, onWritten: () => void) {
    this.#what = what;
    this.#fd = fd;
    this.#onWritten = onWritten;
  }

  /** Where in the file the next byte goes. */
  get end(): number {
    return this.#written + this.fill;
  }

  makeRoom(length: number): void {
    if (this.fill + length > BUFFER_BYTES) this.flush();
  }

  append(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      this.makeRoom(1);
      const copied = bytes.copy(this.bytes, this.fill, at);
      this.fill += copied;
      at += copied;
    }
  }

  flush(): void {
    writeOrThrow(this.#what, this.#fd, this.#written, this.bytes.subarray(0, this.fill));
    this.#written += this.fill;
    this.fill = 0;
    this.#onWritten();
  }
}

function writeOrThrow(what: string, fd: number, offset: number, bytes: Uint8Array): void {
  const errno: Errno = writeAll(fd, offset, bytes.length, bytes, 0);
  if (errno === OK) return;
  throw writeError(what, errno);
}

class Qcow2Export {
  readonly #source: ExportSource;
  readonly #what: string;
  readonly #fd: number;
  readonly #onProgress: OnProgress;
  readonly #geometry: Geometry;
  readonly #backing: Buffer | undefined;
  readonly #map: ClusterMap;
  readonly #file: Appender;
  readonly #zeros: Buffer;
  readonly #l1: Buffer;
  /** The L2 table that is being filled: of this index, and whether it has an entry. */
  readonly #l2: Buffer;
  readonly #l2View: DataView;
  #l2Index = 0;
  #isL2Used = false;
  #doneBytes = 0;
  #toldBytes = 0;
  #totalBytes = 0;

  constructor(source: ExportSource, fd: number, { what, backing, onProgress }: Qcow2Options) {
    this.#source = source;
    this.#what = what;
    this.#fd = fd;
    this.#onProgress = onProgress;
    this.#geometry = geometryOf(source.sizeBytes, backing !== undefined);
    this.#backing = backing && backingName(backing.path);
    this.#map = backing
      ? new WrittenClusters(source, this.#geometry, backing.sizeBytes)
      : new DataClusters(source, this.#geometry);
    this.#file = new Appender(what, fd, () => this.#tell());
    const { clusterBytes, l1_size } = this.#geometry;
    this.#zeros = Buffer.alloc(clusterBytes);
    this.#l1 = Buffer.alloc(Math.ceil((l1_size * ENTRY_BYTES) / clusterBytes) * clusterBytes);
    this.#l2 = Buffer.alloc(clusterBytes);
    this.#l2View = viewOf(this.#l2);
  }

  run(): void {
    this.#eachRun((_, run, kind) => {
      if (kind === DATA) this.#totalBytes += run * this.#geometry.clusterBytes;
    });
    this.#tell();
    // The header's place.
    this.#file.append(this.#zeros);
    this.#eachRun((cluster, run, kind) => {
      if (kind !== UNALLOCATED) this.#add(cluster, run, kind);
    });
    this.#endL2();
    this.#writeMetadata();
    this.#onProgress(this.#totalBytes, this.#totalBytes);
  }

  #eachRun(visit: (cluster: number, run: number, kind: ClusterMap['kind']) => void): void {
    for (let cluster = 0; cluster < this.#geometry.clusters; ) {
      const run = this.#map.runAt(cluster);
      visit(cluster, run, this.#map.kind);
      cluster += run;
    }
  }

  /** Enters clusters of a run into the tables that they belong to. */
  #add(first: number, run: number, kind: ClusterMap['kind']): void {
    const { l2_entries } = this.#geometry;
    for (let cluster = first; cluster < first + run; ) {
      const index = Math.floor(cluster / l2_entries);
      if (index !== this.#l2Index) this.#endL2();
      this.#l2Index = index;
      const inTable = Math.min(first + run, (index + 1) * l2_entries) - cluster;
      cluster += kind === ZEROS ? this.#addZeros(cluster, inTable) : this.#copy(cluster, inTable);
    }
  }

  #addZeros(cluster: number, count: number): number {
    const at = (cluster % this.#geometry.l2_entries) * ENTRY_BYTES;
    this.#l2.fill(ZERO_ENTRY, at, at + count * ENTRY_BYTES);
    this.#isL2Used = true;
    return count;
  }

  /**
   * Reads clusters into the buffer and leaves there those that are not zeros.
   *
   * @returns how many it dealt with, at most `count`
   */
  #copy(first: number, count: number): number {
    const { clusterBytes, l2_entries } = this.#geometry;
    const { bytes } = this.#file;
    const clusters = Math.min(count, Math.floor(BUFFER_BYTES / clusterBytes));
    const length = clusters * clusterBytes;
    this.#file.makeRoom(length);
    const start = this.#file.fill;
    this.#read(first * clusterBytes, length, start);
    for (let cluster = first, at = start; cluster < first + clusters; cluster++, at += clusterBytes) {
      // The first byte decides nearly always, and costs nothing.
      if (bytes[at] === 0 && this.#zeros.compare(bytes, at, at + clusterBytes) === 0) {
        if (cluster < this.#map.backingEnd) this.#addZeros(cluster, 1);
        continue;
      }
      putEntry(this.#l2View, cluster % l2_entries, this.#file.end, COPIED);
      this.#isL2Used = true;
      if (this.#file.fill !== at) bytes.copyWithin(this.#file.fill, at, at + clusterBytes);
      this.#file.fill += clusterBytes;
    }
    this.#doneBytes += length;
    if (this.#doneBytes - this.#toldBytes >= BUFFER_BYTES) this.#tell();
    return clusters;
  }

  #read(offset: number, length: number, at: number): void {
    const { bytes } = this.#file;
    const shown = Math.min(length, this.#source.sizeBytes - offset);
    const errno = this.#source.read(offset, shown, bytes, at);
    if (errno !== OK) throw readError(offset, errno);
    bytes.fill(0, at + shown, at + length);
  }

  #endL2(): void {
    if (!this.#isL2Used) return;
    putEntry(viewOf(this.#l1), this.#l2Index, this.#file.end, COPIED);
    this.#file.append(this.#l2);
    this.#l2.fill(0);
    this.#isL2Used = false;
  }

  /** L1 table, refcount table, refcount blocks, and the header in front of it all. */
  #writeMetadata(): void {
    const { clusterBytes } = this.#geometry;
    const file = this.#file;
    const l1_table_offset = file.end;
    file.append(this.#l1);
    const refcounts = refcountsOf(file.end / clusterBytes, clusterBytes);
    const { refcount_block_entries, refcount_table_clusters, blocks, clusters } = refcounts;
    const refcount_table_offset = file.end;
    const table = Buffer.alloc(refcount_table_clusters * clusterBytes);
    const tableView = viewOf(table);
    for (let block = 0; block < blocks; block++) {
      putEntry(tableView, block, refcount_table_offset + table.length + block * clusterBytes, 0);
    }
    file.append(table);
    const counts = Buffer.alloc(clusterBytes, REFCOUNT_ONE);
    for (let block = 0; block < blocks; block++) {
      const left = clusters - block * refcount_block_entries;
      if (left < refcount_block_entries) counts.fill(0, left * REFCOUNT_ONE.length);
      file.append(counts);
    }
    file.flush();
    const header = { ...this.#geometry, l1_table_offset, refcount_table_offset, refcount_table_clusters };
    writeOrThrow(this.#what, this.#fd, 0, encodeHeader({ ...header, backing: this.#backing }));
  }

  #tell(): void {
    this.#toldBytes = this.#doneBytes;
    // Holes may have come or gone since they were counted.
    this.#onProgress(Math.min(this.#doneBytes, this.#totalBytes), this.#totalBytes);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
