import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CowfsError } from '../../src/lib/error.ts';
import { createLogger } from '../../src/lib/log.ts';
import { scratch } from '../harness.ts';

function linesOf(file: string): Record<string, unknown>[] {
  return readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

function unexpected(error: Error): void {
  throw error;
}

test('a file gets JSON, a line at once for each message of the level or above', async () => {
  const file = join(scratch(), 'log.json');
  const logger = await createLogger({ level: 'info', file, onError: unexpected });
  logger.debug('too quiet');
  logger.info('first');
  expect(linesOf(file)).toMatchObject([{ msg: 'first', level: 30, pid: process.pid }]);
  logger.error({ detail: 'stack' }, 'second');
  expect(linesOf(file)[1]).toMatchObject({ msg: 'second', detail: 'stack' });
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

test('a file that is there is appended to', async () => {
  const file = join(scratch(), 'log.json');
  writeFileSync(file, '{"msg":"old"}\n');
  const logger = await createLogger({ level: 'trace', file, onError: unexpected });
  logger.trace('new');
  expect(linesOf(file).map(({ msg }) => msg)).toEqual(['old', 'new']);
});

test('a file that cannot be written is named', async () => {
  const file = join(scratch(), 'missing', 'log.json');
  await expect(createLogger({ level: 'info', file, onError: unexpected })).rejects.toThrow(
    new CowfsError('usage', `--log-file ${file}: no such file or directory (ENOENT); give a writable file`),
  );
});

test('a log that runs full ends nobody: least of all whoever just says that the store is full', async () => {
  const errors: string[] = [];
  const onError = ({ message }: Error): number => errors.push(message);
  const logger = await createLogger({ level: 'info', file: '/dev/full', onError });
  expect(() => logger.warn('the store is full')).not.toThrow();
  expect(() => logger.warn('and still is')).not.toThrow();
  expect(errors[0]).toContain('ENOSPC');
});
