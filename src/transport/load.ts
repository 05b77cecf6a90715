/**
 * Chooses and loads a transport; none costs anything before it is chosen.
 */
import type { Transport, TransportName } from './transport.ts';

export async function loadTransport(name: TransportName): Promise<Transport> {
  if (name === 'kernel') return (await import('./kernel/transport.ts')).kernelTransport;
  return (await import('./fuse-native/transport.ts')).fuseNativeTransport;
}

/** The one for this machine, where none is asked for. */
export function defaultTransport(): TransportName {
  return process.platform === 'linux' ? 'kernel' : 'fuse-native';
}

/** Has a transport begin to load what takes long, beside whatever comes before its mount. */
export async function loadAhead(name: TransportName): Promise<void> {
  if (name === 'kernel') (await import('./kernel/worker-thread.ts')).startAhead();
}
