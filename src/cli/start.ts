/**
 * Entry of the command: what can be begun before the command line is understood, then the command line. A worker's thread
 * takes longest to come up, so it is started before anything is loaded that is not needed for that. Measured from `mount` to
 * the first read, and processor time of all that took part (medians of 9; `node -e 0` 67 ms): a second Node as daemon, loading
 * modules, 460 ms and 0.90 s; one Node 359 ms and 0.70 s; from bundles 272 ms and 0.46 s; its thread first 203 to 255 ms.
 */
import { caller } from './caller.ts';
import type { Launcher } from './launcher.ts';

/** Whether it will be the kernel's transport. */
function isUsual(args: readonly string[]): boolean {
  return args.length >= 3 && !args.some((arg) => /^(-h|--help|--transport.*)$/.test(arg));
}

async function start(args: readonly string[]): Promise<void> {
  const background = caller();
  if (background !== undefined) process.title = 'cowfs';
  const verb = args.find((arg) => !arg.startsWith('-'));
  const serves = verb === 'mount' || verb === 'run';
  if (serves && isUsual(args)) {
    const { defaultTransport, loadAhead } = await import('../transport/load.ts');
    await loadAhead(defaultTransport());
  }
  const launcher = background && new (await import('./launcher.ts')).Launcher(background);
  const { main } = await import('./main.ts');
  await main(process.argv, launcher);
  if (serves) await endBeside(launcher);
}

/**
 * What would serve has come to nothing, and a thread of it is perhaps still loading: Node would end that first, and in the
 * middle of it koffi aborts the process.
 */
async function endBeside(launcher: Launcher | undefined): Promise<never> {
  const { isOutputLost } = await import('./exit.ts');
  const { exitNow } = await import('../sys/libc.ts');
  // A moment for what is wrong with standard output to be told.
  await isOutputLost();
  const status = Number(process.exitCode ?? 0);
  launcher?.tell(status);
  return exitNow(status);
}

void start(process.argv.slice(2));
