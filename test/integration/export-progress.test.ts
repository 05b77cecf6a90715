/** What `cowfs export` tells of its progress: events for programs, a bar on a terminal, nothing in a pipe. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { faultyBase, mountOver } from '../fault/faulty-base.ts';
import { COWFS, cowfs, makeMountpoint, must, poll, run, start } from '../harness.ts';
import {
  expectSame,
  exported,
  FORMAT_NAMES,
  FORMATS,
  MIB,
  onTerminal,
  plainEnv,
  terminalOutput,
} from './export-support.ts';
import { finish, needs, needsRoot, tmpfs } from './machine-support.ts';
import { filled, mountSessions, put, WRITEBACK } from './sessions-support.ts';

/** Between two events, and two drawings of the bar (progress.ts). */
const INTERVAL_MS = 200;

interface Event {
  readonly event: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** Events are one a line, go upwards, and end as they must. */
function eventsOf(stdout: string, last: 'done' | 'failed'): Event[] {
  expect(stdout.endsWith('\n')).toBe(true);
  const events = stdout
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as Event);
  let before = 0;
  for (const event of events) {
    expect(Object.keys(event).sort()).toEqual(['doneBytes', 'event', 'totalBytes']);
    expect(event.doneBytes).toBeGreaterThanOrEqual(before);
    expect(event.doneBytes).toBeLessThanOrEqual(event.totalBytes);
    before = event.doneBytes;
  }
  expect(events.map(({ event }) => event)).toEqual([...events.slice(1).map(() => 'progress'), last]);
  const end = events.at(-1);
  if (last === 'done') expect(end?.doneBytes).toBe(end?.totalBytes);
  return events;
}

test.each(FORMAT_NAMES)('%s: --json', (format) => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 48 * MIB);
  put(disk, MIB, filled(1, 5 * MIB));
  const { status, stdout, stderr } = cowfs(['export', disk, join(directory, 'x'), ...FORMATS[format], '--json']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const events = eventsOf(stdout, 'done');
  expect(events[0]).toMatchObject({ event: 'progress', doneBytes: 0 });
  const total = events.at(-1)?.totalBytes ?? 0;
  expect(total).toBeGreaterThanOrEqual(format === 'backed' ? 5 * MIB : 48 * MIB);
  expect(total).toBeLessThanOrEqual(format === 'backed' ? 6 * MIB : 49 * MIB);
});

test('--json of an empty disk ends with done, too', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, ['--size', '1M'], 1);
  must('fallocate', ['-p', '-o', '0', '-l', String(MIB), disk]);
  for (const format of FORMAT_NAMES) {
    const { stdout } = cowfs(['export', disk, join(directory, format), ...FORMATS[format], '--json']);
    eventsOf(stdout, 'done');
  }
});

test('--json of an export that fails ends with failed, and the line is on standard error', (context) => {
  needsRoot(context);
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 8 * MIB);
  const place = tmpfs(directory, '2M');
  const { status, stdout, stderr } = cowfs(['export', disk, join(place, 'x'), '--json']);
  expect(status).toBe(4);
  eventsOf(stdout, 'failed');
  expect(stderr).toMatch(/^cowfs: [^\n]+ENOSPC[^\n]+\n$/);
});

test('--json of an export whose file cannot be made ends with failed, too', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], MIB);
  const { status, stdout, stderr } = cowfs(['export', disk, join(directory, 'none/x'), '--json']);
  expect(status).toBe(2);
  eventsOf(stdout, 'failed');
  expect(stderr).toMatch(/^cowfs: [^\n]+ENOENT[^\n]+\n$/);
});

test('--json: there are events on the way, in the time that it takes', async (context) => {
  needsRoot(context);
  const faulty = await faultyBase(8 * MIB);
  const { disk } = mountOver(faulty, []);
  faulty.setPlan({ gate: { from: 5 * MIB, to: 8 * MIB } });
  const target = makeMountpoint(faulty.directory, 'target');
  const child = start(COWFS, ['export', disk, join(target, 'x'), '--json']);
  const result = finish(child);
  await faulty.untilGated(1);
  const gatedMs = performance.now();
  await poll('the next event is due', () => performance.now() - gatedMs > INTERVAL_MS);
  faulty.setPlan({});
  const { stdout } = await result;
  const events = eventsOf(stdout, 'done');
  expect(events.length).toBeGreaterThanOrEqual(3);
  expect(events[1]?.doneBytes).toBeGreaterThanOrEqual(4 * MIB);
});

test('--json: a reader that goes away', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 8 * MIB);
  for (const reader of ['true', 'head -n 1']) {
    const path = join(directory, 'x');
    const script = `"$0" "$@" | ${reader}; exit "\${PIPESTATUS[0]}"`;
    const line = ['-c', script, COWFS, 'export', disk, path, '--json', '--force'];
    const { stderr } = run('bash', line);
    // Nobody is there to be told; no stack in any case.
    expect(stderr.split('\n').length, stderr).toBeLessThanOrEqual(2);
    expect(stderr).not.toMatch(/\bat \S+ \(|node:/);
  }
});

test('in a pipe nothing is said', () => {
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 48 * MIB);
  for (const format of FORMAT_NAMES) exported(disk, join(directory, format), format);
});

// biome-ignore lint/suspicious/noControlCharactersInRegex: it is what they begin with
const ESCAPES = /\x1b\[[\d;?]*[A-Za-z]/g;

/** Where a line begins, for the first time or again (CHA). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: of terminals
const REDRAWN = /[\r\n]|\x1b\[1?G/;

/** What is left on the screen: carriage returns begin the line anew, erasures (ED, EL) take what is behind. */
function screenOf(output: string): string[] {
  const lines: string[] = [''];
  let column = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: of terminals
  for (const [token] of output.matchAll(/\x1b\[[\d;?]*[A-Za-z]|[\s\S]/gu)) {
    const line = lines.length - 1;
    const text = lines[line] ?? '';
    if (token === '\r') column = 0;
    else if (token === '\n') lines.push('');
    else if (/^.\[0?[KJ]$/.test(token)) lines[line] = text.slice(0, column);
    else if (/^.\[\d*G$/.test(token)) column = Number(/\d+/.exec(token)?.[0] ?? 1) - 1;
    else if (token === '\x1b[2K') lines[line] = '';
    else if (!token.startsWith('\x1b')) {
      lines[line] = text.padEnd(column).slice(0, column) + token + text.slice(column + 1);
      column += 1;
    }
  }
  return lines;
}

test('on a terminal a bar is drawn, and is gone at the end', (context) => {
  needs(context, 'script', 'stty');
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 8 * MIB);
  for (const format of FORMAT_NAMES) {
    const args = ['export', disk, join(directory, format), ...FORMATS[format]];
    const output = terminalOutput(args, { columns: 100, rows: 24 });
    expect(output).toContain('exporting');
    expect(output).toMatch(/\d+ %/);
    expect(screenOf(output).join('').trim()).toBe('');
    // The cursor is there as before.
    expect(output.lastIndexOf('\x1b[?25h')).toBeGreaterThanOrEqual(output.lastIndexOf('\x1b[?25l'));
  }
});

test('the bar tells the rate and what is left, and the window is not overrun', async (context) => {
  needsRoot(context);
  needs(context, 'script', 'stty');
  const faulty = await faultyBase(8 * MIB);
  const { disk } = mountOver(faulty, []);
  const target = makeMountpoint(faulty.directory, 'target');
  for (const columns of [100, 60]) {
    faulty.setPlan({ gate: { from: 5 * MIB, to: 8 * MIB } });
    const args = ['export', disk, join(target, `x${columns}`), '--format', 'raw'];
    const child = start('script', onTerminal(args, { columns, rows: 24 }), {
      env: { ...process.env, ...plainEnv({ TERM: 'xterm-256color', LANG: 'C.UTF-8' }) },
    });
    const result = finish(child);
    await poll('it stands at the gate', () => run('ls', [join(faulty.directory, 'gate')]).stdout !== '');
    const gatedMs = performance.now();
    await poll('the bar is due', () => performance.now() - gatedMs > 2 * INTERVAL_MS);
    faulty.setPlan({});
    const { status, stdout } = await result;
    expect({ status, stdout }).toMatchObject({ status: 0 });
    const drawn = stdout.split(REDRAWN).map((line) => line.replaceAll(ESCAPES, ''));
    const middle = drawn.findLast((line) => / (?:[5-9]\d|100) %/.test(line)) ?? '';
    expect(middle).toMatch(/\d+ %, [\d.]+ [KMG]?i?B\/s/);
    if (columns === 100) expect(middle).toMatch(/, \S+( \S+)? left/);
    // What does not fit is cut by the terminal (DECAWM), which is as before at the end.
    const isCut = stdout.includes('\x1b[?7l') && stdout.lastIndexOf('\x1b[?7h') > stdout.lastIndexOf('\x1b[?7l');
    if (!isCut) expect(Math.max(...drawn.map((line) => [...line].length))).toBeLessThanOrEqual(columns);
    expect(screenOf(stdout).join('').trim()).toBe('');
    expectSame(join(target, `x${columns}`), disk);
    run('rm', ['-rf', join(faulty.directory, 'gate')]);
    makeMountpoint(faulty.directory, 'gate');
  }
});

test('interrupted on a terminal, it leaves the terminal as it was', async (context) => {
  needsRoot(context);
  needs(context, 'script', 'stty');
  const faulty = await faultyBase(8 * MIB);
  const { disk } = mountOver(faulty, []);
  const target = makeMountpoint(faulty.directory, 'target');
  faulty.setPlan({ gate: { from: 5 * MIB, to: 8 * MIB } });
  const child = start('script', onTerminal(['export', disk, join(target, 'x')], { columns: 100, rows: 24 }), {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...plainEnv({ TERM: 'xterm-256color', LANG: 'C.UTF-8' }) },
  });
  const result = finish(child);
  await faulty.untilGated(1);
  // Control-C, as the terminal's line discipline takes it.
  child.stdin?.write('\x03');
  faulty.setPlan({});
  const { status, stdout } = await result;
  expect(status).not.toBe(0);
  expect(stdout.lastIndexOf('\x1b[?25h')).toBeGreaterThanOrEqual(stdout.lastIndexOf('\x1b[?25l'));
  expect(stdout.lastIndexOf('\x1b[?7h')).toBeGreaterThanOrEqual(stdout.lastIndexOf('\x1b[?7l'));
});

test('on a terminal, too, a file that cannot be made ends it', (context) => {
  needs(context, 'script', 'stty');
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], MIB);
  const args = onTerminal(['export', disk, join(directory, 'none/x')], { columns: 300, rows: 24 });
  const { status, stdout } = run('script', args, {
    env: plainEnv({ TERM: 'xterm-256color', LANG: 'C.UTF-8' }),
    timeoutMs: 20_000,
  });
  expect(status).toBe(2);
  const left = screenOf(stdout).filter((line) => line.trim() !== '');
  expect(left).toHaveLength(1);
  expect(left[0]).toMatch(/^cowfs: .*ENOENT/);
});

test('a failure on a terminal leaves one line', (context) => {
  needsRoot(context);
  needs(context, 'script', 'stty');
  const { directory, disk } = mountSessions(WRITEBACK, undefined, [], 8 * MIB);
  const place = tmpfs(directory, '2M');
  const { status, stdout } = run('script', onTerminal(['export', disk, join(place, 'x')], { columns: 300, rows: 24 }), {
    env: plainEnv({ TERM: 'xterm-256color', LANG: 'C.UTF-8' }),
  });
  expect(status).toBe(4);
  const left = screenOf(stdout).filter((line) => line.trim() !== '');
  expect(left).toHaveLength(1);
  expect(left[0]).toMatch(/^cowfs: .*ENOSPC/);
});
