/**
 * The process that cleans up after a daemon that was killed: a detached shell that waits at the read end of a pipe
 * whose write end only the daemon holds. At end of file it detaches the mount, if it is still ours, and removes the
 * registry entry. A shell, because a second Node would cost 40 MB a mount and this costs one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { CowfsError, reasonOf } from '../lib/error.ts';

/**
 * $1 device number of the mount, $2 mountpoint, $3 and $4 files to remove, $5 "private" for a mountpoint to remove.
 * The word `done` before the end of file says that the daemon has cleaned up itself.
 */
const SCRIPT = `
trap '' HUP INT TERM QUIT
read -r word && [ "$word" = done ] && exit 0
ours=no
while read -r id parent device rest; do
  [ "$device" = "$1" ] && ours=yes
done </proc/self/mountinfo
if [ $ours = yes ]; then
  if [ "$(id -u)" = 0 ]; then umount -l -- "$2" || fusermount3 -u -z -- "$2"
  else fusermount3 -u -z -- "$2"
  fi
fi
rm -f -- "$3" "$4"
[ "$5" = private ] && rmdir -- "$2"
exit 0
`;

export interface Watched {
  /** `major:minor` of the mounted file system. */
  readonly device: string;
  readonly mountpoint: string;
  readonly removeFiles: readonly [entry: string, socket: string];
  readonly privateMountpoint: boolean;
}

export class Watcher {
  readonly #child: ChildProcess;
  readonly #started: Promise<number>;

  constructor(watched: Watched, warn: (message: string) => void) {
    const { device, mountpoint, removeFiles, privateMountpoint } = watched;
    const args = [device, mountpoint, ...removeFiles, privateMountpoint ? 'private' : 'shared'];
    const child = spawn('/bin/sh', ['-c', SCRIPT, 'cowfs-watcher', ...args], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#child = child;
    this.#started = new Promise((resolve, reject) => {
      child.once('spawn', () => resolve(child.pid ?? 0));
      child.once('error', (error) =>
        reject(new CowfsError('failed', `the watcher could not start: ${reasonOf(error)}`, error)),
      );
    });
    child.once('exit', () => warn('the watcher ended: if this daemon is killed, its mount will stay behind'));
    child.unref();
  }

  /** Waits until it runs; its pid. */
  started(): Promise<number> {
    return this.#started;
  }

  /** Sends it home: there is nothing to clean up any more. */
  async dismiss(): Promise<void> {
    this.#child.removeAllListeners('exit');
    const { stdin } = this.#child;
    if (stdin === null || stdin.destroyed) return;
    // It may have been killed; then there is nobody to tell.
    stdin.on('error', () => {});
    await new Promise<void>((resolve) => {
      stdin.end('done\n', () => resolve());
      stdin.once('close', () => resolve());
    });
  }
}
