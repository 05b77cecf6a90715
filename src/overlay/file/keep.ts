/**
 * Gets the overlay file of a mount ready, an existing or a new one, and checks that it fits the base. Main thread of the
 * daemon, before the mount.
 */
import { closeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { OpenedBase } from '../../base/open.ts';
import { EEXIST, errnoOf } from '../../lib/errno.ts';
import { CowfsError, reasonOf } from '../../lib/error.ts';
import { formatBytes } from '../../lib/units.ts';
import type { BlockMap } from '../map.ts';
import { StoreDirectory } from '../store-directory.ts';
import { checkIdentity, identityOf } from './identity.ts';
import { type BaseIdentity, capacityBytes, type Header } from './layout.ts';
import { loadMap, specOf } from './load.ts';
import { createOverlay, openOverlay, overlayExists } from './open.ts';
import type { OverlayFileSpec } from './overlay-file.ts';

export interface KeptDisk {
  readonly header: Header;
  readonly spec: OverlayFileSpec;
  readonly warnings: readonly string[];
  /** @throws CowfsError when the file is damaged */
  load(map: BlockMap): void;
  /** Gives a new file its name: from then on it stays. */
  publish(): void;
}

/** @throws CowfsError: damaged, in use, on another base, cannot be made */
export function keepIn(path: string, base: OpenedBase, diskBytes: number, force: boolean): KeptDisk {
  return overlayExists(path) ? keepInExisting(path, base, diskBytes, force) : keepInNew(path, base, diskBytes);
}

function keepInExisting(path: string, base: OpenedBase, diskBytes: number, force: boolean): KeptDisk {
  const opened = openOverlay(path, 'overlay', 'write');
  let now: BaseIdentity;
  let warning: string | undefined;
  try {
    const most = capacityBytes(opened.header);
    if (diskBytes > most) {
      throw new CowfsError(
        'usage',
        `overlay ${path} has no room for a disk of more than ${formatBytes(most)}; export it to a raw image, and start a new one on that`,
      );
    }
    now = identityOf(base);
    warning = checkIdentity(path, opened.header.base, now, force);
  } catch (error) {
    closeSync(opened.fd);
    throw error;
  }
  // Where it lies now, and with `force` what it is now.
  const backingLimit = Math.min(opened.header.backingLimit, now.sizeBytes);
  const header = { ...opened.header, base: now, backingLimit };
  const spec = { ...specOf(opened, StoreDirectory.open(dirname(path))), header };
  return {
    header,
    spec,
    warnings: warning === undefined ? [] : [warning],
    load: (map) => loadMap(opened, spec, map),
    publish: () => {},
  };
}

function keepInNew(path: string, base: OpenedBase, diskBytes: number): KeptDisk {
  const { file, opened } = createOverlay(path, {
    role: 'overlay',
    diskBytes,
    base: identityOf(base),
    origin: undefined,
  });
  const spec = specOf(opened, StoreDirectory.open(dirname(path)));
  return {
    header: opened.header,
    spec,
    warnings: [],
    load: (map) => loadMap(opened, spec, map),
    publish: () => {
      try {
        file.publish(false);
      } catch (error) {
        if (errnoOf(error) === EEXIST) {
          throw new CowfsError('refused', `overlay ${path} was made by somebody else meanwhile; try again`, error);
        }
        throw new CowfsError('failed', `overlay ${path} cannot be made: ${reasonOf(error)}`, error);
      }
    },
  };
}
