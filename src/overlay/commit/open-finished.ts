/**
 * Opens what is going to rely on the content of a base: a commit that was interrupted is finished before. Main thread of a
 * daemon before the mount, or a command.
 */
import { findInterrupted } from './log-path.ts';

/**
 * @param basePath as the user gave it
 * @param open opens the base and locks it; called again where a log has come to light meanwhile
 * @param close takes that back
 * @returns what `open` gave, and what was done, for the user; undefined if there was nothing to do
 * @throws CowfsError as `open` and `rollForward`
 */
export async function openFinished<Opened>(
  basePath: string,
  open: () => Opened,
  close: (opened: Opened) => void,
): Promise<{ readonly opened: Opened; readonly finished: string | undefined }> {
  let finished: string | undefined;
  for (;;) {
    if (findInterrupted(basePath) !== undefined) {
      // Loaded only here: most bases have nothing to finish.
      const { rollForward } = await import('./roll-forward.ts');
      finished = rollForward(basePath) ?? finished;
    }
    const opened = open();
    // Once it is locked nobody begins a commit. One that began, and died, before that has left its log by now.
    if (findInterrupted(basePath) === undefined) return { opened, finished };
    close(opened);
  }
}
