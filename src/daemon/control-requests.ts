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
  | { readonly command: 'delete-snapshot'; readonly disk: string; readonly name: string };

export interface ControlResults {
  readonly status: MountStatus;
  readonly detach: MountStatus;
  readonly reset: null;
  readonly rollback: null;
  readonly fork: null;
  readonly snapshot: null;
  readonly 'delete-snapshot': null;
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
