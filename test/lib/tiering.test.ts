/** V8 is told by flags, which it renames from version to version: whether those for this Node do what they are for. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PROJECT, run } from '../harness.ts';

const MODULE = join(PROJECT, 'dist/lib/tiering.js');
const CALLS = 1000;
/** Compiles in the thread that calls, so that no timing decides what has been compiled by when. */
const FLAGS = ['--trace-opt', '--no-concurrent-recompilation', '--no-use-osr', '--input-type=module'];

test(`a function is compiled before its call ${CALLS}, and V8 knows what it is told`, () => {
  const script = `
    import { compileSooner } from ${JSON.stringify(MODULE)};
    compileSooner();
    function often(a, b) { return (a * 31 + b) | 0; }
    let sum = 0;
    for (let call = 0; call < ${CALLS}; call++) sum = often(sum, call);
  `;
  const { status, stdout, stderr } = run(process.execPath, [...FLAGS, '--eval', script]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/completed (compiling|optimizing) .*<JSFunction often /);
});
