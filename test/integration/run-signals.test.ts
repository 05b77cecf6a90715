/** `cowfs run` and signals: passed on to the command, and whatever ends either of them, the disk is discarded. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runtimeDirectory } from '../../src/daemon/runtime-directory.ts';
import { COWFS, exitOf, makeBase, must, mustCowfs, poll, run, scratch, start } from '../harness.ts';
import { needs, said } from './machine-support.ts';
import { entriesNaming, expectNothingLeft, isAlive, processesNaming } from './nothing-left-support.ts';

/** Starts a script on a disk; it has to say its pid and the disk first. */
async function startRun(
  script: string,
  options: readonly string[] = [],
): Promise<{ child: ChildProcess; pid: number; disk: string; base: string }> {
  const base = makeBase(scratch(), 100_001);
  const child = start(COWFS, ['run', base, ...options, '--', 'sh', '-c', script, '{}']);
  const [pid = '', disk = ''] = (await said(child, '\n')).trim().split(' ');
  onTestFinished(() => {
    if (isAlive(Number(pid))) process.kill(Number(pid), 'SIGKILL');
  });
  return { child, pid: Number(pid), disk, base };
}

async function expectGone(disk: string): Promise<void> {
  await expectNothingLeft(dirname(disk));
  expect(existsSync(dirname(disk))).toBe(false);
}

/** Says its pid and disk, then waits for a signal and ends with 40 and its number in the table. */
const TRAPS = `
  trap 'exit 41' TERM; trap 'exit 42' INT; trap 'exit 43' USR1; trap 'exit 44' USR2; trap 'exit 45' HUP; trap 'exit 46' QUIT
  echo $$ "$0"
  while :; do sleep 0.02; done`;

test.each([
  ['SIGTERM', 41],
  ['SIGINT', 42],
  ['SIGUSR1', 43],
  ['SIGUSR2', 44],
  ['SIGHUP', 45],
  ['SIGQUIT', 46],
] as const)(
  '%s to run goes to the command, whose exit code counts',
  async (signal, code) => {
    const { child, disk } = await startRun(TRAPS);
    child.kill(signal);
    expect(await exitOf(child)).toBe(code);
    await expectGone(disk);
  },
  20_000,
);

test('SIGTERM to run ends a command that does not care for it', async () => {
  const { child, disk, pid } = await startRun('echo $$ "$0"; exec sleep 600 <"$0"');
  child.kill('SIGTERM');
  expect(await exitOf(child)).toBe(143);
  expect(isAlive(pid)).toBe(false);
  await expectGone(disk);
});

test('a command that is killed while it writes is discarded', async () => {
  const { child, disk, pid } = await startRun(
    'echo $$ "$0"; exec dd if=/dev/zero of="$0" bs=4k conv=notrunc status=none',
  );
  process.kill(pid, 'SIGKILL');
  expect(await exitOf(child)).toBe(137);
  await expectGone(disk);
});

test.each(['temporary', 'kept'])(
  'a %s disk that is unmounted under the command ends run with 125, and says why',
  async (which) => {
    const options = which === 'kept' ? ['--overlay', join(scratch(), 'vm.cow')] : [];
    const { child, disk, pid } = await startRun('echo $$ "$0"; exec sleep 600', options);
    let errors = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    must(COWFS, ['unmount', dirname(disk)]);
    expect(await exitOf(child)).toBe(125);
    await poll('it has said so', () => errors !== '');
    expect(errors).toMatch(/^cowfs: [^\n]*unmounted[^\n]*\n$/);
    process.kill(pid, 'SIGKILL');
    await expectGone(disk);
  },
);

test('a signal at any moment of the start leaves nothing behind', async () => {
  const directory = scratch();
  const base = makeBase(directory, 5000);
  const privateDisks = (): string[] => {
    const parent = join(runtimeDirectory(), 'run');
    return existsSync(parent) ? readdirSync(parent) : [];
  };
  const before = new Set(privateDisks());
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const) {
    for (let delayMs = 60; delayMs <= 260; delayMs += 40) {
      // Ends with its input when run is killed and leaves it behind.
      const child = start(COWFS, ['run', base, '--', 'cat'], { stdio: 'pipe' });
      await new Promise((wake) => setTimeout(wake, delayMs));
      child.kill(signal);
      await exitOf(child);
      child.stdin?.destroy();
      const what = `${signal} after ${delayMs} ms`;
      // Between the mount and its watcher nobody sees the daemon die; then the next command cleans up.
      if (signal === 'SIGKILL') mustCowfs(['list']);
      await poll(
        `${what}: nothing left`,
        () => entriesNaming(base).length === 0 && processesNaming(base).length === 0,
        3000,
      );
      await poll(`${what}: no private place left`, () => privateDisks().every((name) => before.has(name)), 3000);
    }
  }
});

test('Ctrl-C on a terminal reaches the command once', (context) => {
  needs(context, 'script');
  const directory = scratch();
  const base = makeBase(directory, 5000);
  // Counts interrupts for a while after the first, so that a second one would show. Each side tells the other by a file.
  const wait = (condition: string): string =>
    `i=0; while ${condition} && [ $i -lt 1000 ]; do sleep 0.02; i=$((i+1)); done`;
  const counter = [
    `n=0; trap 'n=$((n+1))' INT; echo ready; : >"$PLACE/ready"`,
    wait('[ $n = 0 ]'),
    'i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done',
    'echo "interrupts: $n"; : >"$PLACE/done"',
  ].join('; ');
  const inner = `'${COWFS}' run '${base}' -- sh -c "$COUNTER"`;
  const keys = `(${wait('[ ! -e "$PLACE/ready" ]')}; printf "\\003"; ${wait('[ ! -e "$PLACE/done" ]')})`;
  const { stdout } = run('sh', ['-c', `${keys} | script -qec "$INNER" /dev/null`], {
    env: { INNER: inner, COUNTER: counter, PLACE: directory },
  });
  expect(stdout).toContain('ready');
  expect(stdout).toContain('interrupts: 1');
});
