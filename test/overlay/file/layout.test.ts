/**
 * The bytes of overlay files: what is encoded comes back, whatever is not exactly right is noticed, and numbers that
 * cannot be are refused even where their checksum is right.
 */
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import {
  capacityBytes,
  capacityFor,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  HEADER_SLOTS,
  type Header,
  LEAF_BLOCKS,
  LEAF_WORDS,
  MAP_OFFSET,
  MapPage,
  MOST_PATH_BYTES,
  PAGE_BLOCKS,
  PAGE_BYTES,
  PAGE_LEAVES,
  PAGE_SLOTS,
  PAGE_SPAN_BYTES,
  pageOffset,
  STATES_AT,
} from '../../../src/overlay/file/layout.ts';
import { nonZeroBytes, Random } from '../random.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const PIB = 2 ** 50;
const MOST_DISK = 4 * PIB;
const SEED = Number(process.env['COWFS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

const id = nonZeroBytes(16, 3);
const header: Header = {
  id,
  role: 'overlay',
  clean: true,
  applied: false,
  generation: 7,
  diskBytes: 10 * GIB + 777,
  backingLimit: 9 * GIB + 5,
  ...capacityFor(10 * GIB + 777),
  digest: -2_023_406_815,
  pagesInForce: 3,
  base: {
    path: '/images/bäse ☃.raw',
    kind: 'file',
    sizeBytes: 9 * GIB + 5,
    mtimeNs: 1_700_000_000_123_456_789n,
    dev: 2n ** 64n - 3n,
    ino: 2n ** 63n + 5n,
    birthNs: 1_700_000_000_123_456_789n,
    fingerprint: nonZeroBytes(32, 4),
  },
  origin: undefined,
};
const origin = { path: '/elsewhere/vm.cow', id: nonZeroBytes(16, 5), generation: 2 ** 40 };

/** As a header decodes: its buffers are of the plain kind. */
function decoded(bytes: Buffer): unknown {
  const found = decodeHeader(bytes);
  return typeof found === 'string' ? found : { ...found, id: Buffer.from(found.id) };
}

describe('sizes', () => {
  test('of headers, pages and what they tell of', () => {
    expect([HEADER_BYTES, HEADER_SLOTS, MAP_OFFSET]).toEqual([8192, 2, 16384]);
    expect([PAGE_BYTES, PAGE_SLOTS, STATES_AT]).toEqual([4096, 2, 256]);
    expect([LEAF_BLOCKS, LEAF_WORDS, PAGE_LEAVES, PAGE_BLOCKS]).toEqual([1024, 64, 15, 15360]);
    expect(PAGE_SPAN_BYTES).toBe(60 * MIB);
    expect(STATES_AT + PAGE_LEAVES * LEAF_WORDS * 4).toBe(PAGE_BYTES);
    expect(MOST_PATH_BYTES).toBe(8192 - 4 - 208);
    expect([pageOffset(0, 0), pageOffset(0, 1), pageOffset(1, 0), pageOffset(1000, 1)]).toEqual([
      16384, 20480, 24576, 8_212_480,
    ]);
    expect(encodeHeader(header)).toHaveLength(8192);
    expect(new MapPage().bytes).toHaveLength(4096);
    expect(new MapPage().words).toHaveLength(960);
  });

  test('the data begins behind the map, for every size of a disk', () => {
    const sizes = [1, 511, 4096, MIB, GIB, TIB - 1, TIB, TIB + 1, 2 * TIB, 3 * TIB + 5, PIB, 2 * PIB - 1, 2 * PIB + 1];
    for (let power = 0; power <= 52; power++) sizes.push(2 ** power, Math.max(1, 2 ** power - 1), 2 ** power + 1);
    for (const size of sizes.filter((each) => each <= MOST_DISK)) {
      const { mapPages, dataOffset } = capacityFor(size);
      const capacity = capacityBytes({ mapPages });
      expect(capacity, `capacity for ${size}`).toBeGreaterThanOrEqual(Math.min(MOST_DISK, Math.max(TIB, 2 * size)));
      expect(capacity).toBeLessThanOrEqual(MOST_DISK);
      expect(mapPages).toBe(Math.ceil(capacity / PAGE_SPAN_BYTES));
      expect(dataOffset % MIB).toBe(0);
      expect(dataOffset).toBeGreaterThanOrEqual(pageOffset(mapPages, 0));
      expect(dataOffset - pageOffset(mapPages, 0)).toBeLessThan(MIB);
      // A header with them is possible.
      const bytes = encodeHeader({ ...header, diskBytes: size, backingLimit: 0, mapPages, dataOffset });
      expect(decodeHeader(bytes)).toMatchObject({ diskBytes: size, mapPages, dataOffset });
    }
    expect(capacityFor(1)).toEqual({ mapPages: 17477, dataOffset: 137 * MIB });
    expect(capacityFor(MOST_DISK).mapPages).toBe(71_582_789);
  });
});

describe('headers', () => {
  test.each<[string, Header]>([
    ['an overlay', header],
    ['one that is in use', { ...header, clean: false }],
    ['a redo log', { ...header, role: 'redo log', origin }],
    ['one that was applied', { ...header, role: 'redo log', origin, clean: false, applied: true }],
    ['a device, before 1970', { ...header, base: { ...header.base, kind: 'block device', mtimeNs: -1n } }],
    ['nothing in force', { ...header, digest: 0, pagesInForce: 0, backingLimit: 0 }],
    ['the largest disk', { ...header, ...capacityFor(MOST_DISK), diskBytes: MOST_DISK }],
    ['the last generation', { ...header, generation: Number.MAX_SAFE_INTEGER - 1 }],
    ['paths that just fit', withPaths('b'.repeat(5000), 'o'.repeat(MOST_PATH_BYTES - 5000))],
  ])('%s comes back', (_, each) => {
    expect(decoded(encodeHeader(each))).toMatchObject(each);
  });

  test('random ones come back', () => {
    const random = new Random(SEED);
    const count = 300;
    for (let at = 0; at < count; at++) {
      const diskBytes = 1 + random.below(2 ** random.below(52));
      const each: Header = {
        ...header,
        ...capacityFor(diskBytes),
        clean: random.below(2) === 0,
        generation: 1 + random.below(2 ** 52),
        diskBytes,
        backingLimit: random.below(Math.min(diskBytes, header.base.sizeBytes)),
        digest: random.below(2 ** 32) | 0,
        pagesInForce: random.below(2 ** 32),
        base: { ...header.base, path: `/${'x'.repeat(random.below(4000))}`, mtimeNs: BigInt(random.below(2 ** 52)) },
        origin: random.below(2) === 0 ? undefined : origin,
      };
      expect(decoded(encodeHeader(each)), `COWFS_SEED=${SEED}`).toMatchObject(each);
    }
  });

  test('every byte that is another one is noticed', () => {
    const bytes = encodeHeader({ ...header, role: 'redo log', origin });
    const flips = [0x01, 0x10, 0x80, 0xff];
    let noticed = 0;
    for (let at = 0; at < HEADER_BYTES; at++) {
      for (const flip of flips) {
        bytes[at] = (bytes[at] as number) ^ flip;
        const found = decodeHeader(bytes);
        if (found !== (at < 8 ? 'no magic' : 'checksum')) expect(found, `byte ${at} by ${flip}`).toBe('noticed');
        else noticed += 1;
        bytes[at] = (bytes[at] as number) ^ flip;
      }
    }
    console.log(`${noticed} flips of header bytes noticed`);
    expect(noticed).toBe(HEADER_BYTES * flips.length);
    expect(decodeHeader(bytes)).toBeTypeOf('object');
  });

  test('part of one, nothing, and something else are none', () => {
    const bytes = encodeHeader(header);
    for (let length = 8; length < HEADER_BYTES; length += 41) {
      expect(decodeHeader(bytes.subarray(0, length))).toBe('checksum');
    }
    expect(decodeHeader(bytes.subarray(0, HEADER_BYTES - 1))).toBe('checksum');
    expect(decodeHeader(bytes.subarray(0, 7))).toBe('no magic');
    expect(decodeHeader(Buffer.alloc(0))).toBe('empty');
    expect(decodeHeader(Buffer.alloc(HEADER_BYTES))).toBe('empty');
    expect(decodeHeader(Buffer.from('QFI\xfb'))).toBe('no magic');
    expect(decodeHeader(nonZeroBytes(HEADER_BYTES, 1))).toBe('no magic');
    // As transfers change text.
    expect(decodeHeader(Buffer.from(bytes.toString('latin1').replace('\r\n', '\n'), 'latin1'))).toBe('no magic');
  });

  function withPaths(base: string, originPath: string): Header {
    return { ...header, base: { ...header.base, path: base }, origin: { ...origin, path: originPath } };
  }
});

describe('headers whose checksum is right, from who knows where', () => {
  function forged(change: (bytes: Buffer) => void): ReturnType<typeof decodeHeader> {
    const bytes = encodeHeader(header);
    change(bytes);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, HEADER_BYTES - 4)), HEADER_BYTES - 4);
    return decodeHeader(bytes);
  }

  const u64 =
    (at: number, value: bigint | number) =>
    (bytes: Buffer): void => {
      bytes.writeBigUInt64LE(BigInt(value), at);
    };
  const u32 =
    (at: number, value: number) =>
    (bytes: Buffer): void => {
      bytes.writeUInt32LE(value, at);
    };

  test('an unchanged one is a header', () => {
    expect(forged(() => {})).toBeTypeOf('object');
  });

  test.each([
    ['version 0', u32(8, 0), 'version'],
    ['version 2', u32(8, 2), 'version'],
    ['an unknown role', u32(12, 2), 'feature'],
    ['the largest role', u32(12, 0xffff_ffff), 'feature'],
    ['an incompatible feature', u64(16, 1), 'feature'],
    ['the last incompatible feature', u64(16, 2n ** 63n), 'feature'],
    ['an unknown flag', u32(112, 0x1000_0001), 'feature'],
    ['the last flag', u32(112, 0x8000_0000), 'feature'],
    ['generation 0', u64(32, 0), 'field'],
    ['a generation without a next one', u64(32, Number.MAX_SAFE_INTEGER), 'field'],
    ['generation 2^63', u64(32, 2n ** 63n), 'field'],
    ['the largest generation', u64(32, 2n ** 64n - 1n), 'field'],
    ['a disk larger than the map', u64(56, 17477 * PAGE_SPAN_BYTES + 1), 'field'],
    ['a disk of 2^53 + 1', u64(56, 2n ** 53n + 1n), 'field'],
    ['the largest number as a size', u64(56, 2n ** 64n - 1n), 'field'],
    ['a disk smaller than what shows of the base', u64(56, 9 * GIB), 'field'],
    ['more of the base than there is', u64(64, 9 * GIB + 6), 'field'],
    ['all of a base that is smaller', u64(96, 9 * GIB), 'field'],
    ['the largest limit', u64(64, 2n ** 64n - 1n), 'field'],
    ['data at 0', u64(72, 0), 'field'],
    ['data within the map', u64(72, 137 * MIB - MIB), 'field'],
    ['data within a block', u64(72, 137 * MIB + 1), 'field'],
    ['data at 2^53', u64(72, 2n ** 53n), 'field'],
    ['data where a disk reaches past 2^53', u64(72, 2n ** 53n - 2n ** 52n + 4096n), 'field'],
    ['data at 2^64 - 4096', u64(72, 2n ** 64n - 4096n), 'field'],
    ['no pages', u64(80, 0), 'field'],
    ['more pages than a map has', u64(80, 71_582_790), 'field'],
    ['2^32 pages', u64(80, 2 ** 32), 'field'],
    ['2^53 + 1 pages', u64(80, 2n ** 53n + 1n), 'field'],
    ['the largest number of pages', u64(80, 2n ** 64n - 1n), 'field'],
    ['pages that reach into the data', u64(80, 17_600), 'field'],
    ['fewer pages than the disk needs', u64(80, 100), 'field'],
    ['a base of 2^53 + 4', u64(96, 2n ** 53n + 4n), 'field'],
    ['an unknown kind of base', u32(116, 2), 'field'],
    ['a path longer than the slot', u32(192, MOST_PATH_BYTES + 1), 'field'],
    ['paths that are too long together', u32(196, MOST_PATH_BYTES), 'field'],
    ['the longest path', u32(192, 0xffff_ffff), 'field'],
    ['two longest paths', (bytes: Buffer) => bytes.fill(0xff, 192, 200), 'field'],
  ])('%s', (_, change, problem) => {
    expect(forged(change)).toBe(problem);
  });

  test('a compatible feature is none of ours', () => {
    expect(forged(u64(24, 2n ** 64n - 1n))).toBeTypeOf('object');
  });

  test('random ones are refused, or hold together', () => {
    const random = new Random(SEED);
    const counts = new Map<string, number>();
    for (let round = 0; round < 20_000; round++) {
      const found = forged((bytes) => {
        for (let change = 0; change <= random.below(3); change++) {
          const at = 8 + random.below(200 - 8);
          const length = 1 + random.below(8);
          for (let byte = at; byte < Math.min(at + length, 200); byte++) bytes[byte] = random.below(256);
        }
      });
      const kind = typeof found === 'string' ? found : 'header';
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      if (typeof found === 'string') continue;
      const { diskBytes, backingLimit, dataOffset, mapPages, base, generation } = found;
      const isSound =
        [diskBytes, backingLimit, dataOffset, mapPages, base.sizeBytes, generation].every(Number.isSafeInteger) &&
        diskBytes <= capacityBytes(found) &&
        backingLimit <= Math.min(diskBytes, base.sizeBytes) &&
        dataOffset >= pageOffset(mapPages, 0) &&
        Number.isSafeInteger(dataOffset + MOST_DISK);
      if (!isSound) expect(found, `COWFS_SEED=${SEED}`).toBe('sound');
    }
    console.log(`COWFS_SEED=${SEED}: forged headers: ${[...counts].map((each) => each.join(' ')).join(', ')}`);
  });
});

describe('pages', () => {
  function makePage(): MapPage {
    const page = new MapPage();
    const random = new Random(5);
    for (let word = 0; word < page.words.length; word++) page.words[word] = random.below(2 ** 32) | 0;
    return page;
  }

  test('a sealed one is itself, of its overlay, at its place', () => {
    const page = makePage();
    const words = page.words.slice();
    page.seal(id, 12_345_678, 2 ** 40 + 3);
    expect(page.isSealed(id, 12_345_678)).toBe(true);
    expect([page.generation, page.isEmpty, page.words]).toEqual([2 ** 40 + 3, false, words]);
    expect(page.checksum).toBe(crc32(page.bytes.subarray(8)) | 0);
    expect(page.isSealed(id, 12_345_679)).toBe(false);
    expect(page.isSealed(nonZeroBytes(16, 9), 12_345_678)).toBe(false);
    // What was in the head before is gone.
    page.bytes.fill(0xee, 40, STATES_AT);
    page.seal(id, 1, 1);
    expect(page.bytes.subarray(40, STATES_AT).every((byte) => byte === 0)).toBe(true);
  });

  test('every byte that is another one is noticed', () => {
    const page = makePage();
    page.seal(id, 3, 9);
    const flips = [0x01, 0x80, 0xff];
    let noticed = 0;
    for (let at = 0; at < PAGE_BYTES; at++) {
      for (const flip of flips) {
        page.bytes[at] = (page.bytes[at] as number) ^ flip;
        if (!page.isSealed(id, 3)) noticed += 1;
        page.bytes[at] = (page.bytes[at] as number) ^ flip;
      }
    }
    console.log(`${noticed} flips of page bytes noticed`);
    expect(noticed).toBe(PAGE_BYTES * flips.length);
    expect(page.isSealed(id, 3)).toBe(true);
  });

  test('zeros are an empty one, and none that is sealed', () => {
    const page = new MapPage();
    expect([page.isEmpty, page.isSealed(id, 0), page.generation]).toEqual([true, false, 0]);
    page.bytes[4095] = 1;
    expect(page.isEmpty).toBe(false);
  });
});
