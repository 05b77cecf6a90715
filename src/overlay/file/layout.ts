/**
 * The overlay file on disk: where its parts lie and what their bytes mean, as FORMAT.md specifies. Pure: bytes
 * in, structures out. Decoding trusts nothing: whatever is not exactly right is `undefined`.
 */
import { crc32 } from 'node:zlib';
import { BLOCK_BYTES, MAX_DISK_BYTES } from '../block.ts';

/** `COWFS`, and three bytes that a transfer as text would change. */
const MAGIC = Buffer.from('COWFS\r\n\x1a', 'latin1');
const VERSION = 1;
/** `MAP1`, little-endian. */
const PAGE_MAGIC = 0x3150414d;

/** Two header slots lie at the start of the file. */
export const HEADER_BYTES = 8192;
export const HEADER_SLOTS = 2;
const PATHS_AT = 208;
const CHECKSUM_AT = HEADER_BYTES - 4;
/** Bytes that the paths in a header may take together. */
export const MOST_PATH_BYTES = CHECKSUM_AT - PATHS_AT;

/** The map follows: two slots for each page, side by side. */
export const MAP_OFFSET = HEADER_SLOTS * HEADER_BYTES;
export const PAGE_BYTES = 4096;
export const PAGE_SLOTS = 2;
export const STATES_AT = 256;
/** Blocks that a leaf of the map in memory has (`overlay/map.ts`), and words of 16 states. */
export const LEAF_BLOCKS = 1024;
export const LEAF_WORDS = 64;
/** What fits behind a page's head: 3840 bytes, 2 bits a block, 60 MiB of disk. */
export const PAGE_LEAVES = 15;
export const PAGE_BLOCKS = PAGE_LEAVES * LEAF_BLOCKS;
export const PAGE_SPAN_BYTES = PAGE_BLOCKS * BLOCK_BYTES;

/** Data starts at a multiple of this: large enough for every file system's extents and for huge pages. */
const DATA_ALIGNMENT = 1024 * 1024;
/** A disk can always grow to this, or to twice its size. */
const LEAST_CAPACITY_BYTES = 2 ** 40;
const MOST_PAGES = Math.ceil(MAX_DISK_BYTES / PAGE_SPAN_BYTES);

/** Set by a clean close: both slots of every page and of the header are equal. */
const FLAG_CLEAN = 1;
/** Of a redo log: the base has all of it. */
const FLAG_APPLIED = 2;
const KNOWN_FLAGS = FLAG_CLEAN | FLAG_APPLIED;

export type Role = 'overlay' | 'redo log';
const ROLES: readonly Role[] = ['overlay', 'redo log'];

/** What the base was when it was last looked at. */
export interface BaseIdentity {
  /** Canonical. */
  readonly path: string;
  readonly kind: 'file' | 'block device';
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly dev: bigint;
  readonly ino: bigint;
  /** When it was made, in nanoseconds since the epoch; 0 where the file system does not tell. */
  readonly birthNs: bigint;
  /** 32 bytes (`base/fingerprint.ts`). */
  readonly fingerprint: Uint8Array;
}

/** The overlay that a redo log was made from, to be emptied once it is applied. */
export interface Origin {
  readonly path: string;
  readonly id: Uint8Array;
  readonly generation: number;
}

export interface Header {
  /** 16 bytes, random. */
  readonly id: Uint8Array;
  readonly role: Role;
  readonly clean: boolean;
  readonly applied: boolean;
  readonly generation: number;
  readonly diskBytes: number;
  /** Bytes of the base that still show. */
  readonly backingLimit: number;
  readonly dataOffset: number;
  /** Pages that the map has room for. */
  readonly mapPages: number;
  /** Of all pages in force (`digestOf`). */
  readonly digest: number;
  /** How many these are. */
  readonly pagesInForce: number;
  readonly base: BaseIdentity;
  readonly origin: Origin | undefined;
}

/** Why bytes are no header. */
export type HeaderProblem = 'empty' | 'no magic' | 'checksum' | 'version' | 'feature' | 'field';

/** Pages and offset of the data for a disk of this size. */
export function capacityFor(diskBytes: number): Pick<Header, 'mapPages' | 'dataOffset'> {
  const twice = 2 ** (Math.ceil(Math.log2(Math.max(diskBytes, 1))) + 1);
  const capacity = Math.min(MAX_DISK_BYTES, Math.max(LEAST_CAPACITY_BYTES, twice));
  const mapPages = Math.ceil(capacity / PAGE_SPAN_BYTES);
  return { mapPages, dataOffset: alignUp(pageOffset(mapPages, 0), DATA_ALIGNMENT) };
}

/** Largest disk that the map can tell of, in bytes. */
export function capacityBytes({ mapPages }: Pick<Header, 'mapPages'>): number {
  return Math.min(MAX_DISK_BYTES, mapPages * PAGE_SPAN_BYTES);
}

export function pageOffset(page: number, slot: number): number {
  return MAP_OFFSET + (page * PAGE_SLOTS + slot) * PAGE_BYTES;
}

function alignUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** @returns `HEADER_BYTES` bytes; the paths fit, as `MOST_PATH_BYTES` says */
export function encodeHeader(header: Header): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  const { base, origin } = header;
  const basePath = Buffer.from(base.path);
  const originPath = Buffer.from(origin?.path ?? '');
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(ROLES.indexOf(header.role), 12);
  // 16: incompatible, 24: compatible features, of which there are none yet.
  u64(bytes, 32, header.generation);
  bytes.set(header.id, 40);
  u64(bytes, 56, header.diskBytes);
  u64(bytes, 64, header.backingLimit);
  u64(bytes, 72, header.dataOffset);
  u64(bytes, 80, header.mapPages);
  bytes.writeUInt32LE(header.digest >>> 0, 88);
  bytes.writeUInt32LE(header.pagesInForce, 92);
  u64(bytes, 96, base.sizeBytes);
  bytes.writeBigInt64LE(base.mtimeNs, 104);
  bytes.writeUInt32LE((header.clean ? FLAG_CLEAN : 0) | (header.applied ? FLAG_APPLIED : 0), 112);
  bytes.writeUInt32LE(base.kind === 'file' ? 0 : 1, 116);
  bytes.set(base.fingerprint, 120);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, base.dev), 152);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, base.ino), 160);
  bytes.writeBigInt64LE(base.birthNs, 200);
  if (origin !== undefined) bytes.set(origin.id, 168);
  u64(bytes, 184, origin?.generation ?? 0);
  bytes.writeUInt32LE(basePath.length, 192);
  bytes.writeUInt32LE(originPath.length, 196);
  basePath.copy(bytes, PATHS_AT);
  originPath.copy(bytes, PATHS_AT + basePath.length);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CHECKSUM_AT)), CHECKSUM_AT);
  return bytes;
}

/** @param bytes a slot, or as much of it as the file has */
export function decodeHeader(bytes: Buffer): Header | HeaderProblem {
  if (bytes.every((byte) => byte === 0)) return 'empty';
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return 'no magic';
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(CHECKSUM_AT) !== crc32(bytes.subarray(0, CHECKSUM_AT))) {
    return 'checksum';
  }
  if (bytes.readUInt32LE(8) !== VERSION) return 'version';
  const role = ROLES[bytes.readUInt32LE(12)];
  const flags = bytes.readUInt32LE(112);
  if (role === undefined || bytes.readBigUInt64LE(16) !== 0n || (flags & ~KNOWN_FLAGS) !== 0) return 'feature';
  const basePathBytes = bytes.readUInt32LE(192);
  const originPathBytes = bytes.readUInt32LE(196);
  if (basePathBytes + originPathBytes > MOST_PATH_BYTES) return 'field';
  const kind = (['file', 'block device'] as const)[bytes.readUInt32LE(116)];
  if (kind === undefined) return 'field';
  const originAt = PATHS_AT + basePathBytes;
  const header: Header = {
    id: Buffer.from(bytes.subarray(40, 56)),
    role,
    clean: (flags & FLAG_CLEAN) !== 0,
    applied: (flags & FLAG_APPLIED) !== 0,
    generation: readU64(bytes, 32),
    diskBytes: readU64(bytes, 56),
    backingLimit: readU64(bytes, 64),
    dataOffset: readU64(bytes, 72),
    mapPages: readU64(bytes, 80),
    digest: bytes.readInt32LE(88),
    pagesInForce: bytes.readUInt32LE(92),
    base: {
      path: bytes.toString('utf8', PATHS_AT, originAt),
      kind,
      sizeBytes: readU64(bytes, 96),
      mtimeNs: bytes.readBigInt64LE(104),
      dev: bytes.readBigUInt64LE(152),
      ino: bytes.readBigUInt64LE(160),
      birthNs: bytes.readBigInt64LE(200),
      fingerprint: Buffer.from(bytes.subarray(120, 152)),
    },
    origin:
      originPathBytes === 0
        ? undefined
        : {
            path: bytes.toString('utf8', originAt, originAt + originPathBytes),
            id: Buffer.from(bytes.subarray(168, 184)),
            generation: readU64(bytes, 184),
          },
  };
  return isPossible(header) ? header : 'field';
}

/** A checksum says that nothing was damaged, not that the writer was right. */
function isPossible(header: Header): boolean {
  const { mapPages, dataOffset, diskBytes, backingLimit, base, generation } = header;
  return (
    generation > 0 &&
    Number.isSafeInteger(generation + 1) &&
    mapPages > 0 &&
    mapPages <= MOST_PAGES &&
    Number.isSafeInteger(dataOffset) &&
    dataOffset % BLOCK_BYTES === 0 &&
    dataOffset >= pageOffset(mapPages, 0) &&
    Number.isSafeInteger(dataOffset + MAX_DISK_BYTES) &&
    diskBytes <= capacityBytes(header) &&
    backingLimit <= diskBytes &&
    backingLimit <= base.sizeBytes &&
    Number.isSafeInteger(base.sizeBytes)
  );
}

/**
 * What a page in force adds to the header's digest, by exclusive or. Mixed (MurmurHash3, fmix32), since checksums are
 * linear: of two pages that change alike the changes would cancel each other.
 */
export function digestOf(page: number, checksum: number): number {
  let hash = checksum + Math.imul(page, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** A page of the map: states of 15360 blocks. */
export class MapPage {
  readonly bytes: Buffer = Buffer.alloc(PAGE_BYTES);
  /** The states, 16 to a word, block 0 in the lowest bits (`overlay/map.ts`). */
  readonly words: Int32Array;

  constructor() {
    const { buffer, byteOffset } = this.bytes;
    this.words = new Int32Array(buffer, byteOffset + STATES_AT, PAGE_LEAVES * LEAF_WORDS);
  }

  get generation(): number {
    return readU64(this.bytes, 8);
  }

  get checksum(): number {
    return this.bytes.readInt32LE(4);
  }

  get isEmpty(): boolean {
    return this.bytes.every((byte) => byte === 0);
  }

  /** Writes the head over the states that are in `words`. */
  seal(id: Uint8Array, index: number, generation: number): void {
    const { bytes } = this;
    bytes.writeUInt32LE(PAGE_MAGIC, 0);
    u64(bytes, 8, generation);
    u64(bytes, 16, index);
    bytes.set(id, 24);
    bytes.fill(0, 40, STATES_AT);
    bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  }

  /** Whether the bytes are that page of that overlay, undamaged. */
  isSealed(id: Uint8Array, index: number): boolean {
    const { bytes } = this;
    return (
      bytes.readUInt32LE(0) === PAGE_MAGIC &&
      bytes.readUInt32LE(4) === crc32(bytes.subarray(8)) &&
      readU64(bytes, 16) === index &&
      bytes.subarray(24, 40).equals(id)
    );
  }
}

function u64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Numbers above 2^53 come out inexact, and are refused where they matter. */
function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
