/**
 * Entry of the command: what can be begun before the command line is understood, then the command line. A worker's thread
 * takes longest to come up, so it is started before anything is loaded that is not needed for that. Measured from `mount` to
 * the first read, and processor time of all that took part (medians of 9; `node -e 0` 67 ms): a second Node as daemon, loading
 * modules, 460 ms and 0.90 s; one Node 359 ms and 0.70 s; from bundles 272 ms and 0.46 s; its thread first 203 to 255 ms.
 */
import { caller } from './caller.ts';

async function start([verb = '', ...args]: readonly string[]): Promise<void> {
  const background = caller();
  if (background !== undefined) process.title = 'cowfs';
  const isUsual = args.length >= 2 && !args.some((arg) => /^(-h|--help|--transport.*)$/.test(arg));
  if (isUsual && ['mount', 'run'].includes(verb)) {
    const { defaultTransport, loadAhead } = await import('../transport/load.ts');
    await loadAhead(defaultTransport());
  }
  const launcher = background && new (await import('./launcher.ts')).Launcher(background);
  const { main } = await import('./main.ts');
  await main(process.argv, launcher);
}

void start(process.argv.slice(2));
