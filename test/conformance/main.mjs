/**
 * The conformance suite as a program: cases that take the path of a file, whatever shows it, and hold it to what a plain
 * file does. Knows nothing of cowfs.
 *
 *   main.mjs list                 the cases, as JSON: `needs` names what not every file system carries, `lacks` is for one
 *                                 that does not carry that, and says how it has to answer
 *   main.mjs base NAME PATH       writes the image that a case's file has to show
 *   main.mjs run CASE PATH        runs one; a line on standard error and exit code 1 when it fails
 */
import { attributes } from './attributes.mjs';
import { writeBase } from './content.mjs';
import { far } from './far.mjs';
import { mappings, touchPastTheEnd } from './mapping.mjs';
import { parallel } from './parallel.mjs';
import { punches } from './punch.mjs';
import { randoms } from './random.mjs';
import { ranges } from './ranges.mjs';
import { sharing } from './sharing.mjs';
import { sizes } from './size.mjs';

const CASES = [
  ...sizes,
  ...ranges,
  ...far,
  ...punches,
  ...mappings,
  ...sharing,
  ...attributes,
  ...parallel,
  ...randoms,
];

const [command, name, path] = process.argv.slice(2);
switch (command) {
  case 'list':
    console.log(JSON.stringify(CASES.map(({ name, base, needs = [], lacks }) => ({ name, base, needs, lacks }))));
    break;
  case 'base':
    writeBase(name, path);
    break;
  case 'run': {
    const found = CASES.find((entry) => entry.name === name);
    if (found === undefined) throw new Error(`no case ${name}`);
    await found.run(path);
    break;
  }
  case 'touch':
    touchPastTheEnd(name);
    break;
  default:
    throw new Error(`unknown command ${command}`);
}
