/**
 * Entry of the command: what can be begun before the command line is understood, then the command line. A worker's thread
 * comes up while this one loads what parses options and mounts: on 2 cores the first read after `mount` came after 181 ms
 * instead of 208 (medians of 15, interleaved, twice).
 */
import type { Launcher } from './launcher.ts';

const [verb, ...args] = process.argv.slice(2);
let launcher: Launcher | undefined;
if (verb === 'mount') {
  process.title = 'cowfs';
  // Before the thread: Node has standard output not block from then on.
  launcher = (await import('./launcher.ts')).Launcher.find();
  const isUsual = args.length >= 2 && !args.some((arg) => /^(-h|--help|--transport.*)$/.test(arg));
  if (isUsual) {
    const { defaultTransport, loadAhead } = await import('../transport/load.ts');
    await loadAhead(defaultTransport());
  }
}
const { main } = await import('./main.ts');
await main(process.argv, launcher);
