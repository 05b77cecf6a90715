/**
 * What a mount is asked to do: parsed once by the command line, carried as JSON to the daemon process and checked
 * again there. All paths are absolute.
 */

import type { CacheMode } from '../fs/options.ts';
import { CowfsError } from '../lib/error.ts';
import type { LogLevel } from '../lib/log-level.ts';
import type { AioMode, TransportName } from '../transport/transport.ts';

export interface MountOptions {
  readonly base: string;
  readonly mountpoint: string;
  /** The connection, when a parent has mounted it; the mountpoint is where, or `/dev/fd/N` if that is unknown. */
  readonly fuseFd?: number;
  /** File names of the disks that are there from the start; the first is the one that is told of. */
  readonly names: readonly string[];
  /** How the names end of files that may be made in the mount, and become disks. */
  readonly suffixes: readonly string[];
  readonly storeDirectory: string;
  /** File that keeps the first disk. */
  readonly overlay?: string;
  /** Size of the disk in bytes, when larger than the base. */
  readonly sizeBytes?: number;
  readonly transport: TransportName;
  readonly cacheMode: CacheMode;
  readonly aio: AioMode | 'auto';
  /** Most worker threads. */
  readonly threads: number;
  readonly readOnly: boolean;
  readonly allowOther: boolean;
  /** Quotas of the store in bytes: of all disks together, and of each. */
  readonly maxStoreBytes?: number;
  readonly maxSessionStoreBytes?: number;
  /** How long cached writes wait for room in a full store. */
  readonly enospcTimeoutMs: number;
  readonly logFile?: string;
  readonly logLevel: LogLevel;
  readonly trace: boolean;
  /** Go on although the base is in use. */
  readonly force: boolean;
  /** Remove the mountpoint afterwards: it was made for this mount alone (`cowfs run`). */
  readonly privateMountpoint: boolean;
}

/** What each field must be; `?` marks those that may be absent. */
const FIELDS: Record<keyof MountOptions, 'string' | 'number' | 'boolean' | 'string?' | 'number?' | 'string[]'> = {
  base: 'string',
  mountpoint: 'string',
  fuseFd: 'number?',
  names: 'string[]',
  suffixes: 'string[]',
  storeDirectory: 'string',
  overlay: 'string?',
  sizeBytes: 'number?',
  transport: 'string',
  cacheMode: 'string',
  aio: 'string',
  threads: 'number',
  readOnly: 'boolean',
  allowOther: 'boolean',
  maxStoreBytes: 'number?',
  maxSessionStoreBytes: 'number?',
  enospcTimeoutMs: 'number',
  logFile: 'string?',
  logLevel: 'string',
  trace: 'boolean',
  force: 'boolean',
  privateMountpoint: 'boolean',
};

/**
 * The options that the parent process wrote.
 *
 * @throws CowfsError of kind `failed`: only a parent of another version writes something else
 */
export function parseMountOptions(json: string): MountOptions {
  const value: unknown = JSON.parse(json);
  if (typeof value !== 'object' || value === null) throw new CowfsError('failed', 'mount options are no object');
  const fields = new Map<string, unknown>(Object.entries(value));
  for (const [name, type] of Object.entries(FIELDS)) {
    const field = fields.get(name);
    const fits =
      type === 'string[]'
        ? Array.isArray(field) && field.every((each) => typeof each === 'string')
        : typeof field === type.replace('?', '') || (field === undefined && type.endsWith('?'));
    if (!fits) throw new CowfsError('failed', `mount option ${name} is ${typeof field}, not ${type}`);
  }
  return value as MountOptions;
}
