import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { commandOf, startTimeOf, usersBelow, usersOfFile } from '../../src/sys/processes.ts';
import { scratch } from '../harness.ts';

/** A process that holds the file open and stands in the directory. */
async function holder(file: string, directory: string): Promise<number> {
  const child = spawn('sh', ['-c', 'exec 3<"$0"; echo ready; read line', file], {
    cwd: directory,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await once(child.stdout, 'data');
  return child.pid as number;
}

test('who holds a file, or anything below a directory, is found by number and name', async () => {
  const root = realpathSync(scratch());
  const directory = join(root, 'in here');
  const beside = join(root, 'in here too');
  mkdirSync(directory);
  mkdirSync(beside);
  const file = join(directory, 'file');
  writeFileSync(file, 'x');
  const pid = await holder(file, beside);
  expect(usersOfFile(file)).toEqual([{ pid, command: 'sh' }]);
  expect(usersBelow(directory)).toEqual([{ pid, command: 'sh' }]);
  expect(usersBelow(beside)).toEqual([{ pid, command: 'sh' }]);
  // A name that merely begins the same is another one.
  expect(usersBelow(join(root, 'in'))).toEqual([]);
  expect(usersOfFile(join(directory, 'fil'))).toEqual([]);
});

test('when a process began, and what it is', async () => {
  const uptimeTicks = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 100;
  const started = startTimeOf(process.pid);
  expect(started).toBeGreaterThan(0);
  expect(started).toBeLessThanOrEqual(uptimeTicks + 100);
  expect(commandOf(process.pid)).not.toBe('?');
  // Numbers beyond what Linux gives out.
  expect(startTimeOf(2 ** 22 + 1)).toBe(undefined);
  expect(commandOf(2 ** 22 + 1)).toBe('?');
});
