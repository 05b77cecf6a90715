/**
 * What a disk shows when a case begins, as a function of the offset: every 8 bytes say where they are, so that a byte
 * at the wrong place is seen. Also writes the base images that show it.
 */
import fs from 'node:fs';

export const MIB = 1024 * 1024;
export const GIB = 1024 * MIB;

/** Each base by name: its size, and where it has data; zeros elsewhere. */
export const BASES = {
  /** Whole blocks. */
  even: { bytes: 4 * MIB, data: [[0, 4 * MIB]] },
  /** As many bytes as no block size divides. */
  odd: { bytes: 130_000, data: [[0, 130_000]] },
  /** Beyond what 32 bits count: islands, some of them across a multiple of 4 GiB. */
  far: {
    bytes: 8 * GIB + MIB + 77,
    data: [
      [0, MIB],
      [3 * GIB, MIB],
      [4 * GIB - 65_536, 131_072],
      [5 * GIB, MIB],
      [8 * GIB, MIB + 77],
    ],
  },
};

/** The bytes of a whole word at each multiple of 8: its number, and a mix of it that is never all zeros. */
export function patternAt(offset, length) {
  const first = Math.floor(offset / 8);
  const words = Math.ceil((offset + length) / 8) - first;
  const bytes = Buffer.alloc(words * 8);
  for (let index = 0; index < words; index++) {
    const word = first + index;
    bytes.writeUInt32BE(word, index * 8);
    bytes.writeUInt32BE(((Math.imul(word, 0x9e3779b1) ^ 0x5bd1e995) | 1) >>> 0, index * 8 + 4);
  }
  return bytes.subarray(offset - first * 8, offset - first * 8 + length);
}

/** What a base shows at a range, zeros past its end included. */
export function contentAt(base, offset, length) {
  const bytes = Buffer.alloc(length);
  for (const [start, size] of BASES[base].data) {
    const from = Math.max(offset, start);
    const to = Math.min(offset + length, start + size);
    if (from < to) patternAt(from, to - from).copy(bytes, from - offset);
  }
  return bytes;
}

/** Bytes that differ from the pattern everywhere, by seed. */
export function otherBytes(seed, length) {
  const bytes = Buffer.alloc(length);
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

export function writeBase(base, path) {
  const { bytes, data } = BASES[base];
  const fd = fs.openSync(path, 'w');
  for (const [start, size] of data) fs.writeSync(fd, patternAt(start, size), 0, size, start);
  fs.ftruncateSync(fd, bytes);
  fs.closeSync(fd);
}
