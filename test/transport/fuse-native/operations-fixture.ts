/**
 * The path operations as fuse-native calls them, over operations of the test's own or a real file system.
 */
import koffi from 'koffi';
import { expect, vi } from 'vitest';
import { Counters } from '../../../src/fs/counters.ts';
import type { FsOps } from '../../../src/fs/ops.ts';
import { Trace } from '../../../src/fuse/trace.ts';
import type { NativeHandler, Operations } from '../../../src/transport/fuse-native/addon.ts';
import { OpenHandles } from '../../../src/transport/fuse-native/open-handles.ts';
import { pathOperations } from '../../../src/transport/fuse-native/path-operations.ts';
import { RequestFlags } from '../../../src/transport/fuse-native/request-flags.ts';
import { Requests } from '../../../src/transport/fuse-native/requests.ts';
import { RequestTimes } from '../../../src/transport/fuse-native/times.ts';
import { CREATE, createMemory, deliver, requestMemory, UTIMENS } from './request-memory.ts';

export function newRequests(ops: FsOps, traced = true) {
  const report = vi.fn<(message: string, error: unknown) => void>();
  const lines: string[] = [];
  const counters = Counters.create(1);
  const requests = new Requests({
    ops,
    counters: new Counters(counters, 0),
    trace: traced ? new Trace((line) => lines.push(line)) : undefined,
    report,
  });
  return { requests, report, lines, counters };
}

type Arguments<Name extends keyof Operations> =
  Parameters<Operations[Name]> extends [...infer Before, unknown] ? Before : never;

export function newOperations(ops: FsOps) {
  const fixture = newRequests(ops);
  const handles = new OpenHandles();
  const times = new RequestTimes();
  const flags = new RequestFlags();
  const operations = pathOperations({ ops, requests: fixture.requests, handles, times, flags });

  /** What an operation answers: its result and what goes with it. It answers once, before it returns. */
  const call = <Name extends keyof Operations>(name: Name, ...values: Arguments<Name>): readonly unknown[] => {
    const done = vi.fn<(...answer: unknown[]) => void>();
    (operations[name] as (...all: readonly unknown[]) => void)(...values, done);
    expect(done, name).toHaveBeenCalledOnce();
    const [result, ...rest] = done.mock.calls[0] ?? [];
    // A whole number of 32 bits to the addon, which knows no -0.
    return [Number(result) | 0, ...rest];
  };

  /** `utimens` by way of the addon's request, as it comes in. */
  const setTimes = (path: string, atimeMs: number, mtimeMs: number): readonly unknown[] => {
    let answer: readonly unknown[] = [];
    const handlers: NativeHandler[] = [];
    handlers[UTIMENS] = (_request, _operation, _path, low, high) => {
      const toldMs = Number(low) + Number(high) * 2 ** 32;
      answer = call('utimens', path, toldMs, toldMs);
    };
    times.attach(handlers);
    deliver(handlers, requestMemory({ atimeMs, mtimeMs }), atimeMs);
    return answer;
  };

  /** `create` by way of the addon's request, as it comes in: the flags are in what its memory points to. */
  const createFile = (path: string, mode: number, openFlags: number): readonly unknown[] => {
    let answer: readonly unknown[] = [];
    const handlers: NativeHandler[] = [];
    handlers[CREATE] = () => {
      answer = call('create', path, mode);
    };
    flags.attach(handlers);
    const info = Int32Array.of(openFlags, 0);
    handlers[CREATE]?.(createMemory(mode, koffi.address(info)), CREATE, path, mode);
    return answer;
  };

  /** Opens the disk; its handle. */
  const open = (flags: number): number => {
    const [result, handle] = call('open', '/disk.raw', flags);
    expect(result).toBe(0);
    return Number(handle);
  };

  return { ...fixture, handles, times, call, setTimes, createFile, open };
}
