import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { totals } from '../../../src/fs/counters.ts';
import { fakeOps } from '../../fuse/fake-ops.ts';
import { newRequests } from './operations-fixture.ts';

const { EIO, ENOENT, ENOSPC } = constants.errno;

test('the errno of the action is the answer, and nobody is told', () => {
  const { requests, report } = newRequests(fakeOps());
  expect(requests.serve('GETATTR', '/', '', () => 0)).toBe(0);
  expect(requests.serve('GETATTR', 'x', '', () => ENOENT)).toBe(ENOENT);
  expect(report).not.toHaveBeenCalled();
});

test.each<[string, unknown, number]>([
  ['a bug', new TypeError('x is not a function'), EIO],
  ['a system error', Object.assign(new Error('no space left on device'), { errno: -ENOSPC }), ENOSPC],
  ['no Error at all', 'text', EIO],
])('%s is its errno and one report', (_, thrown, errno) => {
  const { requests, report, lines } = newRequests(fakeOps());
  const answer = requests.serve('WRITE', 'disk.raw', '', () => {
    throw thrown;
  });
  expect(answer).toBe(errno);
  expect(report).toHaveBeenCalledExactlyOnceWith('WRITE failed', thrown);
  expect(lines[1]).toMatch(errno === EIO ? /^tx 1 EIO / : /^tx 1 ENOSPC /);
});

test('the next request is served after an exception', () => {
  const { requests, report } = newRequests(fakeOps());
  requests.serve('READ', 'disk.raw', '', () => {
    throw new Error('once');
  });
  expect(requests.serve('READ', 'disk.raw', '', () => 0)).toBe(0);
  expect(report).toHaveBeenCalledOnce();
});

test('reads, writes and others are counted apart, with bytes, and failed transfers as errors', () => {
  const ops = fakeOps();
  const { requests, counters } = newRequests(ops);
  const transfer = (name: string, bytes: number, errno = 0): number =>
    requests.serve(name, 'disk.raw', '', () => {
      ops.transferred = bytes;
      return errno;
    });
  transfer('READ', 4096);
  transfer('READ', 100);
  transfer('WRITE', 131_072);
  // What a failed one left in `transferred` is not counted, nor what others find there.
  transfer('READ', 777, EIO);
  transfer('WRITE', 888, ENOSPC);
  transfer('GETATTR', 999);
  transfer('OPEN', 0, ENOENT);
  expect(totals(counters)).toMatchObject({
    reads: 3,
    readBytes: 4196,
    writes: 2,
    writeBytes: 131_072,
    otherRequests: 2,
    ioErrors: 2,
  });
});

test('time spent is counted', () => {
  const { requests, counters } = newRequests(fakeOps());
  requests.serve('READ', 'disk.raw', '', () => {
    const startMs = performance.now();
    while (performance.now() - startMs < 3);
    return 0;
  });
  expect(totals(counters).readLatencyMs).toBeGreaterThanOrEqual(3);
});

test('trace lines read like the kernel transport’s, numbered from 1', () => {
  const ops = fakeOps();
  const { requests, lines } = newRequests(ops);
  expect(requests.traced).toBe(true);
  requests.serve('READ', 'disk.raw', ' off=4096 len=131072', () => {
    ops.transferred = 131_072;
    return 0;
  });
  requests.serve('GETATTR', '/', '', () => ENOENT);
  expect(lines.map((line) => line.replace(/\d+\.\d ms$/, 'TIME'))).toEqual([
    'rx 1 READ disk.raw off=4096 len=131072',
    'tx 1 OK 131072 B TIME',
    'rx 2 GETATTR /',
    'tx 2 ENOENT TIME',
  ]);
});

test('a request is traced before it is served, so that one that never ends shows', () => {
  const { requests, lines } = newRequests(fakeOps());
  requests.serve('WRITE', 'disk.raw', '', () => {
    expect(lines).toEqual(['rx 1 WRITE disk.raw']);
    return 0;
  });
});

test('without a trace nothing is printed and details are not wanted', () => {
  const { requests, lines } = newRequests(fakeOps(), false);
  expect(requests.traced).toBe(false);
  expect(requests.serve('READ', 'disk.raw', '', () => 0)).toBe(0);
  expect(lines).toEqual([]);
});
