/**
 * Where `--trace` goes: one line a request and one an answer, through the same logger as everything else. On each
 * thread that serves; loads pino only when tracing.
 */
import { Trace } from '../fuse/trace.ts';
import type { TraceTarget } from './transport.ts';

export async function openTrace(
  target: TraceTarget | undefined,
  onError: (error: Error) => void,
): Promise<Trace | undefined> {
  if (target === undefined) return undefined;
  const { createLogger } = await import('../lib/log.ts');
  const logger = await createLogger({ level: 'trace', file: target.logFile, onError });
  return new Trace((line) => logger.trace(line));
}
