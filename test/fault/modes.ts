/** Every way in which a disk is served: what goes wrong below must come out right through each. */
import type { TestContext } from 'vitest';
import type { CacheMode } from '../../src/fs/options.ts';
import { CACHE_MODES, TRANSPORT_NAMES, type TransportName } from '../../src/transport/transport.ts';
import { needsFuseNative } from '../integration/fuse-native-support.ts';
import { needsRoot } from '../integration/machine-support.ts';
import { isTried } from '../integration/tried-modes.ts';

export interface Mode {
  readonly transport: TransportName;
  readonly cache: CacheMode;
  /** Of `cowfs mount`. */
  readonly options: readonly string[];
}

export const MODES: readonly Mode[] = TRANSPORT_NAMES.flatMap((transport) =>
  CACHE_MODES[transport]
    .filter((cache) => isTried(transport, cache))
    .map((cache) => ({
      transport,
      cache,
      options: ['--transport', transport, '--cache', cache],
    })),
);

/** For `describe.each(MODES)`. */
export const MODE_NAME = '--transport $transport --cache $cache';

/** Skips where this machine cannot: the faulty file systems are mounted by root. */
export function needsMode(context: TestContext, { transport }: Mode): void {
  needsRoot(context);
  if (transport === 'fuse-native') needsFuseNative(context);
}
