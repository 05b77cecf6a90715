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

/** Whoever asks; `ended` is called once when he has gone. */
export interface Client {
  ended: () => void;
}

export type ControlHandler = (request: ControlRequest, client: Client) => Promise<unknown>;

export async function serveControl(path: string, handler: ControlHandler): Promise<Server> {
  const server = createServer((socket) => {
    let pending = '';
    const client: Client = { ended: () => {} };
    socket.setEncoding('utf8');
    socket.on('close', () => client.ended());
    // A client that goes away in the middle is its own affair.
    socket.on('error', () => socket.destroy());
    socket.on('data', (text: string) => {
      pending += text;
      if (pending.length > MAX_REQUEST_BYTES) socket.destroy();
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) {
        void answer(line, handler, client).then((reply) => socket.write(`${JSON.stringify(reply)}\n`));
      }
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

async function answer(line: string, handler: ControlHandler, client: Client): Promise<Answer> {
  try {
    return { ok: true, result: await handler(parseControlRequest(line), client) };
  } catch (error) {
    return { ok: false, kind: error instanceof CowfsError ? error.kind : 'failed', message: reasonOf(error) };
  }
}

/** A conversation with a daemon; what it lends (`holds.ts`) it lends until this ends. */
export class DaemonConnection {
  readonly #socket: Socket;
  readonly #path: string;
  #text = '';
  #heard: ((line: string) => void) | undefined;
  #failed: ((reason: string) => void) | undefined;

  constructor(socketPath: string) {
    this.#path = socketPath;
    this.#socket = connect(socketPath);
    this.#socket.setEncoding('utf8');
    this.#socket.on('error', (error) => this.#failed?.(reasonOf(error)));
    this.#socket.on('close', () => this.#failed?.('it closed the connection'));
    this.#socket.on('data', (chunk: string) => {
      this.#text += chunk;
      const end = this.#text.indexOf('\n');
      if (end < 0) return;
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      this.#heard?.(line);
    });
  }

  /**
   * Asks, one question at a time.
   *
   * @throws CowfsError of kind `failed` when it does not answer in time, of its own kind when it refuses
   */
  async ask<R extends ControlRequest>(request: R, timeoutMs = 5000): Promise<ControlResults[R['command']]> {
    let timer: NodeJS.Timeout | undefined;
    try {
      const line = await new Promise<string>((resolve, reject) => {
        this.#failed = (reason) =>
          reject(new CowfsError('failed', `the daemon at ${this.#path} did not answer: ${reason}`));
        this.#heard = resolve;
        timer = setTimeout(() => this.#failed?.(`nothing in ${timeoutMs} ms`), timeoutMs);
        if (this.#socket.destroyed) this.#failed('it closed the connection');
        this.#socket.write(`${JSON.stringify(request)}\n`);
      });
      // The daemon is this program, of this user; its answer is what `control-requests.ts` says.
      const parsed = JSON.parse(line) as Answer;
      if (parsed.ok) return parsed.result as ControlResults[R['command']];
      throw new CowfsError(isErrorKind(parsed.kind) ? parsed.kind : 'failed', parsed.message);
    } finally {
      clearTimeout(timer);
      this.#failed = undefined;
      this.#heard = undefined;
    }
  }

  /** Whether there is nobody to answer any more. */
  get hasEnded(): boolean {
    return this.#socket.destroyed;
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** Asks a daemon one thing; errors as `DaemonConnection.ask`. */
export async function askDaemon<R extends ControlRequest>(
  socketPath: string,
  request: R,
  timeoutMs?: number,
): Promise<ControlResults[R['command']]> {
  const connection = new DaemonConnection(socketPath);
  try {
    return await connection.ask(request, timeoutMs);
  } finally {
    connection.close();
  }
}
