/**
 * Reads /proc/self/mountinfo (proc(5)): which file system is mounted where. Used by the commands and by the daemon
 * before it mounts. It never touches the mounts themselves, so that a dead one cannot hang the caller.
 */
import { readFileSync } from 'node:fs';

export interface MountEntry {
  /** Device number `major:minor` of the file system; unique among the mounted ones. */
  readonly device: string;
  readonly mountpoint: string;
  /** `fuse.cowfs`, `ext4`, ... */
  readonly type: string;
  readonly source: string;
}

/** All mounts of this mount namespace, in mount order: of two on one mountpoint the later is on top. */
export function readMounts(): MountEntry[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** The mount on top at exactly this path, or undefined. */
export function mountAt(path: string): MountEntry | undefined {
  return readMounts().findLast((entry) => entry.mountpoint === path);
}

export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [, , device, , mountpoint] = fields;
    const [type, source] = fields.slice(separator + 1);
    if (separator < 0 || device === undefined || mountpoint === undefined || type === undefined) continue;
    entries.push({
      device,
      mountpoint: unescapeOctal(mountpoint),
      type,
      source: unescapeOctal(source ?? ''),
    });
  }
  return entries;
}

/** The kernel writes blanks, tabs, newlines and backslashes as three octal digits. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
