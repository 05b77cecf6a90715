/**
 * Notices that the base changed under us: size, mtime and inode, as the locks do not bind programs that take none.
 * Main thread; asked by a timer and by `status`. It compares, it does not read content.
 */
import { fstatSync, statSync } from 'node:fs';
import type { OpenedBase } from './open.ts';

/** What changed, in words, or undefined. Never throws: a base that cannot be looked at has changed, too. */
export function baseChange(base: OpenedBase): string | undefined {
  const changes: string[] = [];
  try {
    const now = fstatSync(base.descriptor.fd);
    if (base.kind === 'file' && now.size !== base.stats.size) {
      changes.push(`size ${base.stats.size} became ${now.size}`);
    }
    if (base.kind === 'file' && now.mtimeMs !== base.stats.mtimeMs) changes.push('it was written to');
    if (now.nlink === 0) changes.push('it was deleted');
    else {
      const named = statSync(base.path);
      if (named.ino !== base.stats.ino || named.dev !== base.stats.dev) changes.push('its path names another file now');
    }
  } catch (error) {
    changes.push(error instanceof Error ? error.message : String(error));
  }
  return changes.length === 0 ? undefined : changes.join(', ');
}
