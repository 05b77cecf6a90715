/**
 * Where daemons leave word of themselves: /run/cowfs for root, $XDG_RUNTIME_DIR/cowfs for others; without one of
 * these, a directory of the user's own in the system's temporary place. Mode 0700, and only taken if it is ours.
 */
import { accessSync, constants, lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CowfsError } from '../lib/error.ts';
import { userNamespace } from '../sys/user-namespace.ts';

/**
 * The directory, made if need be.
 *
 * @throws CowfsError of kind `missing` when no candidate can be used
 */
export function runtimeDirectory(): string {
  const candidates = runtimeCandidates();
  const found = candidates.find(usable);
  if (found !== undefined) return found;
  throw new CowfsError(
    'missing',
    `no place for the daemon's state: tried ${candidates.join(', ')}; set XDG_RUNTIME_DIR to a directory of yours`,
  );
}

function runtimeCandidates(): string[] {
  const uid = process.geteuid?.() ?? 0;
  const candidates = uid === 0 ? ['/run/cowfs'] : [];
  const xdg = process.env['XDG_RUNTIME_DIR'];
  if (xdg) candidates.push(join(xdg, 'cowfs'));
  candidates.push(join(tmpdir(), temporaryName(uid)));
  return candidates;
}

/** Root of a user namespace is somebody else outside, where the directory's name must not collide. */
function temporaryName(uid: number): string {
  const { isInitial, outside } = userNamespace();
  return isInitial ? `cowfs-${uid}` : `cowfs-${outside}-userns-${uid}`;
}

function usable(directory: string): boolean {
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch {
    // It is there already, or cannot be made: what follows tells.
  }
  try {
    const stats = lstatSync(directory);
    // Never a link or somebody else's directory: others could plant sockets there.
    if (!stats.isDirectory() || stats.uid !== process.geteuid?.() || (stats.mode & 0o077) !== 0) return false;
    accessSync(directory, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
