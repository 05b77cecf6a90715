/**
 * The control socket: one JSON request a line, one JSON answer a line. Served by the daemon's main thread, called by
 * the commands. The socket lies in the runtime directory, so only its user can reach it.
 */
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { CowfsError, reasonOf } from '../lib/error.ts';
import type { MountStatus } from './status.ts';

/** `status` asks; `detach` ends the mount although files are open. */
export type ControlCommand = 'status' | 'detach';

type Answer = { readonly ok: true; readonly status: MountStatus } | { readonly ok: false; readonly message: string };

/** Requests are short; whoever sends more without a newline is no cowfs. */
const MAX_REQUEST_BYTES = 4096;

export type ControlHandler = (command: ControlCommand) => MountStatus;

export async function serveControl(path: string, handler: ControlHandler): Promise<Server> {
  const server = createServer((socket) => {
    let pending = '';
    socket.setEncoding('utf8');
    // A client that goes away in the middle is its own affair.
    socket.on('error', () => socket.destroy());
    socket.on('data', (text: string) => {
      pending += text;
      if (pending.length > MAX_REQUEST_BYTES) socket.destroy();
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) socket.write(`${JSON.stringify(answer(line, handler))}\n`);
    });
  });
  // The mountpoint is ours by the registry: a socket that is still here belongs to nobody.
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new CowfsError('failed', `control socket ${path}: ${reasonOf(error)}`, error)),
    );
    server.listen(path, resolve);
  });
  return server;
}

function answer(line: string, handler: ControlHandler): Answer {
  try {
    const request: unknown = JSON.parse(line);
    const command =
      typeof request === 'object' && request !== null && 'command' in request ? request.command : undefined;
    if (command === 'status' || command === 'detach') return { ok: true, status: handler(command) };
    return { ok: false, message: 'unknown command' };
  } catch (error) {
    return { ok: false, message: reasonOf(error) };
  }
}

/**
 * Asks a daemon.
 *
 * @throws CowfsError of kind `failed` when it does not answer in time
 */
export function askDaemon(socketPath: string, command: ControlCommand, timeoutMs = 5000): Promise<MountStatus> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(socketPath);
    const fail = (reason: string): void => {
      socket.destroy();
      reject(new CowfsError('failed', `the daemon at ${socketPath} did not answer: ${reason}`));
    };
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(timeoutMs, () => fail(`nothing in ${timeoutMs} ms`));
    socket.on('error', (error) => fail(reasonOf(error)));
    socket.on('close', () => fail('it closed the connection'));
    socket.on('connect', () => socket.write(`${JSON.stringify({ command })}\n`));
    socket.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end < 0) return;
      socket.destroy();
      // The daemon is this program, of this user; its answer is what `status.ts` says.
      const parsed = JSON.parse(text.slice(0, end)) as Answer;
      if (parsed.ok) resolve(parsed.status);
      else reject(new CowfsError('failed', `the daemon refused ${command}: ${parsed.message}`));
    });
  });
}
