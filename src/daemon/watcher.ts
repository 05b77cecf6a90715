/**
 * A process outside the mount, for what the daemon must not do itself. A thread that serves a mount and waits for that
 * mount (to be unmounted, to tell a size) can wait for ever: if the daemon is killed just then, the thread that waits
 * keeps the connection open that would have to close for it to wake. So a detached shell does these things, at the
 * other end of a pipe that only the daemon holds open: at its end of file the shell detaches the mount, if it is still
 * ours, and removes the registry entry. A shell, because a second Node would cost 40 MB a mount and this costs one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { CowfsError, reasonOf } from '../lib/error.ts';

/**
 * $1 device number of the mount, $2 mountpoint, $3 and $4 files to remove, $5 "private" for a mountpoint to remove.
 * Commands, a line each: `done` (the daemon has cleaned up), `detach` (do it now), and questions, whose answers start
 * with the question's number; what may take long the shell does not wait for. `size N PATH`: the size of a file in the
 * mount as the kernel knows it, and the device it is on. `sync N PATH...`: has the kernel write back what it caches of
 * files. `settle N`: the same of all files in the mount, without a lock on any of them. `refresh N SIZE PATH`: has it drop
 * what it caches of a file, as every open does while the daemon wants that, and take on the size; the path is for
 * printf(1), `%b`. `forget N PATH...`: has it forget names in `.cowfs` of disks that nobody uses. (Of others it must not:
 * unlink(2) holds the directory's lock while it waits for the file's, which an lseek(2) holds that waits for the answer to
 * a question here.)
 */
const SCRIPT = `
trap '' HUP INT TERM QUIT PIPE
while IFS= read -r line; do
  case $line in
    done) exit 0 ;;
    detach) break ;;
    'size '*) ( set -f; set -- "$2" $line; stat -c "$3 %s %d" -- "$1/$4" 2>/dev/null || echo "$3 -" ) ;;
    'sync '* | 'forget '*) (
      set -f; set -- "$2" $line
      root=$1 action=$2 number=$3; shift 3
      for path; do set -- "$@" "$root/$path"; shift; done
      if [ $action = sync ]; then sync -- "$@" 2>/dev/null; else rm -f -- "$@" 2>/dev/null; fi
      echo "$number done"
    ) & ;;
    'settle '*) (
      set -f; set -- "$2" $line
      sync -f -- "$1/.cowfs" 2>/dev/null
      echo "$3 done"
    ) & ;;
    'refresh '*) (
      set -f; set -- "$2" $line
      path=$(printf '%bx' "$5"); path=$1/\${path%x}
      why=$( { true <"$path" && { [ "$(stat -c %s -- "$path")" = "$4" ] || truncate -c -s "$4" -- "$path"; }; } 2>&1 ) &&
        why=done
      # In one piece: others answer meanwhile.
      echo "$3 $(printf %s "$why" | tr '\\n' ' ')"
    ) & ;;
  esac
done
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

/** How long the shell may take to answer or to go. */
const ANSWER_MS = 5000;
const DETACH_MS = 10_000;

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
  readonly #device: string;
  /** Who waits for an answer, by the numbers of their questions. */
  readonly #questions = new Map<number, (answer: string | undefined) => void>();
  #asked = 0;
  #pending = '';

  constructor(watched: Watched, warn: (message: string) => void) {
    const { device, mountpoint, removeFiles, privateMountpoint } = watched;
    const args = [device, mountpoint, ...removeFiles, privateMountpoint ? 'private' : 'shared'];
    const child = spawn('/bin/sh', ['-c', SCRIPT, 'cowfs-watcher', ...args], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.#device = device;
    this.#child = child;
    this.#started = new Promise((resolve, reject) => {
      child.once('spawn', () => resolve(child.pid ?? 0));
      child.once('error', (error) =>
        reject(new CowfsError('failed', `the watcher could not start: ${reasonOf(error)}`, error)),
      );
    });
    child.once('exit', () => {
      for (const answer of this.#questions.values()) answer(undefined);
      this.#questions.clear();
    });
    child.on('exit', () => warn('the watcher ended: if this daemon is killed, its mount will stay behind'));
    // It may be killed at any time; then there is nobody to talk to, and `exit` tells.
    child.stdin?.on('error', () => {});
    child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#heard(text));
    child.unref();
  }

  /** Waits until it runs; its pid. */
  started(): Promise<number> {
    return this.#started;
  }

  /**
   * The size in bytes of a file in the mount as the kernel knows it; undefined when that cannot be told.
   *
   * @param path from the mountpoint, without blanks
   */
  async sizeOf(path: string): Promise<number | undefined> {
    const [size, device] = ((await this.#ask('size', path)) ?? '').split(' ').map(Number);
    // Something else may be mounted on top of us.
    return Number.isInteger(size) && device === deviceNumber(this.#device) ? size : undefined;
  }

  /**
   * Has the kernel write back what it caches of files; false when that takes long: a store without room.
   *
   * @param paths from the mountpoint, without blanks
   */
  async sync(paths: readonly string[]): Promise<boolean> {
    return paths.length === 0 || (await this.#ask('sync', paths.join(' '))) !== undefined;
  }

  /**
   * Has the kernel write back what it caches of all files, and waits for as long as that takes. By syncfs(2), not fsync(2):
   * that holds the file's lock, so that with a store that is full nobody could write there until there is room; and it
   * would take the error of a write-back that failed from whoever closes the file.
   */
  async settle(): Promise<void> {
    await this.#ask('settle', '', Number.POSITIVE_INFINITY);
  }

  /** Has the kernel forget names in `.cowfs` that somebody used and left. */
  async forget(paths: readonly string[]): Promise<void> {
    if (paths.length > 0) await this.#ask('forget', paths.join(' '));
  }

  /**
   * Has the kernel drop what it caches of a file whose content was replaced, and take on its size.
   *
   * @returns why it does not, or undefined
   */
  async refresh(path: string, sizeBytes: number): Promise<string | undefined> {
    const answer = await this.#ask('refresh', `${sizeBytes} ${escaped(path)}`);
    return answer?.trim() === 'done' ? undefined : (answer ?? 'no answer in time');
  }

  async #ask(question: string, argument: string, limitMs = ANSWER_MS): Promise<string | undefined> {
    const { exitCode, signalCode, stdin } = this.#child;
    if (exitCode !== null || signalCode !== null || stdin?.writable !== true) return undefined;
    const number = ++this.#asked;
    const answer = new Promise<string | undefined>((resolve) => {
      this.#questions.set(number, resolve);
      stdin.write(`${question} ${number} ${argument}\n`);
    });
    try {
      return await (limitMs === Number.POSITIVE_INFINITY ? answer : Promise.race([answer, after(limitMs)]));
    } finally {
      this.#questions.delete(number);
    }
  }

  /** Has it take the mount away and go; false when it did not in time (it is dead, or umount hangs). */
  async detach(): Promise<boolean> {
    // It is waited for now, also when nothing else keeps the process alive.
    this.#child.ref();
    this.#child.removeAllListeners('exit');
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return false;
    const gone = new Promise<boolean>((resolve) => this.#child.once('exit', (code) => resolve(code === 0)));
    this.#child.stdin?.write('detach\n');
    return (await Promise.race([gone, after(DETACH_MS)])) ?? false;
  }

  /** Sends it home: there is nothing to clean up any more. */
  async dismiss(): Promise<void> {
    this.#child.removeAllListeners('exit');
    const { stdin } = this.#child;
    if (stdin === null || stdin.destroyed) return;
    await new Promise<void>((resolve) => {
      stdin.end('done\n', () => resolve());
      stdin.once('close', () => resolve());
    });
  }

  #heard(text: string): void {
    this.#pending += text;
    const lines = this.#pending.split('\n');
    this.#pending = lines.pop() ?? '';
    for (const line of lines) {
      const blank = line.indexOf(' ');
      this.#questions.get(Number(line.slice(0, blank)))?.(line.slice(blank + 1));
    }
  }
}

/** For printf(1), `%b`: whatever a shell or a line could take for something else as its number. */
function escaped(path: string): string {
  return [...Buffer.from(path, 'utf8')]
    .map((byte) =>
      /[\w./-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `\\0${byte.toString(8).padStart(3, '0')}`,
    )
    .join('');
}

/** st_dev as stat(1) prints it (makedev(3): minor and major interleaved), of `major:minor`. */
function deviceNumber(device: string): number {
  const [major = 0, minor = 0] = device.split(':').map(Number);
  return (minor & 0xff) + (major & 0xfff) * 2 ** 8 + (minor >>> 8) * 2 ** 20;
}

function after(milliseconds: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), milliseconds).unref());
}
