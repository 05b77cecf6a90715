/**
 * What the commands ask a daemon for, and what they get. Paths of disks are from the mountpoint, `job-17/a.raw`.
 */
import { CowfsError } from '../lib/error.ts';
import type { MountStatus } from './status.ts';

export type ControlRequest =
  | { readonly command: 'status' }
  /** Ends the mount although files are open. */
  | { readonly command: 'detach' }
  /** Back to the base; `force`: although it is open. */
  | { readonly command: 'reset'; readonly disk: string; readonly force: boolean }
  | { readonly command: 'rollback'; readonly disk: string; readonly name: string }
  | { readonly command: 'fork'; readonly disk: string; readonly to: string }
  | { readonly command: 'snapshot'; readonly disk: string; readonly name: string }
  | { readonly command: 'delete-snapshot'; readonly disk: string; readonly name: string }
  /** Lends the content of a disk as it is now, until the connection ends; `commit`: to be written into the base. */
  | { readonly command: 'hold'; readonly disk: string; readonly purpose: HoldPurpose }
  /** Runs of equal state of a layer that is lent, from a block on. */
  | { readonly command: 'map'; readonly layer: number; readonly from: number }
  /** From here on the base is being written to. */
  | { readonly command: 'commit-begins' }
  /** The base has all that was lent: the disk goes on from there. */
  | { readonly command: 'commit-done' };

/** `look`: what a kept disk has may change meanwhile. */
export type HoldPurpose = 'look' | 'read' | 'commit';

/** A layer that is lent; descriptors are the daemon's, to be opened by /proc/PID/fd. */
export interface LentLayer {
  readonly id: number;
  readonly sizeBytes: number;
  readonly backingLimit: number;
  readonly storeFd: number | null;
  /** Byte of the store at which the disk begins. */
  readonly origin: number;
  /** Whether the store is a clone of the base: then there is no map. */
  readonly isClone: boolean;
}

export interface LentDisk {
  readonly pid: number;
  readonly path: string;
  readonly base: { readonly path: string; readonly fd: number; readonly sizeBytes: number; readonly hasHoles: boolean };
  /** From the base up. */
  readonly layers: readonly LentLayer[];
  /** Whether a commit of it was interrupted: its log is there, and this disk has all of it. */
  readonly isUnfinished: boolean;
}

export interface LentRuns {
  /** Blocks and their state, by turns. */
  readonly runs: readonly number[];
  /** Where to go on; null at the end. */
  readonly next: number | null;
}

export interface ControlResults {
  readonly status: MountStatus;
  readonly detach: MountStatus;
  readonly reset: null;
  readonly rollback: null;
  readonly fork: null;
  readonly snapshot: null;
  readonly 'delete-snapshot': null;
  readonly hold: LentDisk;
  readonly map: LentRuns;
  readonly 'commit-begins': null;
  readonly 'commit-done': null;
}

type FieldType = 'string' | 'number' | 'boolean';

/** The fields that each request has besides. */
const FIELDS: Readonly<Record<ControlRequest['command'], Readonly<Record<string, FieldType>>>> = {
  status: {},
  detach: {},
  reset: { disk: 'string', force: 'boolean' },
  rollback: { disk: 'string', name: 'string' },
  fork: { disk: 'string', to: 'string' },
  snapshot: { disk: 'string', name: 'string' },
  'delete-snapshot': { disk: 'string', name: 'string' },
  hold: { disk: 'string', purpose: 'string' },
  map: { layer: 'number', from: 'number' },
  'commit-begins': {},
  'commit-done': {},
};

/** @throws CowfsError of kind `usage`, or what JSON.parse says */
export function parseControlRequest(line: string): ControlRequest {
  const value: unknown = JSON.parse(line);
  const fields = new Map<string, unknown>(typeof value === 'object' && value !== null ? Object.entries(value) : []);
  const command = fields.get('command');
  if (typeof command !== 'string' || !Object.hasOwn(FIELDS, command)) throw new CowfsError('usage', 'unknown command');
  for (const [name, type] of Object.entries(FIELDS[command as ControlRequest['command']])) {
    if (typeof fields.get(name) !== type) throw new CowfsError('usage', `${command}: ${name} is no ${type}`);
  }
  return value as ControlRequest;
}
