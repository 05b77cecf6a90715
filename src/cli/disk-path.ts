/**
 * From the path of a disk, as a user names it, to the daemon that serves it. The mount itself is not looked at: one whose
 * daemon is dead or stopped keeps whoever asks waiting.
 */
import { realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { RegistryEntry } from '../daemon/registry.ts';
import type { DiskStatus, MountStatus } from '../daemon/status.ts';
import { CowfsError, reasonOf } from '../lib/error.ts';
import { mountAt } from '../sys/mountinfo.ts';
import { MOUNT_TYPE } from '../transport/transport.ts';

interface Place {
  readonly entry: RegistryEntry;
  /** From the mountpoint; empty for the mountpoint itself. */
  readonly path: string;
}

/** @throws CowfsError of kind `usage` for a path that is not in a live mount of this user */
export async function placeOf(given: string): Promise<Place> {
  const place = await findPlace(given);
  if (place !== undefined) return place;
  throw inNoMount(given);
}

export function inNoMount(given: string): CowfsError {
  return new CowfsError('usage', `${given} is in no live cowfs mount of yours; \`cowfs list\` shows them`);
}

/** @throws CowfsError of kind `usage` for a path that does not exist, or in a mount that nobody serves */
export async function findPlace(given: string): Promise<Place | undefined> {
  const { findEntry, isAlive } = await import('../daemon/registry.ts');
  const names = resolve(given).split('/').slice(1);
  let outside = '/';
  for (const [index, name] of names.entries()) {
    const place = join(outside, name);
    // A link may lead to a mountpoint, too: what it leads to is looked at before it is followed.
    outside = mountAt(place)?.type === MOUNT_TYPE ? place : resolved(place, given);
    if (mountAt(outside)?.type !== MOUNT_TYPE) continue;
    const entry = findEntry(outside);
    if (entry === undefined || !isAlive(entry)) throw inNoMount(given);
    return { entry, path: names.slice(index + 1).join('/') };
  }
  return undefined;
}

function resolved(place: string, given: string): string {
  try {
    return realpathSync(place);
  } catch (error) {
    throw new CowfsError('usage', `${given}: ${reasonOf(error)}; \`cowfs list\` shows your mounts`, error);
  }
}

/** The one disk of a mount, where its mountpoint is named. */
export function onlyDiskIn({ disks, mountpoint }: MountStatus): DiskStatus {
  const named = disks.filter(({ removed }) => !removed);
  const [disk] = named;
  if (disk !== undefined && named.length === 1) return disk;
  const names = named.length === 0 ? 'has no disk' : `has ${named.length} disks`;
  throw new CowfsError('usage', `${mountpoint} ${names}; name one (\`cowfs status ${mountpoint}\` lists them)`);
}

/** @throws CowfsError of kind `usage` where there is no such disk */
export function diskIn({ disks, mountpoint }: MountStatus, path: string): DiskStatus {
  const disk = disks.find(({ name, removed }) => name === path && !removed);
  if (disk !== undefined) return disk;
  throw new CowfsError('usage', `${mountpoint}/${path} is no disk; \`cowfs status ${mountpoint}\` lists them`);
}
