/**
 * A child process that runs executor.mjs, or a program of the same manners. Answers come in order, one for each batch; a
 * child that does not answer or dies (SIGBUS, say) is a finding, so it fails the batch.
 */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { start } from '../harness.ts';
import type { Operation, Outcome } from './operation.ts';

/** A batch takes milliseconds; a request that the daemon never answers blocks for ever. */
const ANSWER_TIMEOUT_MS = 60_000;

export class Executor<Op = Operation, Result = Outcome> {
  readonly #child: ChildProcess;
  readonly #waiting: { done(results: Result[]): void; fail(error: Error): void }[] = [];
  #pending = '';
  #stderr = '';

  /** Ends with the test at the latest. */
  constructor(program = 'executor.mjs') {
    this.#child = start(process.execPath, [join(import.meta.dirname, program)], { stdio: 'pipe' });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#take(text));
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.#child.on('close', (code, signal) => this.#failAll(`ended with ${signal ?? code}: ${this.#stderr}`));
    // Said by `close`, with the reason.
    this.#child.stdin?.on('error', () => undefined);
  }

  /** Lets go of the file of before and works on another one. */
  async use(path: string, plain = false, more: object = {}): Promise<void> {
    await this.#ask({ file: { path, plain, ...more } });
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }

  run(ops: readonly Op[]): Promise<Result[]> {
    return this.#ask({ ops });
  }

  #ask(message: object): Promise<Result[]> {
    return new Promise((done, fail) => {
      const timer = setTimeout(() => {
        this.#failAll(`no answer within ${ANSWER_TIMEOUT_MS} ms`);
        this.#child.kill('SIGKILL');
      }, ANSWER_TIMEOUT_MS);
      this.#waiting.push({
        done: (results) => {
          clearTimeout(timer);
          done(results);
        },
        fail: (error) => {
          clearTimeout(timer);
          fail(error);
        },
      });
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) this.#failAll('has ended before');
      else this.#child.stdin?.write(`${JSON.stringify(message)}\n`);
    });
  }

  #take(text: string): void {
    this.#pending += text;
    for (let end = this.#pending.indexOf('\n'); end >= 0; end = this.#pending.indexOf('\n')) {
      const results = JSON.parse(this.#pending.slice(0, end)) as Result[];
      this.#pending = this.#pending.slice(end + 1);
      this.#waiting.shift()?.done(results);
    }
  }

  #failAll(message: string): void {
    for (const { fail } of this.#waiting.splice(0)) fail(new Error(`executor ${message}`));
  }
}
