/**
 * The control socket: one JSON request a line, one JSON answer a line. Served by the daemon's main thread, called by
 * the commands. The socket lies in the runtime directory, so only its user can reach it.
 */
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { CowfsError, isErrorKind, reasonOf } from '../lib/error.ts';
import { type ControlRequest, type ControlResults, parseControlRequest } from './control-requests.ts';

type Answer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly kind: string; readonly message: string };

/** Requests are short; whoever sends more without a newline is no cowfs. */
const MAX_REQUEST_BYTES = 16_384;

export type ControlHandler = (request: ControlRequest) => Promise<unknown>;

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
      for (const line of lines) void answer(line, handler).then((reply) => socket.write(`${JSON.stringify(reply)}\n`));
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

async function answer(line: string, handler: ControlHandler): Promise<Answer> {
  try {
    return { ok: true, result: await handler(parseControlRequest(line)) };
  } catch (error) {
    return { ok: false, kind: error instanceof CowfsError ? error.kind : 'failed', message: reasonOf(error) };
  }
}

/**
 * Asks a daemon.
 *
 * @throws CowfsError of kind `failed` when it does not answer in time, of its own kind when it refuses
 */
export function askDaemon<R extends ControlRequest>(
  socketPath: string,
  request: R,
  timeoutMs = 5000,
): Promise<ControlResults[R['command']]> {
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
    socket.on('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end < 0) return;
      socket.destroy();
      // The daemon is this program, of this user; its answer is what `control-requests.ts` says.
      const parsed = JSON.parse(text.slice(0, end)) as Answer;
      if (parsed.ok) resolve(parsed.result as ControlResults[R['command']]);
      else reject(new CowfsError(isErrorKind(parsed.kind) ? parsed.kind : 'failed', parsed.message));
    });
  });
}
