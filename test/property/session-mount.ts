/**
 * A mount in which several processes do steps, and a directory of plain files in which the oracle does the same: every
 * answer compared. The commands are given by the test itself, to the daemon or through the command line.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { askDaemon } from '../../src/daemon/control.ts';
import type { ControlRequest } from '../../src/daemon/control-requests.ts';
import { findEntry } from '../../src/daemon/registry.ts';
import type { MountStatus } from '../../src/daemon/status.ts';
import { CowfsError } from '../../src/lib/error.ts';
import { COWFS, comesAndGoes, makeMountpoint, mountDisk, mustCowfs, poll } from '../harness.ts';
import { Executor } from './executor.ts';
import { COMMANDS, type Step, type StepOutcome } from './session-step.ts';

type StepExecutor = Executor<Step, StepOutcome>;

export interface SessionFixture {
  /** Scratch directory. */
  readonly directory: string;
  /** Where the store is, if not there. */
  readonly store?: string | undefined;
  readonly base: string;
  readonly diskBytes: number;
  /** For `cowfs mount`. */
  readonly options: readonly string[];
  readonly processes: number;
  /** Whether what is removed while it is open stays in its directory, under another name, as libfuse has it. */
  readonly hidesRemoved: boolean;
}

/** The first answer that was not the plain files'. */
export interface SessionDifference {
  /** Of the step in the list. */
  readonly index: number;
  readonly message: string;
}

/** close(2) reaches the daemon in its own time. */
const CLOSED_MS = 10_000;
const REFUSALS: Readonly<Record<string, string>> = { 2: 'usage', 3: 'refused' };

export class SessionMount {
  readonly #fixture: SessionFixture;
  readonly #mountpoint: string;
  readonly #socket: string;
  readonly #pid: number;
  readonly #plain: string;
  readonly #processes: readonly StepExecutor[];
  readonly #oracle: StepExecutor = new Executor('session-executor.mjs');
  readonly #baseHash: string;
  /** What the daemon has open of the fixture when there are no disks, and how many descriptors it has at most. */
  #files: readonly string[] | undefined;
  #most = Number.POSITIVE_INFINITY;
  #settled = 0;

  /** An empty mount for as long as `use` takes. */
  static async with<T>(fixture: SessionFixture, use: (mount: SessionMount) => Promise<T>): Promise<T> {
    const mount = new SessionMount(fixture);
    try {
      await mount.#begin();
      return await use(mount);
    } finally {
      await mount.#end();
    }
  }

  private constructor(fixture: SessionFixture) {
    this.#fixture = fixture;
    const { directory, base, options, processes } = fixture;
    this.#processes = Array.from({ length: processes }, () => new Executor('session-executor.mjs'));
    this.#plain = join(directory, 'plain');
    mkdirSync(this.#plain);
    const store = fixture.store ?? makeMountpoint(directory, 'store');
    this.#mountpoint = makeMountpoint(directory);
    mountDisk(base, this.#mountpoint, ['--empty', '--store', store, ...options]);
    const { socket, pid } = findEntry(this.#mountpoint) as NonNullable<ReturnType<typeof findEntry>>;
    this.#socket = socket;
    this.#pid = pid;
    this.#baseHash = hashOf(base);
  }

  async #begin(): Promise<void> {
    const { base, diskBytes } = this.#fixture;
    await Promise.all([
      ...this.#processes.map((process) => process.use(this.#mountpoint)),
      this.#oracle.use(this.#plain, true, { base, diskBytes }),
    ]);
    // With nothing in it yet: what an empty mount has open.
    await this.settle(false);
  }

  async #end(): Promise<void> {
    for (const executor of [...this.#processes, this.#oracle]) executor.stop();
    mustCowfs(['unmount', '--force', this.#mountpoint]);
    rmSync(this.#plain, { recursive: true });
  }

  status(): Promise<MountStatus> {
    return askDaemon(this.#socket, { command: 'status' });
  }

  /** Does the steps in this order; the oracle has done them before. */
  async run(steps: readonly Step[]): Promise<SessionDifference | undefined> {
    const difference = await this.follow(steps, await this.expect(steps));
    return difference;
  }

  /** What the oracle says of the steps, in this order. */
  expect(steps: readonly Step[]): Promise<StepOutcome[]> {
    return this.#oracle.run(steps);
  }

  /** Does the steps in this order on the mount. */
  async follow(steps: readonly Step[], expected: readonly StepOutcome[]): Promise<SessionDifference | undefined> {
    for (let index = 0; index < steps.length; ) {
      const batch = leadingRun(steps.slice(index));
      let outcomes: readonly StepOutcome[];
      try {
        outcomes = await this.#perform(batch, expected[index] as StepOutcome);
      } catch (error) {
        return { index, message: String(error) };
      }
      for (const ours of outcomes) {
        const theirs = normalise(expected[index]);
        if (!isDeepStrictEqual(normalise(ours), theirs)) {
          return {
            index,
            message: `${JSON.stringify(ours)} where plain files give ${JSON.stringify(theirs)} to ${JSON.stringify(steps[index])}`,
          };
        }
        index++;
      }
    }
    return undefined;
  }

  /**
   * Removes all, and waits until the daemon has given back what it took.
   *
   * @param unlinkFirst whether all is open while it is removed
   */
  async settle(unlinkFirst: boolean): Promise<void> {
    const close: Step = { op: 'closeAll', p: -1, name: '' };
    const remove: Step = { op: 'removeAll', p: 0, name: '' };
    const order = unlinkFirst && !this.#fixture.hidesRemoved ? [remove, close] : [close, remove];
    await this.#oracle.run(order);
    for (const step of order) {
      const [outcome] = await this.#everyone(step);
      if (outcome?.errno !== undefined) throw new Error(`${step.op}: ${outcome.errno}`);
    }
    let left: unknown;
    await poll('all space and descriptors are back', async () => {
      const { disks, store } = await this.status();
      const descriptors = this.#descriptors();
      const files = descriptors.filter((target) => target.startsWith(this.#fixture.directory)).sort();
      left = { disks, occupiedBytes: store.occupiedBytes, files, descriptors: descriptors.length, before: this.#most };
      if (disks.length > 0 || store.occupiedBytes > 0 || descriptors.length > this.#most) return false;
      this.#files ??= files;
      return isDeepStrictEqual(files, this.#files);
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}: ${JSON.stringify(left)}`);
    });
    this.#settled++;
    // Not the first time: the daemon may have been at its start.
    if (this.#settled === 2) this.#most = this.#descriptors().length;
    if (hashOf(this.#fixture.base) !== this.#baseHash) throw new Error('the base has changed');
  }

  async #perform(batch: readonly Step[], expected: StepOutcome): Promise<readonly StepOutcome[]> {
    const step = batch[0] as Step;
    if (COMMANDS.includes(step.op)) return [await this.#command(step, expected)];
    return step.p < 0 ? this.#everyone(step) : this.#process(step).run(batch);
  }

  /** The same step by each process in turn; the first one's answer. */
  async #everyone(step: Step): Promise<readonly StepOutcome[]> {
    const outcomes: StepOutcome[] = [];
    for (const [p, process] of this.#processes.entries()) outcomes.push(...(await process.run([{ ...step, p }])));
    return outcomes.slice(0, 1);
  }

  /** As the user gives it: the commands that want the disk closed are given again while the kernel is still at it. */
  async #command(step: Step, { refusal }: StepOutcome): Promise<StepOutcome> {
    for (const deadline = performance.now() + CLOSED_MS; ; ) {
      const outcome = await (step.cli === true ? this.#throughCommandLine(step) : this.#throughSocket(step));
      const isEarly = outcome.refusal === 'refused' && refusal !== 'refused' && performance.now() < deadline;
      if (!isEarly || (step.op !== 'rollback' && step.op !== 'reset')) return outcome;
    }
  }

  async #throughSocket(step: Step): Promise<StepOutcome> {
    const { op, name: disk, to = '', snap: name = '', force = false } = step;
    try {
      switch (op) {
        case 'fork':
          await this.#flush(step);
          await this.#ask({ command: 'fork', disk, to });
          return {};
        case 'snapshot':
          await this.#flush(step);
          await this.#ask({ command: 'snapshot', disk, name });
          return {};
        case 'deleteSnapshot':
          await this.#ask({ command: 'delete-snapshot', disk, name });
          return {};
        case 'reset':
          if (force) await this.#flush(step);
          return await this.#replace({ command: 'reset', disk, force });
        case 'rollback':
          return await this.#replace({ command: 'rollback', disk, name });
        default: {
          const found = (await this.status()).disks.find((each) => each.name === disk && !each.removed);
          return found === undefined
            ? { refusal: 'usage' }
            : { names: found.snapshots.map((snapshot) => snapshot.name).sort() };
        }
      }
    } catch (error) {
      if (error instanceof CowfsError && error.kind !== 'failed') return { refusal: error.kind };
      throw error;
    }
  }

  #ask<R extends ControlRequest>(request: R) {
    return askDaemon(this.#socket, request, 30_000);
  }

  /** The kernel hands over what it caches, from outside the daemon. */
  async #flush({ p, name }: Step): Promise<void> {
    await this.#process({ p }).run([{ op: 'flush', p, name }]);
  }

  async #replace(request: Extract<ControlRequest, { command: 'reset' | 'rollback' }>): Promise<StepOutcome> {
    await this.#ask(request);
    return {};
  }

  #throughCommandLine({ op, name, to = '', snap = '', force }: Step): Promise<StepOutcome> {
    const disk = join(this.#mountpoint, name);
    const lines: Readonly<Record<string, readonly string[]>> = {
      fork: ['fork', disk, join(this.#mountpoint, to)],
      snapshot: ['snapshot', disk, snap],
      deleteSnapshot: ['snapshot', disk, snap, '--delete'],
      rollback: ['rollback', disk, snap],
      reset: ['reset', disk, ...(force === true ? ['--force'] : [])],
    };
    return new Promise((done, fail) => {
      execFile(COWFS, [...(lines[op] ?? [])], { timeout: 60_000 }, (error, _stdout, stderr) => {
        const refusal = REFUSALS[String(error?.code)];
        if (error === null) done({});
        else if (refusal !== undefined) done({ refusal });
        else fail(new Error(`${lines[op]?.join(' ')}: ${error.code ?? error.signal}: ${stderr}`));
      });
    });
  }

  #process({ p }: Pick<Step, 'p'>): StepExecutor {
    return this.#processes[p] as StepExecutor;
  }

  /** What the daemon has open, without what comes and goes. */
  #descriptors(): string[] {
    const directory = `/proc/${this.#pid}/fd`;
    return readdirSync(directory)
      .map((fd) => {
        try {
          return readlinkSync(join(directory, fd));
        } catch {
          return 'socket: that has gone meanwhile';
        }
      })
      .filter((target) => !comesAndGoes(target));
  }
}

/** Answers without what JSON has left out. */
function normalise(outcome: StepOutcome | undefined): StepOutcome {
  return JSON.parse(JSON.stringify(outcome ?? {})) as StepOutcome;
}

/** Steps from the start on that one process does without the daemon being asked. */
function leadingRun(steps: readonly Step[]): readonly Step[] {
  const [first] = steps;
  if (first === undefined || first.p < 0 || COMMANDS.includes(first.op)) return steps.slice(0, 1);
  const end = steps.findIndex(({ op, p }) => p !== first.p || COMMANDS.includes(op));
  return end < 0 ? steps : steps.slice(0, end);
}

function hashOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
