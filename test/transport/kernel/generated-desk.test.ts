/** What the desk writes to the connection, which is a file here. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { GeneratedFiles } from '../../../src/transport/generated-files.ts';
import { GeneratedDesk } from '../../../src/transport/kernel/generated-desk.ts';
import { hex } from '../../fuse/requests.ts';
import { scratch } from '../../harness.ts';

const { EBADF, EIO } = constants.errno;
const LATER = { uniqueLow: 0x76543210, uniqueHigh: 0xfedcba98, node: 5 as never };
const UNIQUE = '10 32 54 76 98 ba dc fe';

function newDesk(generate: () => Promise<string>) {
  const path = join(scratch(), 'connection');
  const fd = openSync(path, 'w');
  onTestFinished(() => closeSync(fd));
  const desk = new GeneratedDesk(fd, new GeneratedFiles(generate, () => {}));
  let seen = 0;
  /** What was written since the last time. */
  const written = (): Buffer => {
    const all = readFileSync(path);
    const fresh = all.subarray(seen);
    seen = all.length;
    return fresh;
  };
  return { desk, written };
}

test('an open, reads to the end and a release', async () => {
  const { desk, written } = newDesk(async () => 'abcdef');
  await desk.answer({ kind: 'generate', ...LATER });
  expect(written()).toEqual(
    hex(
      '20 00 00 00 00 00 00 00', // len, error
      UNIQUE,
      '01 00 00 00 00 00 00 00', // fh
      '01 00 00 00 00 00 00 00', // FOPEN_DIRECT_IO
    ),
  );
  const read = { kind: 'generated-read' as const, handle: 1, ...LATER };
  await desk.answer({ ...read, offset: 2, length: 3 });
  expect(written()).toEqual(hex('13 00 00 00 00 00 00 00', UNIQUE, '63 64 65'));
  await desk.answer({ ...read, offset: 5, length: 4096 });
  expect(written()).toEqual(hex('11 00 00 00 00 00 00 00', UNIQUE, '66'));
  await desk.answer({ ...read, offset: 6, length: 4096 });
  expect(written()).toEqual(hex('10 00 00 00 00 00 00 00', UNIQUE));
  await desk.answer({ kind: 'generated-release', handle: 1, ...LATER });
  expect(written()).toEqual(hex('10 00 00 00 00 00 00 00', UNIQUE));
});

test.each([
  { kind: 'generated-read', handle: 1, offset: 0, length: 10 },
  { kind: 'generated-release', handle: Number.POSITIVE_INFINITY },
] as const)('$kind on a handle that is none is EBADF', async (asked) => {
  const { desk, written } = newDesk(async () => 'x');
  await desk.answer({ ...asked, ...LATER });
  const reply = written();
  expect([reply.length, reply.readInt32LE(4), reply.subarray(8)]).toEqual([16, -EBADF, hex(UNIQUE)]);
});

test('what could not be written is an error without a payload', async () => {
  const { desk, written } = newDesk(() => Promise.reject(new Error('no')));
  await desk.answer({ kind: 'generate', ...LATER });
  const reply = written();
  expect([reply.length, reply.readInt32LE(4)]).toEqual([16, -EIO]);
});
