/**
 * What the executors do with the bytes of an open file, and what they write. Knows nothing of cowfs; plain JavaScript,
 * since Node 20 runs no TypeScript.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { aligned, lseek, PAGE, SEEK_DATA, SEEK_HOLE } from '../system-calls.mjs';

export const CHUNK = 1024 * 1024;
/** Larger than any operation. */
const MOST = 4 * CHUNK;

export const buffer = aligned(MOST + 2 * PAGE);
const ZEROS = Buffer.alloc(CHUNK);
const pattern = randomBytes(MOST + CHUNK);

/** The same ones in every process. */
function randomBytes(bytes) {
  const words = new Uint32Array(bytes / 4);
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer);
}

/** What a write with this seed writes; now and then zeros, which are data too. */
export function content(seed, length) {
  const bytes = buffer.subarray(0, length);
  if (seed % 16 === 0) bytes.fill(0);
  else pattern.copy(bytes, 0, (seed * 7919) % CHUNK, ((seed * 7919) % CHUNK) + length);
  return bytes;
}

export const hash = (bytes) => createHash('sha1').update(bytes).digest('base64').slice(0, 12);

/** The range that a transfer really takes: whole blocks through an O_DIRECT handle. */
export function range({ direct }, { off, len }) {
  if (!direct) return [off, len];
  const start = Math.floor(off / PAGE) * PAGE;
  return [start, Math.ceil((off + len) / PAGE) * PAGE - start];
}

/** As far as the file reaches; the bytes stand at the buffer's start. */
export function readFully(fd, offset, length) {
  let done = 0;
  while (done < length) {
    const bytes = fs.readSync(fd, buffer, done, length - done, offset + done);
    if (bytes === 0) break;
    done += bytes;
    // Short, so at the end; and the next offset would not be aligned.
    if (done % PAGE !== 0) break;
  }
  return buffer.subarray(0, done);
}

function areZeros(handle, from, to) {
  for (let at = from; at < to; at += CHUNK) {
    const [start, length] = range(handle, { off: at, len: Math.min(CHUNK, to - at) });
    const bytes = readFully(handle.fd, start, length).subarray(at - start, Math.min(at + CHUNK, to) - start);
    if (!bytes.equals(ZEROS.subarray(0, bytes.length))) return false;
  }
  return true;
}

/** Where data begins from an offset on; undefined when there is none. */
function dataAfter({ fd }, offset) {
  try {
    return lseek(fd, offset, SEEK_DATA);
  } catch (error) {
    if (error.code === 'ENXIO') return undefined;
    throw error;
  }
}

/**
 * Walks data and holes from an offset on and looks whether what is called a hole reads as zeros. While a handle for
 * writing is open all is called data; the kernel tells of its close in its own time, and so an answer can change once
 * between two questions, from data to hole.
 */
export function walkExtents(handle, size, from) {
  let changes = 0;
  for (let at = from; at < size; ) {
    const data = dataAfter(handle, at) ?? size;
    if (data < at || data > size) return `data ${data} after ${at} of ${size}`;
    if (!areZeros(handle, at, data)) return `data in the hole from ${at} to ${data}`;
    if (data === size) break;
    const hole = lseek(handle.fd, data, SEEK_HOLE);
    if (hole === data && changes++ === 0) continue;
    if (hole <= data || hole > size) return `hole ${hole} after data ${data} of ${size}`;
    at = hole;
  }
  return 'honest';
}
