/**
 * Reads the partition table of a disk: MBR with its logical partitions (sectors of 512 bytes), or GPT (`gpt.ts`). Called by commands that show a disk, on the main thread; does no I/O of its own. The bytes are whatever a
 * guest has written: nothing here throws, every loop and every read is bounded. Left out on purpose: tables inside of
 * partitions (BSD disklabels), Apple's map, MBR of disks with 4096-byte sectors.
 *
 * UEFI Specification 2.10, chapter 5; its names throughout. Chains of extended partitions are as
 * block/partitions/msdos.c of Linux reads them.
 */
import { OK } from '../lib/errno.ts';
import { readGpt } from './gpt.ts';
import { type Partition, partitionWithin, type Read, type ReadAt } from './partition.ts';
import { OS_TYPE_NAMES } from './partition-types.ts';

const MBR_SECTOR_BYTES = 512;

const MBR = {
  PartitionRecord: 446,
  Signature: 510,
  RECORDS: 4,
} as const;
const MBR_SIGNATURE = 0xaa55;

const MBR_PARTITION_RECORD = {
  BootIndicator: 0,
  OSType: 4,
  StartingLBA: 8,
  SizeInLBA: 12,
  BYTES: 16,
} as const;

const OS_TYPE_GPT_PROTECTIVE = 0xee;
const OS_TYPES_EXTENDED: readonly number[] = [0x05, 0x0f, 0x85];

/** A chain that goes on for longer is garbage; Linux gives up at 256 partitions. */
const MAX_EXTENDED_BOOT_RECORDS = 256;

/** Boot sector of a FAT file system (Microsoft FAT Specification, 3.1); NTFS and exFAT keep jump and name. */
const BPB = {
  BS_jmpBoot: 0,
  BS_OEMName: 3,
  BPB_BytsPerSec: 11,
  BPB_SecPerClus: 13,
  BPB_RsvdSecCnt: 14,
  BPB_NumFATs: 16,
  BPB_Media: 21,
} as const;
/** Of NTFS, exFAT and BitLocker, which have zeros in fields of FAT so that its drivers refuse them. */
const OEM_NAMES: readonly string[] = ['NTFS    ', 'EXFAT   ', '-FVE-FS-'];

/**
 * The partitions of a disk in order of their numbers, an extended partition as well as the logical ones inside it.
 * What lies outside of the disk is left out, what reaches out of it ends where the disk ends; they may overlap.
 *
 * @returns [] without a table (also when the disk as a whole is a file system), with one whose copies are all damaged,
 *   when any read fails, and when `sizeBytes` is no safe integer
 */
export function readPartitions(sizeBytes: number, readAt: ReadAt): Partition[] {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < MBR_SECTOR_BYTES) return [];
  let failed = false;
  const read: Read = (offset, length) => {
    const bytes = Buffer.alloc(length);
    if (!failed) failed = readAt(offset, length, bytes, 0) !== OK;
    // Zeros are no table, so that whoever reads after a failure comes to an end.
    return failed ? bytes.fill(0) : bytes;
  };
  const found = readTable(sizeBytes, read);
  return failed ? [] : found;
}

function readTable(sizeBytes: number, read: Read): Partition[] {
  const sector = read(0, MBR_SECTOR_BYTES);
  if (sector.readUInt16LE(MBR.Signature) !== MBR_SIGNATURE) return [];
  const records = recordsOf(sector);
  // Checksums are better evidence than a parameter block, which boot loaders preserve. A record of this type without
  // a GPT protects nothing, and Linux shows nothing either.
  if (records.some(({ OSType }) => OSType === OS_TYPE_GPT_PROTECTIVE)) return readGpt(sizeBytes, read) ?? [];
  if (isFileSystem(sector)) return [];
  // Text or code of a boot sector that is no table: Linux goes by this too.
  if (records.some(({ BootIndicator }) => (BootIndicator & 0x7f) !== 0)) return [];
  return readMbr(sizeBytes, read, records);
}

interface MbrRecord {
  readonly BootIndicator: number;
  readonly OSType: number;
  readonly StartingLBA: number;
  readonly SizeInLBA: number;
}

function recordsOf(sector: Buffer): MbrRecord[] {
  return Array.from({ length: MBR.RECORDS }, (_, index) => {
    const at = MBR.PartitionRecord + index * MBR_PARTITION_RECORD.BYTES;
    return {
      BootIndicator: sector.readUInt8(at + MBR_PARTITION_RECORD.BootIndicator),
      OSType: sector.readUInt8(at + MBR_PARTITION_RECORD.OSType),
      StartingLBA: sector.readUInt32LE(at + MBR_PARTITION_RECORD.StartingLBA),
      SizeInLBA: sector.readUInt32LE(at + MBR_PARTITION_RECORD.SizeInLBA),
    };
  });
}

function isUsed({ OSType, SizeInLBA }: MbrRecord): boolean {
  return OSType !== 0 && SizeInLBA !== 0;
}

function isExtended({ OSType }: MbrRecord): boolean {
  return OS_TYPES_EXTENDED.includes(OSType);
}

/** Whether the first sector is that of a FAT, exFAT, NTFS or BitLocker volume: 55AA ends those too. */
function isFileSystem(sector: Buffer): boolean {
  const jump = sector.readUInt8(BPB.BS_jmpBoot);
  if (jump !== 0xe9 && (jump !== 0xeb || sector.readUInt8(BPB.BS_jmpBoot + 2) !== 0x90)) return false;
  if (OEM_NAMES.includes(sector.toString('latin1', BPB.BS_OEMName, BPB.BPB_BytsPerSec))) return true;
  const sectorsPerCluster = sector.readUInt8(BPB.BPB_SecPerClus);
  const media = sector.readUInt8(BPB.BPB_Media);
  // GRUB's MBR begins with the same jump, but its parameter block is zeros.
  return (
    [512, 1024, 2048, 4096].includes(sector.readUInt16LE(BPB.BPB_BytsPerSec)) &&
    sectorsPerCluster !== 0 &&
    (sectorsPerCluster & (sectorsPerCluster - 1)) === 0 &&
    sector.readUInt16LE(BPB.BPB_RsvdSecCnt) !== 0 &&
    sector.readUInt8(BPB.BPB_NumFATs) !== 0 &&
    (media === 0xf0 || media >= 0xf8)
  );
}

function readMbr(sizeBytes: number, read: Read, records: readonly MbrRecord[]): Partition[] {
  const primary = records.flatMap((record, index) =>
    isUsed(record) ? mbrPartition(sizeBytes, index + 1, record.StartingLBA, record) : [],
  );
  const logical = records
    .filter((record) => isUsed(record) && isExtended(record))
    .flatMap(({ StartingLBA }) => logicalRecords(StartingLBA, sizeBytes, read))
    .slice(0, MAX_EXTENDED_BOOT_RECORDS)
    // Numbered before those outside of the disk go, as the kernel does.
    .flatMap(({ lba, record }, index) => mbrPartition(sizeBytes, MBR.RECORDS + 1 + index, lba, record));
  return [...primary, ...logical];
}

function mbrPartition(sizeBytes: number, number: number, lba: number, { OSType, SizeInLBA }: MbrRecord): Partition[] {
  const label = OS_TYPE_NAMES.get(OSType) ?? `type 0x${OSType.toString(16).padStart(2, '0')}`;
  return partitionWithin(sizeBytes, number, lba * MBR_SECTOR_BYTES, (lba + SizeInLBA) * MBR_SECTOR_BYTES, label);
}

/** The chain of boot records in an extended partition: each has a logical one, and the place of the next record. */
function logicalRecords(extendedLba: number, sizeBytes: number, read: Read): { lba: number; record: MbrRecord }[] {
  const found: { lba: number; record: MbrRecord }[] = [];
  const seen = new Set<number>();
  let lba = extendedLba;
  while (!seen.has(lba) && seen.size < MAX_EXTENDED_BOOT_RECORDS && (lba + 1) * MBR_SECTOR_BYTES <= sizeBytes) {
    seen.add(lba);
    const sector = read(lba * MBR_SECTOR_BYTES, MBR_SECTOR_BYTES);
    if (sector.readUInt16LE(MBR.Signature) !== MBR_SIGNATURE) break;
    const used = recordsOf(sector).filter(isUsed);
    const record = used.find((candidate) => !isExtended(candidate));
    // Counts from this boot record, the link to the next from the beginning of the extended partition.
    if (record !== undefined) found.push({ lba: lba + record.StartingLBA, record });
    const link = used.find(isExtended);
    if (link === undefined) break;
    lba = extendedLba + link.StartingLBA;
  }
  return found;
}
