/**
 * Reads a GUID partition table, of 512-byte or 4096-byte sectors: UEFI Specification 2.10, chapter 5, whose names it uses. The
 * bytes are whatever a guest has written: nothing here throws, every read is bounded.
 */
import { crc32 } from 'node:zlib';
import { type Partition, partitionWithin, type Read } from './partition.ts';
import { TYPE_GUID_NAMES } from './partition-types.ts';

const GPT_SECTOR_BYTES = [512, 4096] as const;
const GPT_SIGNATURE = 'EFI PART';

const GPT_HEADER = {
  Signature: 0,
  HeaderSize: 12,
  HeaderCRC32: 16,
  MyLBA: 24,
  PartitionEntryLBA: 72,
  NumberOfPartitionEntries: 80,
  SizeOfPartitionEntry: 84,
  PartitionEntryArrayCRC32: 88,
  BYTES: 92,
} as const;

const GPT_PARTITION_ENTRY = {
  PartitionTypeGUID: 0,
  StartingLBA: 32,
  EndingLBA: 40,
  PartitionName: 56,
  NAME_END: 128,
  BYTES: 128,
} as const;

/** The usual table has 16 KiB: 128 entries of 128 bytes. */
const MAX_ENTRY_ARRAY_BYTES = 2 ** 20;

const GUID_BYTES = 16;
const UNUSED_GUID = '00000000-0000-0000-0000-000000000000';

/** By the primary header, or else by the backup in the last sector; undefined when neither is sound. */
export function readGpt(sizeBytes: number, read: Read): Partition[] | undefined {
  for (const copy of ['primary', 'backup'] as const) {
    for (const sectorBytes of GPT_SECTOR_BYTES) {
      const lba = copy === 'primary' ? 1 : Math.floor(sizeBytes / sectorBytes) - 1;
      const table = lba < 1 ? undefined : readGptAt(lba, sectorBytes, sizeBytes, read);
      if (table !== undefined) return table;
    }
  }
  return undefined;
}

function readGptAt(lba: number, sectorBytes: number, sizeBytes: number, read: Read): Partition[] | undefined {
  const header = read(lba * sectorBytes, sectorBytes);
  if (header.toString('latin1', GPT_HEADER.Signature, GPT_SIGNATURE.length) !== GPT_SIGNATURE) return undefined;
  const headerSize = header.readUInt32LE(GPT_HEADER.HeaderSize);
  if (headerSize < GPT_HEADER.BYTES || headerSize > sectorBytes) return undefined;
  const headerCrc32 = header.readUInt32LE(GPT_HEADER.HeaderCRC32);
  // It is computed with zeros in its own place.
  header.writeUInt32LE(0, GPT_HEADER.HeaderCRC32);
  if (crc32(header.subarray(0, headerSize)) !== headerCrc32) return undefined;
  if (uint64(header, GPT_HEADER.MyLBA) !== lba) return undefined;

  const count = header.readUInt32LE(GPT_HEADER.NumberOfPartitionEntries);
  const entryBytes = header.readUInt32LE(GPT_HEADER.SizeOfPartitionEntry);
  const arrayOffset = uint64(header, GPT_HEADER.PartitionEntryLBA) * sectorBytes;
  if (entryBytes < GPT_PARTITION_ENTRY.BYTES || count * entryBytes > MAX_ENTRY_ARRAY_BYTES) return undefined;
  if (arrayOffset + count * entryBytes > sizeBytes) return undefined;
  const entries = read(arrayOffset, count * entryBytes);
  if (crc32(entries) !== header.readUInt32LE(GPT_HEADER.PartitionEntryArrayCRC32)) return undefined;

  return Array.from({ length: count }, (_, index) =>
    gptPartition(sizeBytes, index + 1, sectorBytes, entries.subarray(index * entryBytes, (index + 1) * entryBytes)),
  ).flat();
}

function gptPartition(sizeBytes: number, number: number, sectorBytes: number, entry: Buffer): Partition[] {
  const type = guidAt(entry, GPT_PARTITION_ENTRY.PartitionTypeGUID);
  if (type === UNUSED_GUID) return [];
  const name = entry.toString('utf16le', GPT_PARTITION_ENTRY.PartitionName, GPT_PARTITION_ENTRY.NAME_END);
  return partitionWithin(
    sizeBytes,
    number,
    uint64(entry, GPT_PARTITION_ENTRY.StartingLBA) * sectorBytes,
    (uint64(entry, GPT_PARTITION_ENTRY.EndingLBA) + 1) * sectorBytes,
    name.split('\0', 1)[0] || (TYPE_GUID_NAMES[type] ?? type),
  );
}

/** From 2^53 on inexact, but never below it: a check of the result for being safe still holds. */
function uint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
}

/** The first three groups are little endian (UEFI Specification, appendix A). */
function guidAt(bytes: Buffer, at: number): string {
  const hex = (from: number, to: number): string => bytes.toString('hex', at + from, at + to);
  const swapped = (from: number, to: number): string =>
    Buffer.from(bytes.subarray(at + from, at + to))
      .reverse()
      .toString('hex');
  const groups = [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(8, 10), hex(10, GUID_BYTES)];
  return groups.join('-').toUpperCase();
}
