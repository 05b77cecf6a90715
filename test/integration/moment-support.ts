/**
 * A writer whose order shows whether a copy of its disk is of one moment (export-writer.mjs), and the look at such a copy.
 */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'vitest';
import { exitOf, poll, start } from '../harness.ts';
import { BLOCK, MIB } from './sessions-support.ts';

export const SLOTS = 40;
export const APART = MIB;
export const DISK_BYTES = (2 + SLOTS) * APART;

/** The number that a block holds all over. */
export function numberAt(content: Buffer, offset: number): number {
  const block = content.subarray(offset, offset + BLOCK);
  const number = block.readUInt32LE(0);
  const torn = Array.from({ length: BLOCK / 4 }, (_, index) => block.readUInt32LE(index * 4)).find(
    (at) => at !== number,
  );
  expect({ offset, torn }).toEqual({ offset, torn: undefined });
  return number;
}

/** Checks the pattern of export-writer.mjs; the number that it had come to. */
export function expectOneMoment(content: Buffer): number {
  const [a, b] = [numberAt(content, 0), numberAt(content, APART)];
  expect([a, a - 1]).toContain(b);
  for (let slot = 0; slot < SLOTS; slot++) {
    const number = numberAt(content, (2 + slot) * APART);
    const last = a - ((a - slot + SLOTS) % SLOTS);
    // The next number is in its slot before it is anywhere else, and it is not begun before B has the last.
    const isNext = a === b && (a + 1) % SLOTS === slot && number === a + 1;
    if (!isNext) expect({ slot, a, number }).toEqual({ slot, a, number: Math.max(0, last) });
  }
  return a;
}

export class Writer {
  readonly #child: ChildProcess;
  #text = '';

  constructor(disk: string) {
    const program = join(import.meta.dirname, 'export-writer.mjs');
    this.#child = start(process.execPath, [program, disk, String(SLOTS), String(APART)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text;
    });
  }

  /** The last number that it told of. */
  get number(): number {
    return Number([...this.#text.matchAll(/(?:number|last) (\d+)/g)].at(-1)?.[1] ?? 0);
  }

  async goesOn(): Promise<void> {
    const before = this.number;
    await poll('the writer goes on', () => this.number > before, 60_000);
  }

  async stop(): Promise<number> {
    this.#child.stdin?.write('stop\n');
    expect(await exitOf(this.#child)).toBe(0);
    await poll('it has said its last', () => this.#text.includes('last'));
    return this.number;
  }
}
