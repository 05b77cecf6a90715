/**
 * Entry of the background daemon: takes its options as JSON in the first argument. A worker's thread comes up while this
 * one loads its own modules and mounts: on 2 cores, and with only the called verb loaded by the command, the first read
 * after `mount` came after 181 ms instead of 208 (medians of 15, interleaved, twice).
 */
import { loadAhead } from '../transport/load.ts';
import { EndSignals } from './end-signals.ts';
import { parseMountOptions } from './options.ts';

process.title = 'cowfs';
const signals = new EndSignals();
const options = parseMountOptions(process.argv[2] ?? '');
await loadAhead(options.transport);
const { serveInBackground } = await import('./background.ts');
await serveInBackground(options, signals);
