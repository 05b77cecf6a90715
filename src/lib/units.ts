/**
 * Sizes, times and rates as people write and read them. Pure; used by the commands and the logs.
 */
import { CowfsError } from './error.ts';

const SUFFIXES = ['', 'K', 'M', 'G', 'T', 'P'] as const;

/**
 * Parses `512`, `64K`, `10G`, `1.5T` (powers of 1024; `KiB` and `KB` are taken as `K`).
 *
 * @returns whole bytes, at most 2^53 - 1
 * @throws CowfsError of kind `usage` when the text is no size
 */
export function parseSize(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?$/i.exec(text.trim());
  const bytes =
    match === null
      ? Number.NaN
      : Number(match[1]) * 1024 ** SUFFIXES.indexOf((match[2] ?? '').toUpperCase() as (typeof SUFFIXES)[number]);
  if (!Number.isFinite(bytes) || bytes > Number.MAX_SAFE_INTEGER) {
    throw new CowfsError(
      'usage',
      `${option} ${text}: not a size; write bytes or a number with K, M, G, T, such as 20G`,
    );
  }
  return Math.floor(bytes);
}

/**
 * Parses `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
 *
 * @returns milliseconds
 * @throws CowfsError of kind `usage` when the text is no duration
 */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  const unitMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] ?? 's'] ?? Number.NaN;
  const milliseconds = match === null ? Number.NaN : Number(match[1]) * unitMs;
  if (!Number.isFinite(milliseconds) || milliseconds > 2 ** 31 - 1) {
    throw new CowfsError('usage', `${option} ${text}: not a time; write seconds or 500ms, 30s, 5m, 1h`);
  }
  return milliseconds;
}

/** `0 B`, `4.0 KiB`, `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let step = 0;
  // From 1023.95 on a decimal would round up to the next unit's first.
  while (value >= (step === 0 ? 1024 : 1023.95) && step < SUFFIXES.length - 1) {
    value /= 1024;
    step += 1;
  }
  return step === 0 ? `${bytes} B` : `${value.toFixed(1)} ${SUFFIXES[step]}iB`;
}

/** `3 s`, `12 min`, `5 h 10 min`, `2 d 3 h`. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** ISO 8601, to the millisecond, rounded as `fs.Stats` does; of nanoseconds since the epoch. */
export function formatTime(nanoseconds: bigint): string {
  return new Date(Number((nanoseconds + 500_000n) / 1_000_000n)).toISOString();
}
