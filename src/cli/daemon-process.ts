/**
 * The process of a background daemon. It can be started before the command line is understood: its Node and its modules
 * come up while this process loads what parses options; it gets them through a pipe, and ends where none come. Imports
 * next to nothing, for that reason.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { FUSE_FD, OPTIONS_FD, REPORT_FD } from '../daemon/start-report.ts';
import { defaultTransport } from '../transport/load.ts';

export interface DaemonProcess {
  readonly child: ChildProcess;
  readonly options: Writable;
  readonly report: Readable;
}

export interface DaemonProcessOptions {
  readonly transport: string;
  /** An open connection that it takes over. */
  readonly fuseFd?: number | undefined;
  /** Whether it writes to this process's standard error for as long as it lives. */
  readonly keepsStderr: boolean;
}

/** So that what is scavenged stays small: a daemon allocates next to nothing (`lib/heap.ts` has the figures). */
const NODE_FLAGS = ['--max-semi-space-size=1'];

let ahead: DaemonProcess | undefined;

export function spawnDaemon({ transport, fuseFd, keepsStderr }: DaemonProcessOptions): DaemonProcess {
  const main = fileURLToPath(new URL('../daemon/main.js', import.meta.url));
  const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'ignore', keepsStderr ? 2 : 'pipe'];
  stdio[REPORT_FD] = 'pipe';
  stdio[OPTIONS_FD] = 'pipe';
  if (fuseFd !== undefined) stdio[FUSE_FD] = fuseFd;
  const child = spawn(process.execPath, [...NODE_FLAGS, main, transport], { cwd: '/', detached: true, stdio });
  return { child, options: child.stdio[OPTIONS_FD] as Writable, report: child.stdio[REPORT_FD] as Readable };
}

/** Starts one where the arguments look like a mount of the usual kind: what they mean is found out later. */
export function spawnAhead(argv: readonly string[]): void {
  const [verb, ...args] = argv.slice(2);
  const isUsual = !args.some((arg) => /^(-h|--help|--foreground|--trace|--transport.*|\/dev\/fd\/.*)$/.test(arg));
  if (verb === 'mount' && args.length >= 2 && isUsual) {
    ahead = spawnDaemon({ transport: defaultTransport(), keepsStderr: false });
    // Told to whoever takes it; if nobody does, it does not matter.
    ahead.child.on('error', () => {});
  }
}

/** The one that was started ahead, once. */
export function takeAhead(): DaemonProcess | undefined {
  const taken = ahead;
  ahead = undefined;
  return taken;
}

/** Ends it where nobody took it; nothing of it is left then. */
export async function dropAhead(): Promise<void> {
  const dropped = takeAhead();
  if (dropped === undefined) return;
  const { child } = dropped;
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  child.kill('SIGKILL');
  for (const stream of child.stdio) stream?.destroy();
  await ended;
}
