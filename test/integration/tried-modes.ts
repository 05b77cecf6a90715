/**
 * Which modes the long suites try. All of them are held to the same by the conformance and the property suites; here the
 * two that lie between others are left out, since each mode of a hundred tests costs minutes. `COWFS_MODES=all`: every one.
 */
import type { CacheMode } from '../../src/fs/options.ts';
import type { TransportName } from '../../src/transport/transport.ts';

export function isTried(transport: TransportName, cache: CacheMode): boolean {
  if (process.env['COWFS_MODES'] === 'all') return true;
  return transport === 'kernel' ? cache !== 'writethrough' : cache !== 'none';
}
