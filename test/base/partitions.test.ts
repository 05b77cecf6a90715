import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Partition, ReadAt } from '../../src/base/partition.ts';
import { readPartitions } from '../../src/base/partitions.ts';
import { EIO, OK } from '../../src/lib/errno.ts';
import { lacks, must, scratch } from '../harness.ts';

const MIB = 2 ** 20;

/** A disk of these bytes, and what is asked of it. */
function reading(bytes: Uint8Array): { readAt: ReadAt; requests: { offset: number; length: number }[] } {
  const requests: { offset: number; length: number }[] = [];
  const readAt: ReadAt = (offset, length, into, at) => {
    expect(Number.isSafeInteger(offset) && offset >= 0 && length >= 0).toBe(true);
    expect(at + length).toBeLessThanOrEqual(into.length);
    requests.push({ offset, length });
    into.fill(0, at, at + length);
    into.set(bytes.subarray(offset, offset + length), at);
    return OK;
  };
  return { readAt, requests };
}

function partitionsOf(bytes: Uint8Array, sizeBytes = bytes.length): Partition[] {
  return readPartitions(sizeBytes, reading(bytes).readAt);
}

/** `number start-end label`, in sectors. */
function inSectors(partitions: readonly Partition[], sectorBytes = 512): string[] {
  return partitions.map(
    ({ number, startBytes, endBytes, label }) =>
      `${number} ${startBytes / sectorBytes}-${endBytes / sectorBytes} ${label}`,
  );
}

type Row = readonly [OSType: number, StartingLBA: number, SizeInLBA: number];

function putRecords(disk: Buffer, lba: number, records: readonly Row[]): void {
  for (const [index, [type, start, size]] of records.entries()) {
    const at = lba * 512 + 446 + index * 16;
    disk.writeUInt8(type, at + 4);
    disk.writeUInt32LE(start, at + 8);
    disk.writeUInt32LE(size, at + 12);
  }
  disk.writeUInt16LE(0xaa55, lba * 512 + 510);
}

function mbrDisk(records: readonly Row[], sizeBytes = 4 * MIB): Buffer {
  const disk = Buffer.alloc(sizeBytes);
  putRecords(disk, 0, records);
  return disk;
}

interface Entry {
  readonly type?: string;
  readonly start: bigint;
  readonly end: bigint;
  readonly name?: string;
}

interface GptShape {
  readonly sectorBytes?: number;
  readonly count?: number;
  readonly entryBytes?: number;
  /** What the header claims, if not `count`. */
  readonly claimed?: number;
}

const LINUX = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';

function guid(text: string): Buffer {
  const hex = text.replaceAll('-', '');
  const bytes = Buffer.from(hex, 'hex');
  return Buffer.concat([
    bytes.subarray(0, 4).reverse(),
    bytes.subarray(4, 6).reverse(),
    bytes.subarray(6, 8).reverse(),
    bytes.subarray(8),
  ]);
}

/** Both copies, and the protective MBR. */
function gptDisk(entries: readonly Entry[], shape: GptShape = {}, sizeBytes = 4 * MIB): Buffer {
  const { sectorBytes = 512, count = 8, entryBytes = 128, claimed = count } = shape;
  const disk = mbrDisk([[0xee, 1, 0xffff_ffff]], sizeBytes);
  const array = Buffer.alloc(count * entryBytes);
  for (const [index, { type = LINUX, start, end, name = '' }] of entries.entries()) {
    const entry = array.subarray(index * entryBytes, (index + 1) * entryBytes);
    guid(type).copy(entry, 0);
    entry.writeBigUInt64LE(start, 32);
    entry.writeBigUInt64LE(end, 40);
    entry.write(name, 56, 72, 'utf16le');
  }
  const last = Math.floor(sizeBytes / sectorBytes) - 1;
  const arraySectors = Math.ceil(array.length / sectorBytes);
  for (const [lba, arrayLba] of [
    [1, 2],
    [last, last - arraySectors],
  ] as const) {
    const header = Buffer.alloc(92);
    header.write('EFI PART', 'latin1');
    header.writeUInt32LE(0x10000, 8);
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(lba), 24);
    header.writeBigUInt64LE(BigInt(arrayLba), 72);
    header.writeUInt32LE(claimed, 80);
    header.writeUInt32LE(entryBytes, 84);
    header.writeUInt32LE(crc32(array), 88);
    header.writeUInt32LE(crc32(header), 16);
    header.copy(disk, lba * sectorBytes);
    array.copy(disk, arrayLba * sectorBytes);
  }
  return disk;
}

describe('MBR', () => {
  test('byte for byte', () => {
    const disk = Buffer.alloc(4 * MIB);
    disk.set(
      [
        // boot, CHS of the first, type, CHS of the last, StartingLBA, SizeInLBA
        [0x80, 0x20, 0x21, 0x00, 0x83, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00],
        [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
        [0x00, 0x00, 0x00, 0x00, 0x99, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00],
        [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
        [0x55, 0xaa],
      ].flat(),
      446,
    );
    expect(partitionsOf(disk)).toEqual([
      { number: 1, startBytes: MIB, endBytes: 2 * MIB, label: 'Linux' },
      { number: 3, startBytes: 2 * MIB, endBytes: 2 * MIB + 8192, label: 'type 0x99' },
    ]);
  });

  test('logical ones count from 5, through a record that has none, and the extended one is there too', () => {
    const disk = mbrDisk([
      [0x83, 64, 64],
      [0x05, 1000, 4000],
    ]);
    putRecords(disk, 1000, [
      [0x83, 10, 100],
      [0x05, 500, 300],
    ]);
    putRecords(disk, 1500, [[0x05, 1000, 300]]);
    putRecords(disk, 2000, [[0x82, 20, 200]]);
    expect(inSectors(partitionsOf(disk))).toEqual([
      '1 64-128 Linux',
      '2 1000-5000 Extended',
      '5 1010-1110 Linux',
      '6 2020-2220 Linux swap / Solaris',
    ]);
  });

  const one: Row = [0x83, 1, 1];
  test.each<[string, Row[]]>([
    ['to itself', [[0x05, 0, 300]]],
    ['to itself, with a partition', [one, [0x05, 0, 300]]],
    ['to the next, and from there back', [one, [0x0f, 10, 300]]],
  ])('a chain that goes in a circle: %s', (_, records) => {
    const disk = mbrDisk([[0x05, 1000, 4000]]);
    putRecords(disk, 1000, records);
    putRecords(disk, 1010, [
      [0x83, 1, 1],
      [0x05, 0, 300],
    ]);
    const { readAt, requests } = reading(disk);
    expect(readPartitions(disk.length, readAt).length).toBeLessThanOrEqual(3);
    expect(requests.length).toBeLessThanOrEqual(3);
  });

  test('a chain as long as the disk ends after 256 records', () => {
    const disk = mbrDisk([
      [0x05, 1, 4000],
      [0x0f, 1, 4000],
    ]);
    for (let lba = 1; lba < 5000; lba += 1) {
      putRecords(disk, lba, [
        [0x83, 1, 1],
        [0x05, lba, 300],
      ]);
    }
    const { readAt, requests } = reading(disk);
    expect(readPartitions(disk.length, readAt).map(({ number }) => number)).toEqual(
      Array.from({ length: 258 }, (_, index) => (index < 2 ? index + 1 : index + 3)),
    );
    expect(requests.length).toBeLessThanOrEqual(1 + 2 * 256);
  });

  test('what is outside of the disk goes, what reaches out is cut, what overlaps stays', () => {
    const disk = mbrDisk([
      [0x83, 8192, 1],
      [0x83, 8191, 0xffff_ffff],
      [0x83, 0xffff_ffff, 0xffff_ffff],
      [0x83, 0, 8192],
    ]);
    expect(inSectors(partitionsOf(disk))).toEqual(['2 8191-8192 Linux', '4 0-8192 Linux']);
  });

  test('an extended one outside of the disk', () => {
    expect(partitionsOf(mbrDisk([[0x05, 0xffff_fff0, 10]]))).toEqual([]);
  });
});

describe('no table', () => {
  const table: Row[] = [[0x83, 64, 64]];

  /** A boot sector whose last bytes would be a table. */
  function bootSector(head: string, fields: readonly (readonly [at: number, value: number])[] = []): Buffer {
    const disk = mbrDisk(table);
    disk.write(head, 0, 'latin1');
    for (const [at, value] of fields) disk.writeUInt8(value, at);
    return disk;
  }

  // 512 bytes a sector, 8 sectors a cluster, 32 reserved, 2 FATs, a fixed disk.
  const fat: [number, number][] = [
    [12, 2],
    [13, 8],
    [14, 32],
    [16, 2],
    [21, 0xf8],
  ];

  test.each<[string, Buffer]>([
    ['zeros', Buffer.alloc(MIB)],
    ['ones', Buffer.alloc(MIB, 0xff)],
    ['no signature', Buffer.from(mbrDisk(table)).fill(0, 510, 512)],
    ['FAT', bootSector('\xeb\x58\x90mkfs.fat', fat)],
    ['FAT with the other jump', bootSector('\xe9\x00\x00MSDOS5.0', fat)],
    ['NTFS', bootSector('\xeb\x52\x90NTFS    ')],
    ['exFAT', bootSector('\xeb\x76\x90EXFAT   ')],
    ['BitLocker', bootSector('\xeb\x58\x90-FVE-FS-')],
    ['a boot indicator that is none', bootSector('', [[446 + 32, 0x7f]])],
    ['a protective MBR that protects nothing', mbrDisk([[0xee, 1, 8191], ...table])],
  ])('%s', (_, disk) => {
    expect(partitionsOf(disk)).toEqual([]);
  });

  test.each<[string, Buffer]>([
    ["GRUB's boot sector, which begins as FAT's does", bootSector('\xeb\x63\x90')],
    ['a jump and three clusters', bootSector('\xeb\x58\x90mkfs.fat', [...fat, [13, 3]])],
    ['a parameter block without a jump', bootSector('\xfa\x58\x90mkfs.fat', fat)],
  ])('but %s is an MBR', (_, disk) => {
    expect(inSectors(partitionsOf(disk))).toEqual(['1 64-128 Linux']);
  });

  test.each([0, 1, 511, -512, 2 ** 53, Number.NaN, 1.5])('a disk of %d bytes', (sizeBytes) => {
    const { readAt, requests } = reading(mbrDisk(table));
    expect(readPartitions(sizeBytes, readAt)).toEqual([]);
    expect(requests).toEqual([]);
  });

  test('the boot sector alone', () => {
    expect(partitionsOf(mbrDisk([[0xee, 1, 1]], 512))).toEqual([]);
    expect(partitionsOf(mbrDisk([[0x83, 0, 9]], 512))).toEqual([
      { number: 1, startBytes: 0, endBytes: 512, label: 'Linux' },
    ]);
  });
});

describe('GPT', () => {
  const entries: Entry[] = [
    { start: 64n, end: 127n, name: 'größe 日本' },
    { start: 1n, end: 1n, type: '00000000-0000-0000-0000-000000000000', name: 'unused' },
    { start: 256n, end: 511n },
    { start: 512n, end: 512n, type: '12345678-9ABC-DEF0-1122-334455667788' },
  ];
  const expected = [
    '1 64-128 größe 日本',
    '3 256-512 Linux filesystem',
    '4 512-513 12345678-9ABC-DEF0-1122-334455667788',
  ];

  test('byte for byte, as sfdisk has written it on a disk of 1 MiB', () => {
    const disk = mbrDisk([[0xee, 1, 2047]], MIB);
    const header = [
      '4546492050415254', // Signature
      '00000100 5c000000', // Revision, HeaderSize
      '349a0d6a 00000000', // HeaderCRC32, Reserved
      '0100000000000000', // MyLBA
      'ff07000000000000', // AlternateLBA
      '2200000000000000', // FirstUsableLBA
      'de07000000000000', // LastUsableLBA
      '1111111122223333 4444555555555555', // DiskGUID
      '0200000000000000', // PartitionEntryLBA
      '80000000 80000000', // NumberOfPartitionEntries, SizeOfPartitionEntry
      '9ebbbe78', // PartitionEntryArrayCRC32
    ];
    const entry = [
      '28732ac11ff8d211 ba4b00a0c93ec93b', // PartitionTypeGUID
      'aaaaaaaabbbbcccc ddddeeeeeeeeeeee', // UniquePartitionGUID
      '4000000000000000', // StartingLBA
      'bf00000000000000', // EndingLBA
      '0000000000000000', // Attributes
      '450046004900', // PartitionName
    ];
    disk.set(Buffer.from(header.join('').replaceAll(' ', ''), 'hex'), 512);
    disk.set(Buffer.from(entry.join('').replaceAll(' ', ''), 'hex'), 1024);
    expect(inSectors(partitionsOf(disk))).toEqual(['1 64-192 EFI']);
    disk.fill(0, 1024 + 56, 1024 + 58);
    expect(partitionsOf(disk)).toEqual([]);
  });

  test.each([512, 4096])('sectors of %d bytes', (sectorBytes) => {
    expect(inSectors(partitionsOf(gptDisk(entries, { sectorBytes })), sectorBytes)).toEqual(expected);
  });

  test('entries of 256 bytes; a name of 36 units and no zero', () => {
    const name = 'x'.repeat(36);
    expect(inSectors(partitionsOf(gptDisk([{ start: 64n, end: 64n, name }], { entryBytes: 256 })))).toEqual([
      `1 64-65 ${name}`,
    ]);
  });

  test('a name ends at its zero, is any sixteen-bit text, and stays as it is', () => {
    const names = ['\x1b[31mred', 'end\0hidden', '\ud800lone', '\u202eturned'];
    const disk = gptDisk(names.map((name, index) => ({ start: BigInt(64 + index), end: BigInt(64 + index), name })));
    expect(partitionsOf(disk).map(({ label }) => label)).toEqual(['\x1b[31mred', 'end', '\ud800lone', '\u202eturned']);
  });

  test.each([512, 4096])('the backup, when the primary is damaged, sectors of %d bytes', (sectorBytes) => {
    for (const at of [0, 12, 16, 24, 56, 72, 80, 84, 88, 91]) {
      const disk = gptDisk(entries, { sectorBytes });
      disk.writeUInt8(disk.readUInt8(sectorBytes + at) ^ 1, sectorBytes + at);
      expect(inSectors(partitionsOf(disk), sectorBytes), `header byte ${at}`).toEqual(expected);
    }
    const disk = gptDisk(entries, { sectorBytes });
    disk.writeUInt8(0xff, 2 * sectorBytes + 3 * 128);
    expect(inSectors(partitionsOf(disk), sectorBytes)).toEqual(expected);
    // And of the backup as well.
    disk.writeUInt8(0, disk.length - sectorBytes);
    expect(partitionsOf(disk)).toEqual([]);
  });

  test('the primary, when the disk has grown or lost its end', () => {
    const disk = gptDisk(entries);
    expect(inSectors(partitionsOf(disk, 2 * disk.length))).toEqual(expected);
    expect(inSectors(partitionsOf(disk, 300 * 512 + 7))).toEqual([
      '1 64-128 größe 日本',
      `3 256-${300 + 7 / 512} Linux filesystem`,
    ]);
  });

  test('offsets that make no sense are left out', () => {
    const disk = gptDisk([
      { start: 64n, end: 2n ** 64n - 1n },
      { start: 2n ** 63n, end: 2n ** 63n + 1n },
      { start: 2n ** 44n, end: 2n ** 44n },
      { start: 100n, end: 99n },
      { start: 100n, end: 2n ** 40n },
      { start: 8192n, end: 9000n },
    ]);
    expect(inSectors(partitionsOf(disk))).toEqual(['5 100-8192 Linux filesystem']);
  });

  test.each<[string, GptShape]>([
    ['entries by the billion', { claimed: 0xffff_ffff }],
    ['more than 1 MiB of them', { claimed: 8193 }],
    ['more than the disk holds', { claimed: 8000 }],
    ['entries of 64 bytes', { entryBytes: 64, count: 1 }],
  ])('%s are not read', (_, shape) => {
    const disk = gptDisk([], shape, 256 * 1024);
    const { readAt, requests } = reading(disk);
    expect(readPartitions(disk.length, readAt)).toEqual([]);
    expect(requests.every(({ length }) => length <= 4096)).toBe(true);
  });

  test('no entries at all', () => {
    expect(partitionsOf(gptDisk([], { count: 0 }))).toEqual([]);
  });

  test('needs the protective record; goes before what a hybrid MBR says, and before a left-over parameter block', () => {
    const disk = gptDisk(entries);
    putRecords(disk, 0, [
      [0x83, 64, 64],
      [0xee, 1, 10],
    ]);
    disk.write('\xeb\x52\x90NTFS    ', 0, 'latin1');
    expect(inSectors(partitionsOf(disk))).toEqual(expected);
    disk.fill(0, 0, 3);
    putRecords(disk, 0, [
      [0x83, 64, 64],
      [0x83, 128, 64],
    ]);
    expect(inSectors(partitionsOf(disk))).toEqual(['1 64-128 Linux', '2 128-192 Linux']);
  });
});

describe('whatever is there', () => {
  /** What holds for every answer. */
  function expectSound(disk: Buffer, sizeBytes: number): void {
    const { readAt, requests } = reading(disk);
    const partitions = readPartitions(sizeBytes, readAt);
    for (const { startBytes, endBytes } of partitions) {
      expect(0 <= startBytes && startBytes < endBytes && endBytes <= sizeBytes).toBe(true);
    }
    const numbers = partitions.map(({ number }) => number);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    expect(requests.length).toBeLessThanOrEqual(1 + 4 * 256);
    expect(requests.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(5 * MIB);
  }

  const sectors = 64;
  const byte = fc.tuple(fc.nat({ max: sectors * 512 - 1 }), fc.nat({ max: 255 }));
  const size = fc.oneof(fc.constant(sectors * 512), fc.nat({ max: 2 * sectors * 512 }), fc.maxSafeNat());

  test('random bytes between signatures', () => {
    const record = fc.tuple(
      fc.constantFrom(0, 0x05, 0x0f, 0x83, 0x85, 0xee),
      fc.oneof(fc.nat({ max: sectors }), fc.nat({ max: 0xffff_ffff })),
      fc.oneof(fc.nat({ max: sectors }), fc.nat({ max: 0xffff_ffff })),
    );
    fc.assert(
      fc.property(
        fc.array(fc.array(record, { maxLength: 4 }), { minLength: sectors, maxLength: sectors }),
        fc.array(byte, { maxLength: 20 }),
        size,
        (tables, bytes, sizeBytes) => {
          const disk = Buffer.alloc(sectors * 512);
          for (const [lba, records] of tables.entries()) putRecords(disk, lba, records);
          for (const [at, value] of bytes) disk.writeUInt8(value, at);
          expectSound(disk, sizeBytes);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('a header with the right checksum and any fields', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 80, maxLength: 80 }),
        fc.constantFrom(512, 4096),
        fc.boolean(),
        fc.array(fc.tuple(fc.nat({ max: 79 }), fc.constantFrom(0, 1, 2, 128)), { maxLength: 80 }),
        size,
        (fields, sectorBytes, isUsual, patches, sizeBytes) => {
          const disk = mbrDisk([[0xee, 1, 1]], sectors * 512);
          const header = disk.subarray(sectorBytes, sectorBytes + 92);
          header.set(fields, 12);
          for (const [at, value] of patches) header.writeUInt8(value, 12 + at);
          header.write('EFI PART', 'latin1');
          header.writeUInt32LE(92, 12);
          header.writeBigUInt64LE(1n, 24);
          if (isUsual) {
            header.writeBigUInt64LE(2n, 72);
            header.writeUInt32LE(4, 80);
            header.writeUInt32LE(128, 84);
            const array = disk.subarray(2 * sectorBytes, 2 * sectorBytes + 512);
            for (let at = 0; at < 512; at += 1) array[at] = fields[at % 80] ?? 0;
            header.writeUInt32LE(crc32(array), 88);
          }
          header.writeUInt32LE(0, 16);
          header.writeUInt32LE(crc32(header), 16);
          expectSound(disk, sizeBytes);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('a read that fails, whichever it is', () => {
    const extended = mbrDisk([
      [0x83, 64, 64],
      [0x05, 1000, 4000],
    ]);
    putRecords(extended, 1000, [[0x83, 10, 100]]);
    for (const disk of [extended, gptDisk([{ start: 64n, end: 127n }])]) {
      const { readAt, requests } = reading(disk);
      expect(readPartitions(disk.length, readAt)).not.toEqual([]);
      const count = requests.length;
      for (let failing = 0; failing < count; failing += 1) {
        let calls = 0;
        const failingAt: ReadAt = (offset, length, into, at) => {
          calls += 1;
          if (calls - 1 !== failing) return readAt(offset, length, into, at);
          // What it leaves behind counts for nothing.
          into.fill(0xee, at, at + length);
          return EIO;
        };
        expect(readPartitions(disk.length, failingAt)).toEqual([]);
      }
    }
  });
});

/** A disk that a tool has made a table on: its bytes. */
function madeBy(file: string, args: (image: string) => readonly string[], input = '', sizeBytes = 64 * MIB): Buffer {
  const image = join(scratch(), 'disk.raw');
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  must(file, args(image), { input });
  return readFileSync(image);
}

const noFdisk = lacks('sfdisk', 'fdisk');
if (noFdisk !== undefined) console.warn(`tables made by sfdisk are skipped: ${noFdisk}`);

describe.skipIf(noFdisk !== undefined)('tables as sfdisk makes them', () => {
  /** The same as sfdisk itself reads out. */
  function asSfdiskReads(disk: Buffer): [number, number][] {
    const image = join(scratch(), 'disk.raw');
    writeFileSync(image, disk);
    const { partitiontable } = JSON.parse(must('sfdisk', ['--json', image])) as {
      partitiontable: { partitions: { start: number; size: number }[] };
    };
    return partitiontable.partitions.map(({ start, size }) => [start * 512, (start + size) * 512]);
  }

  test('MBR with logical partitions', () => {
    const script = 'label: dos\n2048,8192,83,*\n10240,8192,82\n,,E\n,4096,83\n,4096,8e\n,,c\n';
    const disk = madeBy('sfdisk', (image) => ['--quiet', image], script);
    const partitions = partitionsOf(disk);
    expect(partitions.map(({ number, label }) => `${number} ${label}`)).toEqual([
      '1 Linux',
      '2 Linux swap / Solaris',
      '3 Extended',
      '5 Linux',
      '6 Linux LVM',
      '7 W95 FAT32 (LBA)',
    ]);
    expect(partitions.map(({ startBytes, endBytes }) => [startBytes, endBytes])).toEqual(asSfdiskReads(disk));
  });

  test('GPT', () => {
    const script = 'label: gpt\nsize=1MiB,type=uefi,name="EFI ä"\nsize=2MiB,type=swap\ntype=linux,name=root\n';
    const disk = madeBy('sfdisk', (image) => ['--quiet', image], script);
    const partitions = partitionsOf(disk);
    expect(partitions.map(({ number, label }) => `${number} ${label}`)).toEqual(['1 EFI ä', '2 Linux swap', '3 root']);
    expect(partitions.map(({ startBytes, endBytes }) => [startBytes, endBytes])).toEqual(asSfdiskReads(disk));
    disk.fill(0, 512, 34 * 512);
    expect(partitionsOf(disk)).toEqual(partitions);
  });

  test('GPT on sectors of 4096 bytes', () => {
    const disk = madeBy('fdisk', (image) => ['-b', '4096', image], 'g\nn\n1\n256\n511\nn\n2\n512\n1023\nw\n');
    const expected = ['1 256-512 Linux filesystem', '2 512-1024 Linux filesystem'];
    expect(inSectors(partitionsOf(disk), 4096)).toEqual(expected);
    disk.fill(0, 4096, 8192);
    expect(inSectors(partitionsOf(disk), 4096)).toEqual(expected);
  });
});

const noSgdisk = lacks('sgdisk');
if (noSgdisk !== undefined) console.warn(`tables made by sgdisk are skipped: ${noSgdisk}`);

// It waits a second after each.
describe.skipIf(noSgdisk !== undefined)('tables as sgdisk makes them', { timeout: 20_000 }, () => {
  test('out of order, with a gap in the numbers, names and types', () => {
    const disk = madeBy('sgdisk', (image) => [
      ...['-n', '4:2048:+1M', '-t', '4:ef00', '-c', '4:first'],
      ...['-n', '1:8192:+2M', '-t', '1:8e00', '-c', '1:'],
      ...['-n', '2:0:0', '-t', '2:8200', '-c', '2:swap 日本'],
      image,
    ]);
    const partitions = inSectors(partitionsOf(disk));
    expect(partitions[0]).toBe('1 8192-12288 Linux LVM');
    expect(partitions[1]).toMatch(/^2 12288-\d+ swap 日本$/);
    expect(partitions[2]).toBe('4 2048-4096 first');
  });

  test('a table of 512 entries', () => {
    const disk = madeBy('sgdisk', (image) => ['-S', '512', '-n', '500:4096:+1M', '-c', '500:last', image]);
    expect(inSectors(partitionsOf(disk))).toEqual(['500 4096-6144 last']);
  });

  test('a hybrid MBR', () => {
    const hybrid = madeBy('sgdisk', (image) => ['-n', '1:4096:+1M', '-c', '1:one', '-h', '1', image]);
    expect(inSectors(partitionsOf(hybrid))).toEqual(['1 4096-6144 one']);
  });
});

const noFat = lacks('mkfs.fat');
if (noFat !== undefined) console.warn(`a file system made by mkfs.fat is skipped: ${noFat}`);

test.skipIf(noFat !== undefined).each(['-F12', '-F16', '-F32'])(
  'the whole disk as mkfs.fat %s makes it has no table',
  (type) => {
    expect(partitionsOf(madeBy('mkfs.fat', (image) => [type, image]))).toEqual([]);
    expect(partitionsOf(madeBy('mkfs.fat', (image) => [type, '--mbr=y', image]))).toEqual([]);
  },
);
