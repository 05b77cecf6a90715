import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ControlRequest, parseControlRequest } from '../../src/daemon/control-requests.ts';
import { CowfsError } from '../../src/lib/error.ts';

const REQUESTS: readonly ControlRequest[] = [
  { command: 'status' },
  { command: 'detach' },
  { command: 'reset', disk: 'disk.raw', force: false },
  { command: 'reset', disk: 'job/a b "größer"\n.raw', force: true },
  { command: 'rollback', disk: 'disk.raw', name: 'clean' },
  { command: 'fork', disk: 'disk.raw', to: 'job/b.raw' },
  { command: 'snapshot', disk: 'disk.raw', name: 'clean' },
  { command: 'delete-snapshot', disk: 'disk.raw', name: '' },
];

function refusalOf(line: string): string {
  try {
    return `gave ${JSON.stringify(parseControlRequest(line))}`;
  } catch (error) {
    if (error instanceof CowfsError) return `${error.kind}: ${error.message}`;
    return error instanceof SyntaxError ? 'no JSON' : `threw ${String(error)}`;
  }
}

test.each(REQUESTS)('%j is what was sent', (request) => {
  expect(parseControlRequest(JSON.stringify(request))).toEqual(request);
});

describe('a field', () => {
  const fields = REQUESTS.flatMap((request) =>
    Object.entries(request)
      .filter(([name]) => name !== 'command')
      .map(([name, value]) => ({ request, name, type: typeof value })),
  );

  test.each(fields)('$request.command without $name', ({ request, name, type }) => {
    const { [name]: _, ...rest } = { ...request } as Record<string, unknown>;
    expect(refusalOf(JSON.stringify(rest))).toBe(`usage: ${request.command}: ${name} is no ${type}`);
  });

  test.each(fields)('$request.command with a $name of another type', ({ request, name, type }) => {
    for (const value of [null, [], {}, 'text', 5, true].filter((each) => typeof each !== type)) {
      const line = JSON.stringify({ ...request, [name]: value });
      expect(refusalOf(line)).toBe(`usage: ${request.command}: ${name} is no ${type}`);
    }
  });
});

test.each([
  ...['null', '5', '"status"', '[]', '{}', '{"command":5}', '{"command":"none"}', '{"command":["status"]}'],
  // What every object has.
  ...[
    '{"command":"toString"}',
    '{"command":"__proto__"}',
    '{"command":"constructor"}',
    '{"__proto__":{"command":"status"}}',
  ],
])('%s is no command', (line) => {
  expect(refusalOf(line)).toBe('usage: unknown command');
});

test.each(['', 'status', '{"command":"status"', '{"command":"status"}}'])('%j is no JSON', (line) => {
  expect(refusalOf(line)).toBe('no JSON');
});

test('whatever is sent is one of the requests, or refused', () => {
  const someField = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null));
  const some = fc.record(
    {
      command: fc.oneof(fc.constantFrom(...REQUESTS.map(({ command }) => command)), fc.string()),
      disk: someField,
      name: someField,
      to: someField,
      force: someField,
      replacement: someField,
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(some, fc.jsonValue()), (value) => {
      const answer = refusalOf(JSON.stringify(value));
      expect(answer).toMatch(/^(gave \{|usage: )/);
    }),
  );
});
