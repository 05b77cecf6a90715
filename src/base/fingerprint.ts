/**
 * Tells whether a base is still the one that an overlay was made for: a hash of its size and of samples of its content.
 * The samples are where file systems and partition tables leave their marks at every mount that may write (the first
 * 2 MiB, the last 1 MiB), and 64 blocks in between; so it takes milliseconds whatever the size. A change elsewhere shows in the
 * modification time.
 */
import { createHash } from 'node:crypto';
import { errnoName, OK } from '../lib/errno.ts';
import { CowfsError } from '../lib/error.ts';
import type { Base } from './base.ts';

const HEAD_BYTES = 2 * 1024 * 1024;
const TAIL_BYTES = 1024 * 1024;
const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

/**
 * @returns 32 bytes
 * @throws CowfsError of kind `failed` when the base cannot be read there
 */
export function fingerprintOf(base: Base, path: string): Buffer {
  const { sizeBytes } = base;
  const hash = createHash('sha256').update(`cowfs 1\n${sizeBytes}\n`);
  const buffer = Buffer.alloc(HEAD_BYTES);
  const add = (offset: number, length: number): void => {
    const errno = base.read(offset, length, buffer, 0);
    if (errno !== OK) {
      throw new CowfsError(
        'failed',
        `${path} cannot be read at offset ${offset} (${errnoName(errno)}); check the medium`,
      );
    }
    hash.update(buffer.subarray(0, length));
  };
  add(0, Math.min(HEAD_BYTES, sizeBytes));
  if (sizeBytes <= HEAD_BYTES) return hash.digest();
  const blocks = Math.floor(sizeBytes / SAMPLE_BYTES);
  for (let sample = 1; sample <= SAMPLES; sample++) {
    const at = Math.floor((blocks * sample) / (SAMPLES + 1)) * SAMPLE_BYTES;
    add(at, Math.min(SAMPLE_BYTES, sizeBytes - at));
  }
  const tail = Math.min(TAIL_BYTES, sizeBytes);
  add(sizeBytes - tail, tail);
  return hash.digest();
}
