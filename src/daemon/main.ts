/**
 * Entry of the background daemon: takes the name of a transport as its argument, and its options from a pipe, which may come
 * later: until then it loads what it will need. A worker's thread comes up meanwhile: on 2 cores, and with only the called
 * verb loaded by the command, the first read after `mount` came after 181 ms instead of 208 (medians of 15, interleaved,
 * twice).
 */
import { closeSync, readSync } from 'node:fs';
import { loadAhead } from '../transport/load.ts';
import type { TransportName } from '../transport/transport.ts';
import { EndSignals } from './end-signals.ts';
import { parseMountOptions } from './options.ts';
import { OPTIONS_FD } from './start-report.ts';

process.title = 'cowfs';
const signals = new EndSignals();
await loadAhead(process.argv[2] as TransportName);
const { serveInBackground } = await import('./background.ts');
const line = readOptions();
// Whoever started us has thought better of it.
if (!line.endsWith('\n')) process.exit(0);
await serveInBackground(parseMountOptions(line), signals);

/** Waits for the options; what comes is cut short where the parent has gone. */
function readOptions(): string {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = Buffer.alloc(65_536);
    const length = readSync(OPTIONS_FD, piece);
    pieces.push(piece.subarray(0, length));
    if (length === 0 || piece[length - 1] === 10) break;
  }
  closeSync(OPTIONS_FD);
  return Buffer.concat(pieces).toString();
}
