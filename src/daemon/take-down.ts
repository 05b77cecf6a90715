/**
 * Steps to undo, run once, last first; a step that fails is told at the end and does not keep the others from running.
 */
import { CowfsError, reasonOf } from '../lib/error.ts';

export class TakeDown {
  readonly #steps: (() => unknown)[] = [];

  add(step: () => unknown): void {
    this.#steps.push(step);
  }

  /** @throws CowfsError of kind `failed` with the reasons of all steps that failed */
  async run(): Promise<void> {
    const errors: unknown[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new CowfsError('failed', `cleaning up: ${errors.map(reasonOf).join('; ')}`, errors[0]);
  }
}
