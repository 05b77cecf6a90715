/**
 * The guest under QEMU for the tests: how it is started, what it says on its console, and QEMU's monitor.
 */
import type { ChildProcess } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { must, poll, start } from '../harness.ts';

/** Under software emulation a boot takes 5 s on two idle cores, and minutes on busy ones. */
export const BOOT_MS = 600_000;

export const MACHINE = [
  ...['-accel', 'tcg', '-cpu', 'max', '-m', '256', '-nodefaults'],
  ...['-display', 'none', '-serial', 'stdio', '-no-reboot'],
];

/** The guest's disk image, built where it is not in the cache. */
export function guestImage(): string {
  const script = join(import.meta.dirname, 'build-image.sh');
  return must('bash', [script], { timeoutMs: BOOT_MS }).trim().split('\n').at(-1) ?? '';
}

/** What the guest said on its serial console: `GUEST name=value` lines (see guest-init). */
export function markers(console: string): Map<string, string> {
  const found = [...console.matchAll(/^GUEST ([a-z-]+)(?:=(.*?))?\r?$/gm)];
  return new Map(found.map(([, name, value]) => [name ?? '', value ?? '']));
}

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** QEMU's monitor (QMP, docs/interop/qmp-spec.rst): one JSON object a line. */
export class Monitor {
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #answers: ((answer: Readonly<Record<string, unknown>>) => void)[] = [];

  /** Starts QEMU with a monitor, and waits until that answers. */
  static async start(args: readonly string[], socketPath: string): Promise<{ qemu: ChildProcess; monitor: Monitor }> {
    const qemu = start('qemu-system-x86_64', [...MACHINE, '-qmp', `unix:${socketPath},server=on,wait=off`, ...args]);
    let socket: Socket | undefined;
    await poll('QEMU listens', async () => {
      socket = await open(socketPath);
      return socket !== undefined;
    });
    const monitor = new Monitor(socket as Socket);
    await monitor.execute('qmp_capabilities');
    return { qemu, monitor };
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    onTestFinished(() => {
      socket.destroy();
    });
    createInterface(socket).on('line', (line) => {
      const message = JSON.parse(line) as Record<string, unknown>;
      if ('event' in message) this.events.push(message as unknown as QmpEvent);
      else if (!('QMP' in message)) this.#answers.shift()?.(message);
    });
  }

  /** What the command returned. */
  async execute(command: string): Promise<unknown> {
    const answer = new Promise<Readonly<Record<string, unknown>>>((resolve) => this.#answers.push(resolve));
    this.#socket.write(`${JSON.stringify({ execute: command })}\n`);
    const { error, return: value } = await answer;
    if (error !== undefined) throw new Error(`${command}: ${JSON.stringify(error)}`);
    return value;
  }
}

function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    // It may not listen yet; later on, its end is what the test waits for.
    socket.on('error', () => resolve(undefined));
  });
}
