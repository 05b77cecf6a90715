/**
 * Entry of the command: what can be begun before the command line is understood, then the command line.
 */
import { dropAhead, spawnAhead } from './daemon-process.ts';

export async function start(argv: readonly string[]): Promise<void> {
  spawnAhead(argv);
  try {
    const { main } = await import('./main.ts');
    await main(argv);
  } finally {
    await dropAhead();
  }
}
